"""The plan for the node's bridge does what is missing and touches nothing else."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.network.errors import BridgeConflictError
from services.network.model import BridgeSettings, Link, NetworkSettings
from services.network.plan import (
    REPAIRS_MAX,
    REPAIRS_WINDOW_S,
    AddAddress,
    CreateBridge,
    MarkBridge,
    RaiseBridge,
    Step,
    may_repair,
    plan_bridge,
)

WANTED = NetworkSettings(node_id="n1", bridge=BridgeSettings(name="nc0", address="10.9.0.1/24"))
LOOPBACK = Link(name="lo", index=1, is_up=True, addresses=("127.0.0.1/8", "::1/128"))
UPLINK = Link(name="eth0", index=2, is_up=True, addresses=("192.0.2.7/24", "fe80::1/64"))
KEPT = Link(
    name="nc0",
    index=3,
    kind="bridge",
    is_up=True,
    mac=WANTED.mac,
    alias="novacron:n1",
    addresses=("10.9.0.1/24",),
)


def test_a_missing_bridge_is_created_marked_raised_and_addressed() -> None:
    """The steps come in the order in which they can be done, the mark before any use."""
    assert plan_bridge(WANTED, [LOOPBACK, UPLINK]) == (
        CreateBridge("nc0", WANTED.mac),
        MarkBridge("nc0", "novacron:n1"),
        RaiseBridge("nc0"),
        AddAddress("nc0", "10.9.0.1/24"),
    )


def test_a_bridge_as_wanted_needs_nothing() -> None:
    """The plan for the wanted state is empty."""
    assert plan_bridge(WANTED, [LOOPBACK, UPLINK, KEPT]) == ()


@pytest.mark.parametrize(
    ("found", "step"),
    [
        (replace(KEPT, is_up=False), RaiseBridge("nc0")),
        (replace(KEPT, addresses=()), AddAddress("nc0", "10.9.0.1/24")),
        (replace(KEPT, addresses=("10.9.0.1/25",)), AddAddress("nc0", "10.9.0.1/24")),
        (replace(KEPT, alias=""), MarkBridge("nc0", "novacron:n1")),
    ],
)
def test_only_what_is_missing_is_done(found: Link, step: Step) -> None:
    """One difference leads to one step; further addresses on the bridge stay."""
    assert plan_bridge(WANTED, [LOOPBACK, found]) == (step,)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (Link(name="nc0", index=3), "a physical link, not a bridge"),
        (Link(name="nc0", index=3, kind="dummy", alias="novacron:n1"), "a dummy link"),
        (replace(KEPT, alias="", mac="52:54:00:00:00:01"), "no mark of this node"),
        (replace(KEPT, alias="novacron:n2"), "is marked 'novacron:n2'"),
        (replace(KEPT, alias="do not touch"), "is marked 'do not touch'"),
    ],
)
def test_a_link_that_is_not_ours_is_refused(found: Link, problem: str) -> None:
    """Neither another kind of link nor somebody else's bridge is ever touched."""
    with pytest.raises(BridgeConflictError, match=problem):
        plan_bridge(WANTED, [LOOPBACK, found])


@pytest.mark.parametrize("taken", ["10.9.0.77/24", "10.9.0.1/32", "10.0.0.1/8", "0.0.0.0/0"])
def test_an_address_that_overlaps_another_link_is_refused(taken: str) -> None:
    """A connected route of the host is never taken over, even before the bridge exists."""
    with pytest.raises(BridgeConflictError, match="overlaps"):
        plan_bridge(WANTED, [LOOPBACK, replace(UPLINK, addresses=(taken,))])


def test_a_neighbouring_network_is_no_conflict() -> None:
    """Networks that only touch are free to be used."""
    links = [replace(UPLINK, addresses=("10.9.1.1/24", "10.8.255.1/24"))]

    assert AddAddress("nc0", "10.9.0.1/24") in plan_bridge(WANTED, links)


def test_a_link_local_address_is_no_conflict() -> None:
    """Every link has the link-local network for itself."""
    wanted = replace(WANTED, bridge=BridgeSettings(name="nc0", address="fe80::99/64"))

    assert AddAddress("nc0", "fe80::99/64") in plan_bridge(wanted, [UPLINK])


def test_a_bridge_that_is_not_wanted_is_left_alone() -> None:
    """Switched off, neither a missing nor a foreign nor a former bridge leads to a step."""
    wanted = replace(WANTED, bridge=BridgeSettings(name="nc0", enabled=False))

    assert plan_bridge(wanted, [UPLINK, replace(KEPT, alias="other")]) == ()


links_of_others = st.builds(
    Link,
    name=st.sampled_from(["eth0", "eth1", "br7", "tap3"]),
    index=st.integers(10, 99),
    kind=st.sampled_from(["", "bridge", "tun"]),
    alias=st.sampled_from(["", "novacron:n1", "x"]),
    addresses=st.lists(st.sampled_from(["10.9.0.9/24", "10.10.0.1/16", "fd00::1/64"])).map(tuple),
)
own_bridge = st.none() | st.builds(
    replace,
    st.just(KEPT),
    is_up=st.booleans(),
    alias=st.sampled_from(["", "novacron:n1", "novacron:n2"]),
    kind=st.sampled_from(["bridge", "veth"]),
    addresses=st.lists(st.sampled_from(["10.9.0.1/24", "10.9.0.2/24"]), unique=True).map(tuple),
)


@given(others=st.lists(links_of_others, unique_by=lambda link: link.name), own=own_bridge)
def test_the_plan_leads_to_the_wanted_state_and_touches_nothing_else(
    others: list[Link], own: Link | None
) -> None:
    """Whatever the host has: refused, or all steps name our bridge and leave nothing to do."""
    links = [*others, own] if own else others
    try:
        steps = plan_bridge(WANTED, links)
    except BridgeConflictError:
        return

    after = own
    for step in steps:
        assert step.name == "nc0"
        after = _apply(after, step)
    assert after is not None
    assert plan_bridge(WANTED, [*others, after]) == ()


def _apply(link: Link | None, step: Step) -> Link:
    match step:
        case CreateBridge(name, mac):
            assert link is None
            return Link(name=name, index=100, kind="bridge", mac=mac)
        case MarkBridge(_, alias):
            assert link is not None
            return replace(link, alias=alias)
        case RaiseBridge():
            assert link is not None
            return replace(link, is_up=True)
        case AddAddress(_, address):
            assert link is not None
            assert ipaddress.ip_interface(address)
            return replace(link, addresses=(*link.addresses, address))


def test_repairs_are_limited_inside_the_window() -> None:
    """The limit trips at the last repair that fits, and time frees it again."""
    full = [float(at_s) for at_s in range(REPAIRS_MAX)]

    assert may_repair(full[1:], 10.0)
    assert not may_repair(full, 10.0)
    assert may_repair(full, REPAIRS_WINDOW_S)
