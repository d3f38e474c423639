"""How nodes stand, by what was read of them and when."""

from __future__ import annotations

import dataclasses

import pytest

from protocol import codec
from protocol.records import to_wire
from services.data.health_records import (
    ComponentEntry,
    NodeEntry,
    NodesPage,
    Standing,
    WatchQuery,
    fitting,
    judge,
)
from services.data.health_view import HealthView, NodeChange

NODE = NodeEntry(
    node_id="a",
    boot_id="b1",
    state="ready",
    phase=6,
    version="1",
    environment="e",
    roles=(),
    started_s=1.0,
    since_s=2.0,
    in_state_s=30.0,
    silent_s=1.0,
    lease_left_s=10.0,
)
COMPONENT = ComponentEntry(
    component="core/vm",
    level="core",
    phase=4,
    failure="critical",
    state="degraded",
    reason="",
    pid=1,
    restarts=0,
    updated_s=3.0,
    in_state_s=5.0,
)
OTHER = dataclasses.replace(NODE, node_id="b")


@pytest.mark.parametrize(
    ("state", "lease_left_s", "standing"),
    [
        ("ready", 0.0, Standing.READY),
        ("ready", -0.1, Standing.UNKNOWN),
        ("starting", -0.1, Standing.UNKNOWN),
        ("stopping", -0.1, Standing.UNKNOWN),
        ("stopped", -100.0, Standing.STOPPED),
        ("failed", -100.0, Standing.FAILED),
        ("hibernating", 5.0, Standing.UNKNOWN),
    ],
)
def test_lease_decides_before_the_state(
    state: str, lease_left_s: float, standing: Standing
) -> None:
    """Except for a node that said that it ends; a state of a newer program is no known one."""
    node = dataclasses.replace(NODE, state=state, lease_left_s=lease_left_s)

    assert judge(node, ()).standing is standing


def test_ready_node_with_an_unwell_component_is_unwell_since_then() -> None:
    """Not since the node is ready."""
    found = judge(NODE, (COMPONENT,))

    assert (found.standing, found.standing_s) == (Standing.UNWELL, 5.0)


def test_unknown_is_counted_from_the_end_of_the_lease() -> None:
    """Not from the last word."""
    assert judge(NODE.aged(25.0), ()).standing_s == 15.0


def test_what_is_read_again_unchanged_is_no_news() -> None:
    """The version stays, and so does everybody who waits; ages are the new ones."""
    view = HealthView()
    view.take([(NODE, ())], asked=None, now_s=0.0)
    version = view.version

    changes = view.take([(NODE.aged(5.0), ())], asked=None, now_s=5.0)

    assert (changes, view.version) == ([], version)
    assert view.nodes(6.0)[0].node.in_state_s == 36.0


def test_change_says_what_was_and_what_is() -> None:
    """For the standing; another change of the row is only a new version."""
    view = HealthView()
    first = view.take([(NODE, ())], asked=None, now_s=0.0)
    second = view.take([(NODE, (COMPONENT,))], asked=frozenset("a"), now_s=1.0)
    version = view.version
    worse = dataclasses.replace(COMPONENT, state="unhealthy")
    third = view.take([(NODE, (worse,))], asked=frozenset("a"), now_s=2.0)

    assert first == [NodeChange(node_id="a", was=None, now=Standing.READY)]
    assert second == [NodeChange(node_id="a", was=Standing.READY, now=Standing.UNWELL)]
    assert (third, view.version) == ([], version + 1)


def test_only_who_was_asked_for_can_be_gone() -> None:
    """Reading one node says nothing of the others."""
    view = HealthView()
    view.take([(NODE, ()), (OTHER, ())], asked=None, now_s=0.0)

    assert view.take([], asked=frozenset("c"), now_s=1.0) == []
    assert view.take([], asked=frozenset("a"), now_s=1.0) == [
        NodeChange(node_id="a", was=Standing.READY, now=None)
    ]
    assert [item.node.node_id for item in view.nodes(1.0)] == ["b"]


def test_leases_end_without_anybody_who_writes() -> None:
    """Once each; a node that has ended has none to lose."""
    view = HealthView()
    ended = dataclasses.replace(OTHER, state="stopped")
    view.take([(NODE, ()), (ended, ())], asked=None, now_s=0.0)

    assert view.next_expiry_s(4.0) == 6.0
    assert view.expire(9.9) == []
    assert view.expire(10.1) == [NodeChange(node_id="a", was=Standing.READY, now=Standing.UNKNOWN)]
    assert view.expire(11.0) == []
    assert view.next_expiry_s(11.0) is None


def test_time_alone_does_not_change_how_a_node_stands() -> None:
    """Its lease may have been renewed, which is told to nobody: it has to be read first."""
    view = HealthView()
    view.take([(NODE, ())], asked=None, now_s=0.0)

    assert view.nodes(60.0)[0].standing is Standing.READY
    assert view.next_expiry_s(60.0) == 0.0


@pytest.mark.parametrize("wait_s", [-0.1, 60.1])
def test_wait_is_bounded(wait_s: float) -> None:
    """On both sides."""
    with pytest.raises(ValueError, match="wait_s"):
        WatchQuery(wait_s=wait_s)


def test_answer_fits_into_a_message_whatever_the_nodes_say() -> None:
    """Those that are not ready are kept first, and nothing is cut without a count."""
    worst = dataclasses.replace(
        COMPONENT, component="c" * 100, reason="\N{BLACK HEART SUIT}" * 9000
    )
    nodes = tuple(
        judge(dataclasses.replace(NODE, node_id=f"{number:05}"), (worst,) * (60 * (number % 2)))
        for number in range(3000)
    )

    kept = fitting(nodes)

    page = NodesPage(mark="m", is_current=True, own_id="a", nodes=kept)
    assert len(codec.encode(to_wire(page))) < codec.MESSAGE_BYTES_MAX
    assert 0 < len(kept) < len(nodes)
    assert all(item.standing is Standing.UNWELL for item in kept)
    assert [item.node.node_id for item in kept] == sorted(item.node.node_id for item in kept)
    assert {len(item.unwell) for item in kept} == {50}


def test_a_thousand_healthy_nodes_fit() -> None:
    """None is left out."""
    nodes = tuple(judge(dataclasses.replace(NODE, node_id=f"{n:05}"), ()) for n in range(1000))

    assert fitting(nodes) == nodes
