"""Semantics 48 to 54: administration and pools; see test_otp_semantics.py."""

from __future__ import annotations

import pytest

from supervisor.core import events
from supervisor.core.errors import (
    AlreadyPresentError,
    AlreadyStartedError,
    ChildNeededError,
    ChildRestartingError,
    ChildRunningError,
    PoolError,
    SupervisorStoppingError,
    UnknownChildError,
)
from supervisor.core.queries import ChildCounts, Presence
from supervisor.core.spec import (
    Backoff,
    SpecError,
)
from supervisor.testing.driver import Behaviour, Driver
from tests.unit.supervisor.core.trees import (
    SHUTDOWN,
    child,
    nested,
    pool,
    refused,
    tree,
    up,
)


def test_adding_a_child_answers_as_start_child() -> None:
    """48: started, already started with its pid, already present, or discarded."""
    z = Behaviour(failing_starts=1)
    driver = up(tree("a", "b"), z=z)
    driver.send(events.StopChild("b"))
    driver.run(1.0)

    with pytest.raises(AlreadyStartedError) as running:
        driver.send(events.AddChild(child("a")))
    with pytest.raises(AlreadyPresentError):
        driver.send(events.AddChild(child("b")))
    driver.send(events.AddChild(child("z")))
    driver.run(1.0)
    driver.send(events.AddChild(child("z")))
    driver.run(1.0)

    assert running.value.fields["pid"] == driver.machine.children["a"].pid
    assert driver.done() == ["stop b", "spawn z", "discarded z", "spawn z"]
    assert driver.states() == {"a": "up", "b": "stopped", "z": "up"}


def test_a_child_to_add_is_checked_like_any_other() -> None:
    """48, 58: a rule that it breaks refuses it, and nothing changes."""
    driver = up(tree("a"))

    with pytest.raises(SpecError, match="no sibling"):
        driver.send(events.AddChild(child("z", depends_on=("nobody",))))

    assert driver.states() == {"a": "up"}


def test_stopping_a_child_is_idempotent() -> None:
    """49: the second stop is no error, an unknown id is; the child stays down."""
    driver = up(tree("a", "b"))

    driver.send(events.StopChild("a"))
    driver.run(1.0)
    driver.send(events.StopChild("a"))
    driver.run(9.0)

    assert (driver.done(), driver.states()["a"]) == (["stop a"], "stopped")
    with pytest.raises(UnknownChildError):
        driver.send(events.StopChild("x"))


def test_deleting_and_starting_refuse_what_runs() -> None:
    """50: running, restarting, and unknown each have their error; a stopped one goes."""
    backoff = Backoff(initial_s=2.0, max_s=2.0, jitter=0.0)
    driver = up(tree("a", "b", "c", intensity=9, backoff=backoff))
    driver.crash("b")
    driver.run(0.1)
    driver.crash("b")
    driver.send(events.StopChild("c"))
    driver.run(0.1)

    codes = [
        refused(driver, make(name))
        for make in (events.DeleteChild, lambda name: events.StartChild(name, is_strict=True))
        for name in ("a", "b", "x")
    ]
    driver.send(events.DeleteChild("c"))

    running, restarting, unknown = (
        ChildRunningError.code,
        ChildRestartingError.code,
        UnknownChildError.code,
    )
    assert codes == [running, restarting, unknown] * 2
    assert driver.states().keys() == {"a", "b"}


def test_a_child_that_others_depend_on_is_not_deleted() -> None:
    """50: what declared dependencies add to OTP's rule."""
    driver = up(tree("a", child("b", depends_on=("a",))))
    driver.send(events.StopChild("a"))
    driver.run(1.0)

    assert refused(driver, events.DeleteChild("a")) == ChildNeededError.code


def test_a_start_by_order_that_fails_leaves_the_child_listed() -> None:
    """50: not running, not tried again, and startable."""
    a = Behaviour()
    driver = up(tree("a", "b"), a=a)
    driver.send(events.StopChild("a"))
    driver.run(1.0)
    a.failing_starts = 1

    driver.send(events.StartChild("a"))
    driver.run(9.0)

    assert (driver.done(), driver.states()["a"]) == (["stop a", "spawn a"], "stopped")


def test_orders_are_refused_while_the_supervisor_ends() -> None:
    """50: all but stop, which is what happens anyway."""
    driver = up(tree("a", "b"))
    driver.send(SHUTDOWN)

    driver.send(events.StopChild("a"))
    codes = {
        refused(driver, event)
        for event in (
            events.StartChild("a"),
            events.RestartChild("a"),
            events.DeleteChild("a"),
            events.AddChild(child("z")),
        )
    }

    assert codes == {SupervisorStoppingError.code}


