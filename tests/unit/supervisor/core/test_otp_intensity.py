"""Semantics 36 to 47: restart intensity and escalation; see test_otp_semantics.py."""

from __future__ import annotations

import itertools

import pytest

from supervisor.core import events
from supervisor.core.spec import (
    Backoff,
)
from supervisor.core.supervisor import Mode
from supervisor.testing.driver import Behaviour, Driver
from tests.unit.supervisor.core.trees import (
    ESCALATED,
    TRANSIENT,
    child,
    nested,
    tree,
    up,
)


@pytest.mark.parametrize("intensity", [0, 1, 3])
def test_exactly_intensity_restarts_are_made(intensity: int) -> None:
    """36: the next one stops the others in reverse order and ends the supervisor."""
    driver = up(tree("a", "b", "c", intensity=intensity))

    for _ in range(intensity + 1):
        driver.crash("b")
        driver.run(1.0)

    expected = ["spawn b"] * intensity + ["stop c", "stop a", "finish escalated"]
    assert driver.done() == expected


def test_the_budget_is_the_supervisors() -> None:
    """37: deaths of different children add up."""
    driver = up(tree("a", "b", intensity=1))

    driver.crash("a")
    driver.run(1.0)
    driver.crash("b")
    driver.run(1.0)

    assert driver.done() == ["spawn a", "stop a", "finish escalated"]


def test_the_window_slides() -> None:
    """38: two in two seconds, with deaths at 0, 1.1 and 3.4 s, survives."""
    driver = up(tree("a", intensity=2, period_s=2.0))

    for pause_s in (0.0, 1.1, 2.3, 1.1, 2.3):
        driver.run(pause_s)
        driver.crash("a")

    assert driver.machine.mode is Mode.RUNNING


@pytest.mark.parametrize(("age_s", "counts"), [(1.0, True), (1.0078125, False)])
def test_the_edge_of_the_window_is_inclusive_and_continuous(age_s: float, *, counts: bool) -> None:
    """39, unlike OTP: a restart exactly one period old counts, the next moment it does not."""
    driver = up(tree("a", intensity=1, period_s=1.0), a=Behaviour(ready_s=0.0))
    driver.crash("a")
    driver.run(0.0)

    driver.run(age_s)
    driver.crash("a")

    assert (driver.final is not None) is counts


def test_failed_attempts_count_and_are_not_made_back_to_back() -> None:
    """40, unlike OTP: they count as in OTP, but each waits longer than the one before."""
    a = Behaviour()
    backoff = Backoff(initial_s=0.5, factor=2.0, max_s=4.0, jitter=0.0)
    driver = up(tree("a", intensity=4, backoff=backoff), a=a)
    a.failing_starts = 99

    driver.crash("a")
    driver.run(30.0)

    starts = driver.transcript.times_of("spawn a")
    pauses = [round(b - a, 1) for a, b in itertools.pairwise(starts)]
    assert (pauses, driver.done()[-1]) == ([0.5, 1.0, 2.0], "finish escalated")


def test_orders_never_count() -> None:
    """41: with an intensity of 0, failed orders leave the supervisor alone."""
    a, z = Behaviour(), Behaviour(failing_starts=1)
    driver = up(tree("a", "b", intensity=0), a=a, z=z)

    driver.send(events.AddChild(child("z")))
    driver.run(1.0)
    driver.send(events.StopChild("a"))
    driver.run(1.0)
    a.failing_starts = 1
    driver.send(events.StartChild("a"))
    driver.run(1.0)
    driver.send(events.RestartChild("b"))
    driver.run(1.0)

    assert (driver.machine.mode, driver.machine.restarts_in_window(9.0)) == (Mode.RUNNING, 0)


def test_a_restart_by_order_that_fails_is_tried_again_without_counting() -> None:
    """41: the first failure is the order's; from then on the child is on its own again."""
    a = Behaviour()
    driver = up(tree("a", intensity=1), a=a)
    a.failing_starts = 1

    driver.send(events.RestartChild("a"))
    driver.run(1.0)

    assert driver.done() == ["stop a", "spawn a", "spawn a"]
    assert driver.machine.restarts_in_window(driver.now_s) == 0


def test_a_child_that_is_slow_to_start_cannot_crash_for_ever() -> None:
    """42, unlike OTP: two in one second trips though each start takes longer than a second."""
    driver = Driver(tree("a", intensity=2, period_s=1.0), {"a": Behaviour(ready_s=1.1)}).begin()

    for _ in range(3):
        driver.run(1.2)
        driver.crash("a")

    assert driver.done().count("spawn a") == 3
    assert driver.final is not None


def test_a_child_that_never_comes_up_cannot_be_tried_for_ever() -> None:
    """42: neither does it help to hang at each start until the start's time is over."""
    a = Behaviour()
    spec = tree(child("a", start_timeout_s=30.0), intensity=2, period_s=1.0)
    driver = up(spec, a=a)
    a.ready_s = None

    driver.crash("a")
    driver.run(120.0)

    assert driver.done()[-2:] == ["kill a", "finish escalated"]


def test_escalation_is_one_failure_to_the_parent() -> None:
    """44: a permanent supervisor that escalates is restarted and counts once."""
    driver = up(tree(nested("sub", tree("x"))))

    driver.crash("sub", ESCALATED)

    assert driver.done() == ["spawn sub"]
    assert driver.machine.restarts_in_window(driver.now_s) == 1


def test_a_transient_supervisor_that_escalates_is_restarted() -> None:
    """45, unlike OTP: escalation is abnormal, so the subtree does not disappear silently."""
    driver = up(tree(nested("sub", tree("x"), TRANSIENT)))

    driver.crash("sub", ESCALATED)

    assert driver.done() == ["spawn sub"]


def test_budgets_multiply() -> None:
    """46: with an inner intensity of 2 and an outer one of 3 a leaf starts twelve times."""
    inner = tree("x", intensity=2)
    outer = up(tree(nested("sub", inner), intensity=3))
    leaf_starts = supervisor_starts = 0

    while outer.final is None:
        supervisor_starts += 1
        driver = Driver(inner).begin().run(0.1)
        while driver.final is None:
            driver.crash("x")
            driver.run(0.1)
        leaf_starts += driver.done().count("spawn x")
        outer.crash("sub", driver.final)
        outer.run(0.1)

    assert (leaf_starts, supervisor_starts) == (12, 4)


def test_a_restarted_supervisor_is_new() -> None:
    """47: it begins with its specification: no history, nothing added, deleted children back."""
    inner = tree("x", "y")
    driver = up(inner)
    driver.send(events.AddChild(child("z")))
    driver.send(events.StopChild("y"))
    driver.run(1.0)
    driver.send(events.DeleteChild("y"))
    driver.crash("x")

    again = up(inner)

    assert driver.states().keys() == {"x", "z"}
    assert again.states() == {"x": "up", "y": "up"}
    assert again.machine.restarts_in_window(again.now_s) == 0
