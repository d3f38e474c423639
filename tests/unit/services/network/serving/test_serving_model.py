"""What can be served, and what is refused with its fault named."""

from __future__ import annotations

import pytest

from services.network.serving.model import (
    Dns,
    Mode,
    Range,
    Reservation,
    ServedNetwork,
    Subnet,
    check_networks,
    split_upstream,
)

MAC = "52:54:00:00:00:01"


def subnet(**fields: object) -> Subnet:
    """A subnet that gives out addresses, with some fields of its own."""
    known: dict[str, object] = {"gateway": "10.20.0.1/24", "dhcp": True, **fields}
    return Subnet(**known)  # type: ignore[arg-type]  # what the test is about


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", ("192.0.2.1", None)),
        ("192.0.2.1:53", ("192.0.2.1", 53)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
    ],
)
def test_an_upstream_is_an_address_and_perhaps_a_port(
    text: str, found: tuple[str, int | None]
) -> None:
    """Both families, with and without a port."""
    assert split_upstream(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "dns.example", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:5 3",
        "[2001:db8::1", "[2001:db8::1]53", "[2001:db8::1]:", "192.0.2.1\n", "192.0.2.1#53",
        "fe80::1%eth0", "192.0.2.1:٣", "/example/192.0.2.1",
    ],
)  # fmt: skip
def test_what_is_no_upstream_is_refused(text: str) -> None:
    """Names, zones, dnsmasq's own notations, and half an address."""
    with pytest.raises(ValueError, match="upstreams"):
        split_upstream(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gateway": "10.20.0.1"}, "with prefix length"),
        ({"gateway": "fe80::1%eth0/64"}, "without a zone"),
        ({"ranges": (Range(first="10.20.0.10", last="10.20.1.9"),)}, "not in 10.20.0.0/24"),
        ({"ranges": (Range(first="10.20.0.10", last="10.20.0.9"),)}, "ends before it begins"),
        ({"ranges": (Range(first="fd00::1", last="fd00::2"),)}, "not in 10.20.0.0/24"),
        ({"dhcp": False, "ranges": (Range(first="10.20.0.1", last="10.20.0.9"),)}, "no dhcp"),
        ({"lease_s": 119}, "lease_s is 119"),
        ({"gateway": "fd00::1/56"}, "prefix of 64 bits or more"),
        ({"reservations": (Reservation(mac=MAC, address="10.20.0.1"),)}, "gateway's own"),
        (
            {
                "reservations": (
                    Reservation(mac=MAC, address="10.20.0.2"),
                    Reservation(mac="52:54:00:00:00:02", address="10.20.0.2"),
                )
            },
            "reserved twice",
        ),
        (
            {
                "reservations": (
                    Reservation(mac=MAC, address="10.20.0.2"),
                    Reservation(mac=MAC, address="10.20.0.3"),
                )
            },
            "two reservations",
        ),
    ],
)
def test_a_subnet_that_can_not_be_served_is_refused(
    fields: dict[str, object], message: str
) -> None:
    """Each rule has a message that names the value."""
    with pytest.raises(ValueError, match=message):
        subnet(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mac": "52:54:00:00:00:0"}, "mac is"),
        ({"mac": "01:54:00:00:00:01", "address": "10.0.0.1"}, "multicast"),
        ({"mac": MAC}, "neither address nor hostname"),
        ({"mac": MAC, "hostname": "a.b"}, "hostname is"),
        ({"mac": MAC, "hostname": "a,10.0.0.9"}, "hostname is"),
    ],
)
def test_a_reservation_is_for_one_card(fields: dict[str, str], message: str) -> None:
    """It has a card's address, and an address or a name to give."""
    with pytest.raises(ValueError, match=message):
        Reservation(**fields)


def test_networks_share_neither_name_nor_link() -> None:
    """Two of the same would overwrite each other's files, or answer twice."""
    one = ServedNetwork(name="a", link="br0", subnets=(subnet(),))

    check_networks((one, ServedNetwork(name="b", link="br1")))
    with pytest.raises(ValueError, match="the name a"):
        check_networks((one, ServedNetwork(name="a", link="br1")))
    with pytest.raises(ValueError, match="the link br0"):
        check_networks((one, ServedNetwork(name="b", link="br0")))


def test_overlapping_subnets_of_a_network_are_refused() -> None:
    """Dnsmasq would not know which of them a machine is in."""
    both = (subnet(), subnet(gateway="10.20.0.129/25", dhcp=False))
    with pytest.raises(ValueError, match="overlap"):
        ServedNetwork(name="a", link="br0", subnets=both)


def test_an_mtu_has_to_carry_what_the_subnets_are() -> None:
    """IPv6 takes 1280 at least."""
    ServedNetwork(name="a", link="br0", subnets=(subnet(),), mtu=576)
    with pytest.raises(ValueError, match="mtu is 1279"):
        ServedNetwork(name="a", link="br0", mtu=1279, subnets=(subnet(gateway="fd00::1/64"),))


def test_dnsmasq_is_there_for_addresses_or_names_alone() -> None:
    """A network whose subnets need neither has no process."""
    bare = Subnet(gateway="10.20.0.1/24", mode=Mode.ROUTED)
    named = Subnet(gateway="10.20.0.1/24", dns=Dns())

    assert not ServedNetwork(name="a", link="br0", subnets=(bare,)).needs_dnsmasq
    assert ServedNetwork(name="a", link="br0", subnets=(named,)).needs_dnsmasq
    assert ServedNetwork(name="a", link="br0", subnets=(subnet(),)).needs_dnsmasq
