"""What a screen that is watched marks as changed."""

from __future__ import annotations

from protocol.messages.health import HealthState
from services.ctl.watch import MARKED_S, Changes
from tests.unit.services.ctl.ctl_samples import component, node


def test_changes_are_marked_for_a_while() -> None:
    """Another state, pid or reason and a new component are marked, and later no more."""
    changes = Changes()
    before = (component("a", "x"), component("b", "x"), component("c", "x"))
    after = (
        component("a", "x", pid=99),
        component("b", "x", state=HealthState.DEGRADED),
        component("c", "x", uptime_s=1.0, memory_bytes=1, restarts=1),
        component("d", "x"),
    )

    assert changes.take(node(components=before), 1.0) == frozenset()
    assert changes.take(node(components=after), 2.0) == {"a", "b", "d"}
    assert changes.take(node(components=after), 2.0 + MARKED_S - 0.1) == {"a", "b", "d"}
    assert changes.take(node(components=after), 2.0 + MARKED_S) == frozenset()


def test_component_that_went_and_came_back_is_marked() -> None:
    """What is gone is unknown, so its return is a change."""
    changes = Changes()
    changes.take(node(components=(component("a", "x"),)), 1.0)
    changes.take(node(components=()), 2.0)

    assert changes.take(node(components=(component("a", "x"),)), 3.0) == {"a"}
