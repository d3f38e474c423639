"""Semantics 25 to 35: the strategies; see test_otp_semantics.py."""

from __future__ import annotations

import pytest

from supervisor.core import events
from supervisor.core.spec import (
    RestartStrategy,
)
from supervisor.testing.driver import Behaviour
from tests.unit.supervisor.core.trees import (
    ALL,
    NORMAL,
    REST,
    SHUTDOWN,
    TEMPORARY,
    TRANSIENT,
    child,
    tree,
    up,
)


def test_one_for_one_replaces_the_dead_child_alone() -> None:
    """25."""
    driver = up(tree("a", "b", "c"))

    driver.crash("b")
    driver.run(1.0)

    assert driver.done() == ["spawn b"]


def test_one_for_all_stops_all_in_reverse_then_starts_all() -> None:
    """26: no start begins before the last stop has ended."""
    driver = up(tree("a", "b", "c", strategy=ALL), a=Behaviour(stop_s=0.5))

    driver.crash("b")
    driver.run(1.0)

    assert driver.transcript[2] == "1.510 spawn a"
    assert driver.done() == ["stop c", "stop a", "spawn a", "spawn b", "spawn c"]


def test_rest_for_one_leaves_those_before() -> None:
    """27."""
    driver = up(tree("a", "b", "c", "d", strategy=REST))

    driver.crash("b")
    driver.run(1.0)

    assert driver.done() == ["stop d", "stop c", "spawn b", "spawn c", "spawn d"]


@pytest.mark.parametrize("strategy", [ALL, REST])
def test_temporary_bystanders_are_forgotten(strategy: RestartStrategy) -> None:
    """28: stopped with the group and not started again."""
    driver = up(tree("a", child("t", TEMPORARY), strategy=strategy))

    driver.crash("a")
    driver.run(1.0)

    assert (driver.done(), driver.states()) == (["stop t", "spawn a"], {"a": "up"})


def test_a_group_restart_does_not_bring_back_who_was_stopped_or_finished() -> None:
    """29, unlike OTP: neither a child stopped by order nor a transient one that finished."""
    driver = up(tree("a", "b", child("c", TRANSIENT), strategy=ALL))
    driver.send(events.StopChild("b"))
    driver.crash("c", NORMAL)
    driver.run(1.0)
    driver.done()

    driver.crash("a")
    driver.run(1.0)

    assert driver.states() == {"a": "up", "b": "stopped", "c": "stopped"}


def test_stops_of_siblings_are_no_failures() -> None:
    """30: a group restart counts once, even where a sibling crashes before its turn to stop."""
    driver = up(tree("a", "b", "c", strategy=ALL, intensity=1), c=Behaviour(stop_s=0.5))
    driver.crash("b")

    driver.crash("a")
    driver.run(1.0)

    assert driver.machine.restarts_in_window(driver.now_s) == 1
    assert driver.states() == {"a": "up", "b": "up", "c": "up"}


def test_deaths_found_together_count_once_for_all_and_each_for_one() -> None:
    """31: one group restart repairs both; under one_for_one each needs its own."""
    together = up(tree("a", "b", "c", strategy=ALL, intensity=1))
    apart = up(tree("a", "b", "c", intensity=1))

    together.crash_together("b", "a")
    together.run(1.0)
    apart.crash_together("b", "a")
    apart.run(1.0)

    assert together.done() == ["stop c", "spawn a", "spawn b", "spawn c"]
    assert apart.done() == ["stop c", "finish escalated"]


def test_of_two_deaths_the_first_in_order_is_dealt_with_first() -> None:
    """32, unlike OTP: b is never started while a is dead, and it is one restart."""
    driver = up(tree("a", "b", "c", strategy=REST, intensity=1))

    driver.crash_together("b", "a")
    driver.run(1.0)

    assert driver.done() == ["stop c", "spawn a", "spawn b", "spawn c"]
    assert driver.machine.restarts_in_window(driver.now_s) == 1


def test_one_for_all_begins_anew_when_another_child_fails() -> None:
    """33: those that are up again stop in reverse order, then all are tried."""
    c = Behaviour()
    driver = up(tree("a", "b", "c", strategy=ALL), c=c)
    c.failing_starts = 1

    driver.crash("a")
    driver.run(1.0)

    again = ["spawn a", "spawn b", "spawn c"]
    assert driver.done() == ["stop c", "stop b", *again, "stop b", "stop a", *again]


def test_rest_for_one_goes_on_where_another_child_fails() -> None:
    """34: earlier members that are up again keep running."""
    c = Behaviour()
    driver = up(tree("a", "b", "c", strategy=REST), c=c)
    c.failing_starts = 1

    driver.crash("b")
    driver.run(1.0)

    assert driver.done() == ["stop c", "spawn b", "spawn c", "spawn c"]


def test_children_added_at_run_time_are_last_in_order() -> None:
    """35: rest_for_one takes them along, and they stop first."""
    driver = up(tree("a", "b", strategy=REST))
    driver.send(events.AddChild(child("z")))
    driver.run(1.0)

    driver.crash("b")
    driver.run(1.0)
    driver.send(SHUTDOWN)
    driver.run(1.0)

    assert driver.done() == [
        *("spawn z", "stop z", "spawn b", "spawn z"),
        *("stop z", "stop b", "stop a", "finish shutdown"),
    ]
