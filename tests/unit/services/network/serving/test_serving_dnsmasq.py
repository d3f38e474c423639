"""The text that dnsmasq reads: what it says, and that no value can say more than itself."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from services.network.serving.dnsmasq import render
from services.network.serving.model import (
    Dns,
    Mode,
    Range,
    Reservation,
    ServedNetwork,
    Subnet,
)

MAC = "52:54:00:00:00:01"
KEYS = {
    "interface", "except-interface", "bind-interfaces", "no-hosts", "log-facility", "no-resolv",
    "port", "cache-size", "domain-needed", "bogus-priv", "localise-queries", "server", "domain",
    "local", "dhcp-authoritative", "dhcp-no-override", "dhcp-lease-max", "dhcp-name-match",
    "dhcp-ignore-names", "enable-ra", "ra-param", "dhcp-range", "dhcp-option", "dhcp-host",
    "host-record", "no-ping",
}  # fmt: skip
HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "a\ndhcp-script=/bin/sh", "a\rserver=1.1.1.1", "lan # x", "lan,tag:x", "a\x00b",
            "lan\\", '"', "lan\u2028conf-file=/etc/shadow", "x/1.1.1.1", "1.1.1.1@eth0", "#", "",
            " ", "=", "10.20.0.5,infinite", "10.20.0.1/24\nuser=root", "é", "\u0660.0.0.1",
        ]
    ),
)  # fmt: skip


def lines(*subnets: Subnet, mtu: int | None = None) -> list[str]:
    """The lines for a network with these subnets, without the comment."""
    network = ServedNetwork(name="lan", link="br0", subnets=subnets, mtu=mtu)
    return render(network).splitlines()[1:]


def test_a_subnet_gives_out_its_range_its_gateway_and_its_names() -> None:
    """Everything is about the one link, and nothing of the host is read."""
    found = lines(
        Subnet(
            gateway="10.20.0.1/24",
            dhcp=True,
            ranges=(Range(first="10.20.0.100", last="10.20.0.199"),),
            lease_s=600,
            reservations=(Reservation(mac=MAC, address="10.20.0.11", hostname="web"),),
            dns=Dns(domain="lan.example", upstreams=("192.0.2.53", "[2001:db8::1]:5353")),
        ),
        mtu=1400,
    )

    assert found[:5] == [
        "interface=br0",
        "except-interface=lo",
        "bind-interfaces",
        "no-hosts",
        "log-facility=-",
    ]
    for line in (
        "no-resolv",
        "server=192.0.2.53",
        "server=2001:db8::1#5353",
        "domain=lan.example,10.20.0.0/24",
        "local=/lan.example/",
        "dhcp-authoritative",
        "dhcp-lease-max=101",
        "dhcp-range=set:subnet0,10.20.0.100,10.20.0.199,255.255.255.0,600s",
        "dhcp-option=tag:subnet0,option:router,10.20.0.1",
        "dhcp-option=tag:subnet0,option:dns-server,10.20.0.1",
        "dhcp-option=tag:subnet0,option:mtu,1400",
        f"dhcp-host={MAC},10.20.0.11,web",
        "host-record=web.lan.example,10.20.0.11",
    ):
        assert line in found
    assert "enable-ra" not in found


def test_an_isolated_subnet_names_no_router() -> None:
    """Machines would send there what is dropped, instead of failing at once."""
    found = lines(Subnet(gateway="10.20.0.1/24", mode=Mode.ISOLATED, dhcp=True, dns=Dns()))
    assert "dhcp-option=tag:subnet0,option:router" in found
    found = lines(Subnet(gateway="fd00::1/64", mode=Mode.ISOLATED, dhcp=True))
    assert "ra-param=br0,600,0" in found


def test_ip6_is_advertised_and_given_out() -> None:
    """Ranges have a prefix length, addresses of reservations brackets."""
    found = lines(
        Subnet(
            gateway="fd00:20::1/64",
            mode=Mode.ROUTED,
            dhcp=True,
            ranges=(Range(first="fd00:20::100", last="fd00:20::1ff"),),
            reservations=(Reservation(mac=MAC, address="fd00:20::11"),),
            dns=Dns(),
        ),
        mtu=1400,
    )
    for line in (
        "enable-ra",
        "ra-param=br0,mtu:1400,600,1800",
        "dhcp-range=set:subnet0,fd00:20::100,fd00:20::1ff,64,3600s",
        "dhcp-option=tag:subnet0,option6:dns-server,[fd00:20::1]",
        f"dhcp-host={MAC},[fd00:20::11]",
    ):
        assert line in found


def test_without_names_nobody_answers_them_and_nobody_is_named() -> None:
    """Port 0, and an option without a value, which keeps dnsmasq from naming itself."""
    found = lines(Subnet(gateway="10.20.0.1/24", dhcp=True))
    assert "port=0" in found
    assert "dhcp-option=tag:subnet0,option:dns-server" in found
    assert not any(line.startswith(("server", "domain=", "cache-size")) for line in found)


def test_the_hosts_resolvers_are_used_where_that_is_asked_for() -> None:
    """Without no-resolv dnsmasq reads /etc/resolv.conf."""
    assert "no-resolv" in lines(Subnet(gateway="10.20.0.1/24", dns=Dns()))
    asked = Dns(use_host_resolvers=True)
    assert "no-resolv" not in lines(Subnet(gateway="10.20.0.1/24", dns=asked))


@given(
    name=HOSTILE, link=HOSTILE, gateway=HOSTILE, first=HOSTILE, last=HOSTILE, mac=HOSTILE,
    address=HOSTILE, hostname=HOSTILE, domain=HOSTILE, upstream=HOSTILE, place=st.integers(0, 9),
)  # fmt: skip
def test_no_value_can_say_more_than_itself(place: int, **hostile: str) -> None:
    """One field has hostile text: it is refused, or the lines are as many and of the same keys."""
    good = {
        "name": "lan", "link": "br0", "gateway": "10.20.0.1/24", "first": "10.20.0.9",
        "last": "10.20.0.19", "mac": MAC, "address": "10.20.0.11", "hostname": "web",
        "domain": "lan.example", "upstream": "192.0.2.53",
    }  # fmt: skip
    bad = list(good)[place]
    expected = _text(good)

    with contextlib.suppress(ValueError):
        found = _text({**good, bad: hostile[bad]})
        assert [_shape(line) for line in found] == [_shape(line) for line in expected]
        assert {line.partition("=")[0] for line in found} <= KEYS


def _text(fields: dict[str, str]) -> list[str]:
    subnet = Subnet(
        gateway=fields["gateway"],
        dhcp=True,
        ranges=(Range(first=fields["first"], last=fields["last"]),),
        reservations=(
            Reservation(
                mac=fields["mac"],
                address=fields["address"] or "10.20.0.11",
                hostname=fields["hostname"] or "x",
            ),
        ),
        dns=Dns(domain=fields["domain"] or "x", upstreams=(fields["upstream"],)),
    )
    network = ServedNetwork(name=fields["name"], link=fields["link"], subnets=(subnet,))
    return render(network).split("\n")[1:-1]


def _shape(line: str) -> tuple[str, int]:
    """Key and number of values; a reservation may have no address, a server a port."""
    key, _, value = line.partition("=")
    assert line.isascii()
    assert line.isprintable()
    assert not set(line) & {'"', "\\"}
    return key, 0 if key == "dhcp-host" else value.count(",")
