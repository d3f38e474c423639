"""Plans for networks: what they lead to, what they leave alone, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.network.networks.model import Network, NetworksDocument, Vlan, Vxlan
from services.network.networks.simulate import Host, pending
from services.network.networks.steps import Step, StepKind, describe_step
from services.network.networks.subnets import Subnet
from tests.unit.services.network.networks.networks_hosts import (
    EMPTY,
    MARKS,
    UNDERLAY,
    after,
    applied,
    documents,
    facts,
    host,
    link,
    plan,
    replaced,
)

# An IPv4 network's first address may take the others along, or not.
EITHER_WAY = (StepKind.ADD_ADDRESS, StepKind.REMOVE_ADDRESS)


def one(**values: object) -> NetworksDocument:
    """A document with one network."""
    known = {"name": "a", "bridge": "br-a"} | values
    return NetworksDocument(networks=(Network(**known),))  # type: ignore[arg-type]


def kinds(steps: tuple[Step, ...]) -> list[str]:
    """What steps do, and to which link."""
    return [f"{step.kind.value} {step.link}" for step in steps]


@given(documents(), documents())
@settings(max_examples=50, deadline=None)
def test_a_plan_leads_to_what_is_wanted(first: NetworksDocument, second: NetworksDocument) -> None:
    """From nothing and from any other document: taken, it leaves nothing to do."""
    seen = host()
    for document, previous in ((first, EMPTY), (second, first), (EMPTY, second)):
        found = plan(document, seen, previous)
        assert found.conflicts == ()
        model = Host(seen, MARKS)
        for step in found.steps:
            assert model.apply(step) or step.kind in EITHER_WAY, describe_step(step)
        seen = model.observed()
        assert plan(document, seen, document).steps == ()
    assert facts(seen).keys() == facts(host()).keys()


@given(documents(), documents(), st.data())
@settings(max_examples=50, deadline=None)
def test_there_is_a_way_back_from_every_point(
    first: NetworksDocument, second: NetworksDocument, data: st.DataObject
) -> None:
    """Cut off after any step, also twice, the undo leads to exactly what was before."""
    before = applied(first)
    found = plan(second, before, first)
    done = data.draw(st.integers(0, len(found.steps)))
    reached = after(before, found.steps[:done])

    undo = pending(found.undo, reached, MARKS)
    halfway = after(reached, undo[: data.draw(st.integers(0, len(undo)))])
    restored = after(halfway, pending(found.undo, halfway, MARKS))

    assert facts(restored) == facts(before)


@given(documents(), documents())
@settings(max_examples=20, deadline=None)
def test_links_of_the_host_are_only_attached_and_raised(
    first: NetworksDocument, second: NetworksDocument
) -> None:
    """Nothing else of them changes, and of those that no document names nothing at all."""
    before = applied(first)
    reached = after(before, plan(second, before, first).steps)

    named = {port for document in (first, second) for n in document.networks for port in n.ports}
    for name, was in facts(host()).items():
        now = facts(reached)[name]
        if name in named:
            assert (*now[:4], *now[6:]) == (*was[:4], *was[6:])
        else:
            assert now == was


def test_steps_are_in_the_order_in_which_they_can_be_taken() -> None:
    """Bridges, then what they carry, then what is attached, then addresses and remotes."""
    document = one(
        ports=("up0",),
        vlans=(Vlan(link="under0", id=5),),
        vxlans=(Vxlan(vni=7, local=UNDERLAY, remotes=("192.0.2.1",)),),
        subnets=(Subnet(gateway="10.1.0.1/24"),),
    )

    assert kinds(plan(document, host()).steps) == [
        "create-bridge br-a",
        "set-up br-a",
        "create-vlan under0.5",
        "set-up under0.5",
        "create-vxlan vx7",
        "set-up vx7",
        "attach under0.5",
        "attach vx7",
        "attach up0",
        "add-address br-a",
        "add-remote vx7",
    ]


@pytest.mark.parametrize(
    ("values", "mtu"),
    [
        ({}, 1500),
        ({"ports": ("up2",)}, 9000),
        ({"ports": ("up2", "up0")}, 1500),
        ({"vxlans": (Vxlan(vni=7, local=UNDERLAY),)}, 1450),
        ({"vxlans": (Vxlan(vni=7, local="fd00::1", link="up2"),)}, 8930),
        ({"vlans": (Vlan(link="up2", id=5),), "mtu": 4000}, 4000),
    ],
)
def test_the_mtu_is_what_all_attached_links_allow(values: dict[str, object], mtu: int) -> None:
    """Of a VXLAN segment that is 50 bytes less than the carrying link's, 70 over IPv6."""
    (made, *_) = plan(one(**values), host()).steps

    assert made.mtu == mtu


