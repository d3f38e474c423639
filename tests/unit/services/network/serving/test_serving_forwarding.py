"""Which switches are needed, what is put back, and what stays closed to others."""

from __future__ import annotations

import pytest

from services.network.serving.forwarding import ALL6, Opened, doors, to_restore, wanted
from services.network.serving.model import Mode, ServedNetwork, Subnet

UPLINKS = {4: ("eth0",), 6: ("eth0",)}


def network(gateway: str, mode: Mode, *, mtu: int | None = None) -> ServedNetwork:
    """A network on br0 with one subnet."""
    subnet = Subnet(gateway=gateway, mode=mode)
    return ServedNetwork(name="lan", link="br0", subnets=(subnet,), mtu=mtu)


@pytest.mark.parametrize(
    ("gateway", "mode", "found"),
    [
        ("10.0.0.1/24", Mode.NAT, ("ipv4/conf/br0/forwarding", "ipv4/conf/eth0/forwarding")),
        ("10.0.0.1/24", Mode.ROUTED, ("ipv4/conf/br0/forwarding", "ipv4/conf/eth0/forwarding")),
        ("10.0.0.1/24", Mode.ISOLATED, ()),
        ("fd00::1/64", Mode.ROUTED, ("ipv6/conf/br0/forwarding", ALL6)),
    ],
)
def test_only_what_carries_packets_is_turned_on(
    gateway: str, mode: Mode, found: tuple[str, ...]
) -> None:
    """The bridge and the ways into the world for IPv4, the common switch for IPv6."""
    assert wanted([network(gateway, mode)], UPLINKS) == found


def test_a_switch_is_put_back_when_nobody_needs_it() -> None:
    """Not while it is needed, not where somebody else has changed it, not where it was on."""
    before = {"a": "0", "b": "0", "c": "0", "d": "1", "e": "0"}
    now = {"a": "1", "b": "1", "c": "0", "d": "1", "e": None}
    assert to_restore(Opened(previous=before), ["b"], now) == {"a": "0"}


def test_a_door_is_what_we_opened_and_nobody_else_wants() -> None:
    """Who turned forwarding on for the whole host wants it between all links."""
    served = [network("10.0.0.1/24", Mode.NAT)]
    opened = Opened(previous={"ipv4/conf/eth0/forwarding": "0", "ipv4/conf/br0/forwarding": "0"})

    def found(*, forwards_all4: bool) -> tuple[str, ...]:
        return doors(served, opened, forwards_all4=forwards_all4, mtus={}, uplinks=UPLINKS).ip4

    assert found(forwards_all4=False) == ("eth0",)
    assert found(forwards_all4=True) == ()


def test_a_link_that_forwarded_before_is_no_door() -> None:
    """What it carried for others goes on."""
    opened = Opened(previous={"ipv4/conf/eth0/forwarding": "1", ALL6: "1"})
    served = [network("10.0.0.1/24", Mode.NAT)]
    found = doors(served, opened, forwards_all4=False, mtus={}, uplinks=UPLINKS)
    assert (found.ip4, found.ip6) == ((), False)


@pytest.mark.parametrize(("mtu", "clamped"), [(1400, ("br0",)), (1500, ())])
def test_an_mtu_that_differs_from_the_uplinks_is_clamped(
    mtu: int, clamped: tuple[str, ...]
) -> None:
    """Else path MTU discovery has to do it, which firewalls on the way may break."""
    served = [network("10.0.0.1/24", Mode.NAT, mtu=mtu)]
    mtus = {"eth0": 1500, "br0": mtu}
    found = doors(served, Opened(), forwards_all4=False, mtus=mtus, uplinks=UPLINKS)
    assert found.clamped == clamped
