"""Semantics 55 to 60: significant children and new specifications; see test_otp_semantics.py."""

from __future__ import annotations

import dataclasses

import pytest

from supervisor.core import events
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import (
    AutoShutdown,
    ChildSpec,
    FailureClass,
    RestartType,
    SpecError,
)
from supervisor.testing.driver import CRASH, Behaviour, Driver
from tests.unit.supervisor.core.trees import (
    ALL,
    NORMAL,
    PERMANENT,
    POOL,
    TEMPORARY,
    TRANSIENT,
    child,
    nested,
    pool,
    tree,
    up,
)


def significant(name: str, restart: RestartType = TRANSIENT) -> ChildSpec:
    """A significant child."""
    return child(name, restart, significant=True)


ANY, LAST = AutoShutdown.ANY_SIGNIFICANT, AutoShutdown.ALL_SIGNIFICANT


@pytest.mark.parametrize(
    ("restart", "reason", "is_the_end"),
    [
        (TRANSIENT, NORMAL, True),
        (TRANSIENT, CRASH, False),
        (TEMPORARY, NORMAL, True),
        (TEMPORARY, CRASH, True),
    ],
)
def test_any_significant_end_ends_the_supervisor(
    restart: RestartType, reason: ExitReason, *, is_the_end: bool
) -> None:
    """55: all siblings stop in reverse order and the end is a clean one; a crash is restarted."""
    driver = up(tree("a", significant("s", restart), "c", auto_shutdown=ANY))

    driver.crash("s", reason)
    driver.run(1.0)

    ended = ["stop c", "stop a", "finish shutdown"]
    assert driver.done() == (ended if is_the_end else ["spawn s"])


def test_all_significant_waits_for_the_last() -> None:
    """56: one that is down by order does not count as active."""
    spec = tree(*(significant(name) for name in "rst"), "a", auto_shutdown=LAST)
    driver = up(spec)
    driver.send(events.StopChild("r"))
    driver.run(1.0)

    driver.crash("s", NORMAL)
    driver.run(1.0)
    assert driver.final is None
    driver.crash("t", NORMAL)
    driver.run(1.0)

    assert driver.done() == ["stop r", "stop a", "finish shutdown"]


def test_ends_that_the_supervisor_causes_are_not_significant() -> None:
    """57: a stop by order, and being a bystander of a group restart."""
    spec = tree("a", significant("s", TEMPORARY), significant("t"), strategy=ALL, auto_shutdown=ANY)
    driver = up(spec)

    driver.send(events.StopChild("t"))
    driver.run(1.0)
    driver.crash("a")
    driver.run(1.0)

    assert (driver.final, driver.states()) == (None, {"a": "up", "t": "stopped"})


def test_significant_children_are_refused_where_nobody_would_hear_them() -> None:
    """58: also at run time."""
    driver = up(tree("a"))

    with pytest.raises(SpecError, match="auto_shutdown is never"):
        driver.send(events.AddChild(significant("s")))


@pytest.mark.parametrize(
    ("is_significant", "restart", "expected"),
    [
        (True, TRANSIENT, ["stop a", "finish shutdown"]),
        (False, TRANSIENT, []),
        (False, PERMANENT, ["spawn sub"]),
    ],
)
def test_auto_shutdown_goes_up_the_tree(
    is_significant: bool, restart: RestartType, expected: list[str]
) -> None:
    """59: through a significant supervisor; another stays down, a permanent one comes back."""
    inner = up(tree(significant("s"), auto_shutdown=ANY))
    inner.crash("s", NORMAL)
    assert inner.final is not None
    sub = dataclasses.replace(nested("sub", inner.spec, restart), significant=is_significant)
    driver = up(tree("a", sub, auto_shutdown=ANY))

    # A supervisor that ends by SHUTDOWN exits with code 0.
    driver.crash("sub", NORMAL if inner.final.kind is ExitKind.SHUTDOWN else CRASH)
    driver.run(1.0)

    assert driver.done() == expected


def test_a_new_specification_is_applied_as_a_difference() -> None:
    """60, unlike OTP: changed children restart, new ones start, removed ones stop, in order."""
    driver = up(tree("a", "b", "c", "d"))

    driver.send(
        events.Reconfigure(tree("a", child("c", settings={"x": 1}), child("e"), "d", intensity=7))
    )
    driver.run(1.0)

    assert driver.done() == ["stop c", "stop b", "spawn c", "spawn e"]
    assert driver.machine.spec.intensity.intensity == 7
    assert list(driver.machine.children) == ["a", "c", "e", "d"]


def test_a_new_specification_leaves_alone_what_it_does_not_name() -> None:
    """60: stopped stays stopped, gone stays gone, added stays, last."""
    spec = tree("a", "b", child("t", TEMPORARY), "c")
    driver = up(spec)
    driver.send(events.StopChild("b"))
    driver.crash("t")
    driver.send(events.AddChild(child("z")))
    driver.run(1.0)
    driver.done()

    driver.send(
        events.Reconfigure(dataclasses.replace(spec, children=(*spec.children, child("e"))))
    )
    driver.run(1.0)

    assert driver.done() == ["spawn e"]
    assert driver.states() == {"a": "up", "b": "stopped", "c": "up", "e": "up", "z": "up"}


def test_children_that_leave_stop_before_all_whom_they_came_after() -> None:
    """60: also where the new specification turns the order of those that stay around."""
    driver = up(tree("a", "b", "c", "d"))

    driver.send(events.Reconfigure(tree("c", child("a", settings={"x": 1}))))
    driver.run(1.0)

    assert driver.done() == ["stop d", "stop b", "stop a", "spawn a"]


def test_a_child_that_leaves_and_is_named_again_at_once_has_one_process() -> None:
    """60: the process on its way out is waited for, and its late words are not the new one's."""
    driver = up(tree("a", "b"), b=Behaviour(stop_s=0.5))

    driver.send(events.Reconfigure(tree("a")))
    driver.send(events.Reconfigure(tree("a", "b")))
    driver.run(1.0)

    assert driver.transcript == ["1.000 stop b", "1.500 spawn b"]


def test_a_degraded_child_is_tried_at_once_with_its_new_specification() -> None:
    """60: what was mended does not have to wait for a pause of minutes."""
    a = Behaviour(failing_starts=1)
    spec = tree(child("a", failure=FailureClass.DEGRADED), intensity=0)
    driver = Driver(spec, {"a": a}).begin().run(1.0)
    driver.done()

    better = child("a", failure=FailureClass.DEGRADED, settings={"x": 1})
    driver.send(events.Reconfigure(tree(better, intensity=0)))
    driver.run(0.1)

    assert driver.states() == {"a": "up"}


def test_a_pool_takes_over_its_new_template() -> None:
    """60: instances restart with it and keep what each has of its own."""
    driver = pool(2)

    driver.send(events.Reconfigure(tree(child("w", settings={"kind": "y"}), strategy=POOL)))
    driver.run(1.0)

    assert driver.done() == ["stop w.1", "stop w.0", "spawn w.0", "spawn w.1"]
    assert driver.machine.children["w.1"].spec.settings == {"kind": "y", "number": 1}


def test_nothing_becomes_a_pool() -> None:
    """60: nor the other way round; the specification is refused whole."""
    driver = up(tree("a"))

    with pytest.raises(SpecError, match="a pool stays one"):
        driver.send(events.Reconfigure(tree("a", strategy=POOL)))