def test_a_smaller_port_is_a_warning() -> None:
    """Its own MTU is not ours to change."""
    found = plan(one(ports=("up0",), mtu=9000), host())

    assert found.conflicts == ()
    assert "MTU 9000 is more than 1500 of its port up0" in found.warnings[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ports": ("up9",)}, "up9 is no link of the host: mend its name"),
        ({"ports": ("lo",)}, "lo is a loopback, which can't be a port"),
        ({"ports": ("under0",)}, f"under0 has the address {UNDERLAY}/24"),
        ({"ports": ("bond0",)}, "bond0 is a port of other0, which is not this node's"),
        ({"bridge": "up0"}, "up0 is a physical link that carries no mark"),
        ({"bridge": "theirs0"}, "theirs0 is a bridge link that is marked 'novacron:n2/a'"),
        ({"bridge": "node0"}, "node0 is a bridge link that is marked 'novacron:n1'"),
        ({"vlans": (Vlan(link="up9", id=5),)}, "the host has no link up9 to carry VLAN 5"),
        ({"vlans": (Vlan(link="up0", id=5),), "mtu": 9000}, "MTU 9000 does not fit into up0"),
        ({"vxlans": (Vxlan(vni=7, local="192.0.2.77"),)}, "no link of the host has its local"),
        ({"vxlans": (Vxlan(vni=7, local=UNDERLAY, link="up9"),)}, "the host has no link up9"),
        (
            {"vxlans": (Vxlan(vni=7, local=UNDERLAY),), "mtu": 1500},
            "MTU 1500 and 50 bytes of headers do not fit into under0, which has 1500",
        ),
        (
            {"vxlans": (Vxlan(vni=7, local="10.1.0.1"),), "addresses": ("10.1.0.1/24",)},
            "its local address is one of br-a itself",
        ),
        ({"addresses": ("192.0.2.99/25",)}, f"192.0.2.99/25 overlaps {UNDERLAY}/24 on under0"),
    ],
)
def test_a_conflict_says_what_is_in_the_way(values: dict[str, object], expected: str) -> None:
    """Each names the network, the link, and what can be done about it."""
    seen = host(
        link("theirs0", 10, kind="bridge", alias="novacron:n2/a"),
        link("node0", 11, kind="bridge", alias="novacron:n1"),
        link("other0", 12, kind="bridge"),
        link("bond0", 13, bridge_index=12),
    )

    assert expected in " ".join(plan(one(**values), seen).conflicts)


def test_what_can_not_be_had_does_not_delete_what_is_there() -> None:
    """A VXLAN link whose underlay lost its address is not taken for one that nobody wants."""
    document = one(vxlans=(Vxlan(vni=7, local=UNDERLAY),))
    bare = replaced(applied(document), link("under0", 2, is_up=True))

    found = plan(document, bare, document)

    assert found.steps == ()
    assert "no link of the host has its local address" in found.conflicts[0]


def test_what_others_attached_keeps_a_bridge() -> None:
    """A guest's port is named; force detaches it, and the way back attaches it again."""
    document = one()
    seen = applied(document)
    bridge = seen.by_name["br-a"]
    with_guest = host(bridge, link("guest0", 20, bridge_index=bridge.index, is_up=True))

    refused = plan(EMPTY, with_guest, document)
    forced = plan(EMPTY, with_guest, document, force=True)

    assert refused.steps == ()
    assert "br-a can't be deleted with guest0 attached" in refused.conflicts[0]
    assert kinds(forced.steps) == ["detach guest0", "delete br-a"]
    assert kinds(forced.undo) == ["create-bridge br-a", "set-up br-a", "attach guest0"]


def test_what_a_bridge_carries_keeps_it_even_from_force() -> None:
    """The kernel would delete it along."""
    document = one()
    bridge = applied(document).by_name["br-a"]
    carried = link("mv0", 20, kind="macvlan")
    seen = host(bridge, type(carried)(link=carried.link, carrier_index=bridge.index))

    found = plan(EMPTY, seen, document, force=True)

    assert found.steps == ()
    assert "br-a can't be deleted while it carries mv0" in found.conflicts[0]


def test_a_link_that_died_before_it_was_marked_is_this_nodes() -> None:
    """Its hardware address says so, and it is marked and finished."""
    document = one()
    half = link("br-a", 9, kind="bridge", mac=MARKS.mac("br-a"), mtu=1499)

    found = plan(document, host(half))

    assert found.conflicts == ()
    assert kinds(found.steps) == ["mark br-a", "set-mtu br-a", "raise br-a"]


def test_repairing_deletes_nothing() -> None:
    """A link with this node's mark that no document names is told."""
    stray = link("foo0", 9, kind="bridge", alias=MARKS.alias("a"))

    found = plan(EMPTY, host(stray), may_delete=False)

    assert found.steps == ()
    assert "foo0 carries this node's mark" in found.conflicts[0]


def test_undoing_leaves_alone_what_is_somebody_elses_by_now() -> None:
    """A link of that name that another made, and a port that another took, stay as they are."""
    document = one(ports=("up0",))
    found = plan(document, host())
    theirs = link("br-a", 30, kind="bridge")
    taken = link("other0", 31, kind="bridge")
    seen = replaced(host(theirs, taken), link("up0", 3, bridge_index=31, is_up=True))

    assert pending(found.undo, seen, MARKS) == ()
