"""A step costs the same in a large supervisor, and what is kept does not grow with time."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from supervisor.core import events
from supervisor.core.spec import Backoff, RestartIntensity, SupervisorSpec
from supervisor.testing.driver import CRASH, Driver
from tests.unit.supervisor.core.trees import ALL, ONE, REST, child, tree

MANY = 10**6


def _big(size: int, **fields: object) -> Driver:
    """A supervisor of many independent children, up."""
    spec = tree(
        *(child(f"c{number}", depends_on=()) for number in range(size)),
        intensity=MANY,
        start_concurrency=size,
        **fields,  # type: ignore[arg-type]  # test data
    )
    return Driver(spec).begin().run(1.0)


def _calls_of_restart(driver: Driver) -> int:
    """How many function calls the restart of one child takes, a deterministic measure of work."""
    calls = 0

    def count(_frame: FrameType, what: str, _argument: object) -> None:
        nonlocal calls
        calls += what in ("call", "c_call")

    machine, now_s = driver.machine, driver.now_s
    incarnation = machine.children["c5"].incarnation
    sys.setprofile(count)
    try:
        machine.step(events.Exited("c5", incarnation, CRASH), now_s=now_s, draw=0.0)
        machine.due_s()
        machine.step(events.Spawned("c5", incarnation + 1, 1), now_s=now_s, draw=0.0)
        machine.step(events.BecameReady("c5", incarnation + 1), now_s=now_s, draw=0.0)
        machine.due_s()
    finally:
        sys.setprofile(None)
    return calls


def test_a_restart_costs_the_same_among_ten_and_among_a_thousand() -> None:
    """Nothing is looked at but the child that it is about."""
    among_ten = _calls_of_restart(_big(10))

    among_a_thousand = _calls_of_restart(_big(1000))

    assert among_a_thousand <= among_ten + 20
    assert among_a_thousand < 300


@pytest.mark.parametrize("strategy", [ONE, ALL, REST])
def test_an_idle_supervisor_of_a_thousand_waits_for_nothing(strategy: object) -> None:
    """No deadline of a start that is over keeps it awake."""
    assert _big(1000, strategy=strategy).machine.due_s() is None


def test_deadlines_that_no_longer_hold_are_not_kept_for_ever() -> None:
    """A child that is restarted again and again leaves no trail of them."""
    backoff = Backoff(initial_s=0.0, max_s=0.0)
    limit = RestartIntensity(intensity=MANY, period_s=1.0)
    spec = SupervisorSpec(
        children=(child("a", start_timeout_s=1e6),), backoff=backoff, intensity=limit
    )
    driver = Driver(spec).begin().run(1.0)

    for _ in range(1000):
        driver.crash("a")
        driver.run(0.02)

    assert len(driver.machine._state.roster._due) < 100


def test_a_long_good_life_leaves_nothing_in_the_window() -> None:
    """Restarts that are too old are dropped when the next one is counted."""
    driver = Driver(tree("a", intensity=2, period_s=1.0)).begin().run(1.0)

    for _ in range(100):
        driver.crash("a")
        driver.run(5.0)

    assert len(driver.machine._state.window._times_s) == 1