def test_three_states_are_visible_and_a_stop_ends_the_retries() -> None:
    """51: a pid, restarting, not running; and starting, as nobody waits for a start here."""
    a = Behaviour(ready_s=0.5)
    backoff = Backoff(initial_s=2.0, max_s=2.0, jitter=0.0)
    driver = Driver(tree("a", intensity=9, backoff=backoff), {"a": a}).begin()
    seen = []

    def look() -> None:
        (info,) = driver.machine.which_children()
        seen.append((info.presence.value, info.pid is not None))

    for pause_s in (0.1, 1.0):
        driver.run(pause_s)
        look()
    a.failing_starts = 99
    driver.crash("a")
    driver.run(1.0)
    look()
    driver.send(events.StopChild("a"))
    driver.run(60.0)
    look()

    assert seen == [
        ("starting", True),
        ("running", True),
        ("restarting", False),
        ("not_running", False),
    ]
    assert driver.done().count("spawn a") == 2


def test_the_counts_add_up() -> None:
    """52: specs = workers + supervisors, and neither stopped nor restarting ones are active."""
    driver = up(tree("a", "b", "c", nested("sub", tree()), intensity=9, backoff=Backoff()))
    driver.send(events.StopChild("a"))
    driver.run(1.0)
    for _ in range(2):
        driver.crash("b")
        driver.run(0.05)

    counts = driver.machine.count_children()

    assert counts == ChildCounts(specs=4, active=2, supervisors=1, workers=3)


def test_what_happens_during_a_slow_stop_is_dealt_with_after_it() -> None:
    """53: a crash and an order are not lost, and reads are answered at once."""
    driver = up(tree("a", "b", "c"), c=Behaviour(stop_s=0.3))
    driver.send(events.StopChild("c"))

    driver.crash("a")
    driver.send(events.RestartChild("b"))
    meanwhile = [info.presence for info in driver.machine.which_children()]
    driver.run(1.0)

    assert meanwhile == [Presence.RESTARTING, Presence.RUNNING, Presence.RUNNING]
    assert driver.done() == ["stop c", "stop b", "spawn a", "spawn b"]


def test_a_pool_stops_at_once_and_addresses_no_specification() -> None:
    """54: all are asked at the same time and share one time to stop; ids have no specification."""
    driver = pool(3, shutdown_s=0.5)
    driver.behaviours["w.1"] = Behaviour(stop_s=None)  # type: ignore[index]  # the test's own dict

    codes = {
        refused(driver, event)
        for event in (
            events.StartChild("w.0"),
            events.RestartChild("w.0"),
            events.DeleteChild("w.0"),
            events.AddChild(child("x")),
        )
    }
    driver.send(SHUTDOWN)
    driver.run(1.0)

    assert codes == {PoolError.code}
    assert driver.transcript == [
        "1.000 stop w.2",
        "1.000 stop w.1",
        "1.000 stop w.0",
        "1.500 kill w.1",
        "1.500 finish shutdown",
    ]


def test_a_pool_begins_empty_and_its_children_are_made_from_the_template() -> None:
    """54: added by call, each with settings of its own, named and numbered."""
    driver = pool(0, settings={"kind": "x"})
    name = driver.machine.next_instance_id

    driver.send(events.AddInstance({"number": 7}))
    driver.run(1.0)

    assert name == "w.0"
    assert driver.machine.children["w.0"].spec.settings == {"kind": "x", "number": 7}


def test_a_pool_restarts_by_one_budget_and_forgets_who_is_stopped() -> None:
    """54: each restart counts against the one intensity; a stopped instance is gone."""
    driver = pool(3)
    driver.send(events.StopChild("w.1"))
    driver.run(1.0)
    assert driver.states() == {"w.0": "up", "w.2": "up"}
    driver.done()

    for name in ("w.0", "w.2", "w.0", "w.2"):
        driver.crash(name)
        driver.run(0.1)

    assert driver.done() == ["spawn w.0", "spawn w.2", "spawn w.0", "stop w.0", "finish escalated"]


def test_an_instance_that_fails_to_start_is_discarded() -> None:
    """54: as a child that is added anywhere else."""
    driver = pool(1)
    driver.behaviours["w.1"] = Behaviour(failing_starts=1)  # type: ignore[index]  # the test's own dict

    driver.send(events.AddInstance())
    driver.run(1.0)

    assert driver.done() == ["spawn w.1", "discarded w.1"]
    assert driver.machine.next_instance_id == "w.2"


def test_only_a_pool_takes_instances() -> None:
    """54: anywhere else a child needs a specification."""
    assert refused(up(tree("a")), events.AddInstance()) == PoolError.code
