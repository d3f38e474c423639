"""Nodes as novacronctl nodes shows them."""

from __future__ import annotations

import dataclasses

from services.ctl.nodes import essence, render_nodes
from services.ctl.styled import to_plain
from services.data.health_records import ComponentEntry, NodeEntry, NodesPage, judge

NODE = NodeEntry(
    node_id="host-a",
    boot_id="b1",
    state="ready",
    phase=6,
    version="1.0.0",
    environment="production",
    roles=("backend",),
    started_s=1000.0,
    since_s=1001.0,
    in_state_s=7500.0,
    silent_s=2.0,
    lease_left_s=13.0,
)
COMPONENT = ComponentEntry(
    component="core/vm",
    level="core",
    phase=4,
    failure="critical",
    state="degraded",
    reason="no \x1b[31mKVM",
    pid=None,
    restarts=0,
    updated_s=1002.0,
    in_state_s=61.0,
)
GONE = dataclasses.replace(NODE, node_id="host-b", lease_left_s=-300.0, silent_s=315.0)
PAGE = NodesPage(
    mark="m.1",
    is_current=True,
    own_id="host-a",
    nodes=(judge(NODE, (COMPONENT,)), judge(GONE, (COMPONENT,))),
)


def text(page: NodesPage, width: int = 100) -> str:
    """The page as plain text."""
    return "\n".join(to_plain(spans) for spans in render_nodes(page, width=width))


def test_node_shows_state_age_and_what_is_not_well() -> None:
    """The one that answers is marked, and foreign text can't steer the terminal."""
    shown = text(PAGE)

    assert "host-a *" in shown
    assert "unwell" in shown
    assert "core/vm degraded for 1m 1s" in shown
    assert r"no \x1b[31mKVM" in shown


def test_node_without_a_lease_is_unknown_since_it_ran_out() -> None:
    """What it said last stands beside; its components are not claimed to be anything."""
    row = next(line for line in text(PAGE).splitlines() if line.startswith("host-b"))

    assert "unknown" in row
    assert "5m 0s" in row
    assert "ready" not in row
    assert "was ready; has not renewed its lease, last heard of 5m 15s ago" in text(PAGE)
    assert text(PAGE).count("core/vm") == 1


def test_view_that_gets_no_news_says_so() -> None:
    """Above everything else."""
    shown = text(dataclasses.replace(PAGE, is_current=False))

    assert shown.startswith("host-a gets no news from the database")


def test_no_nodes_is_a_sentence() -> None:
    """A table of nothing would look like a mistake."""
    assert text(dataclasses.replace(PAGE, nodes=())) == "no nodes"


def test_nodes_that_did_not_fit_are_counted() -> None:
    """Nobody takes the table for all there is."""
    assert text(dataclasses.replace(PAGE, left_out=3)).endswith("and 3 more")


def test_narrow_screen_keeps_name_state_and_age() -> None:
    """Columns go by their rank."""
    head = text(PAGE, width=35).splitlines()[0]

    assert head.split() == ["NODE", "STATE", "FOR", "UNWELL"]


def test_essence_is_the_same_while_only_time_passes() -> None:
    """And another one when a state is."""
    later = dataclasses.replace(
        PAGE, mark="m.2", nodes=(judge(NODE.aged(3), (COMPONENT,)), judge(GONE.aged(3), ()))
    )

    assert essence(later).nodes[0] == essence(PAGE).nodes[0]
    assert essence(later) != essence(PAGE)
