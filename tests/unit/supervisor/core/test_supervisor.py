"""The supervisor's rules, one by one, on virtual time."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from supervisor.core import events
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import (
    Backoff,
    ChildSpec,
    ChildType,
    FailureClass,
    RestartIntensity,
    RestartStrategy,
    RestartType,
    SpecError,
    SupervisorSpec,
)
from supervisor.core.supervisor import Mode, UnknownChildError
from supervisor.testing.driver import CRASH, KILLED, Behaviour, Driver

CRITICAL = ExitReason(kind=ExitKind.CRITICAL, detail="database gone", code="data.gone")
NORMAL = ExitReason(kind=ExitKind.NORMAL)


def child(name: str, **fields: object) -> ChildSpec:
    """A child with a start, as most tests need it."""
    return ChildSpec(id=name, start="package:Name", **fields)  # type: ignore[arg-type]  # test data


def tree(
    *children: ChildSpec | str,
    strategy: RestartStrategy = RestartStrategy.ONE_FOR_ONE,
    intensity: int = 3,
    **fields: object,
) -> SupervisorSpec:
    """A supervisor whose pauses are short against its period."""
    specs = tuple(child(c) if isinstance(c, str) else c for c in children)
    return SupervisorSpec(
        strategy=strategy,
        intensity=RestartIntensity(intensity=intensity, period_s=60.0),
        children=specs,
        **fields,  # type: ignore[arg-type]  # test data
    )


def up(spec: SupervisorSpec, **behaviours: Behaviour) -> Driver:
    """A driver whose children have all had the time to come up."""
    driver = Driver(spec, behaviours).begin().run(1.0)
    driver.transcript.clear()
    return driver


def test_children_start_in_order_each_after_the_one_before_is_up() -> None:
    """Without declared dependencies the start is OTP's: ordered and synchronous."""
    driver = Driver(tree("a", "b", "c"), {"a": Behaviour(ready_s=0.06)}).begin().run(1.0)

    assert driver.transcript == [
        "0.000 spawn a",
        "0.060 spawn b",
        "0.070 spawn c",
        "0.080 all up",
    ]


def test_independent_children_start_together_within_the_limit() -> None:
    """No more than start_concurrency children are starting at any time."""
    spec = tree(*(child(name, depends_on=()) for name in "abcd"), start_concurrency=2)

    driver = Driver(spec).begin().run(1.0)

    assert driver.transcript == [
        "0.000 spawn a",
        "0.000 spawn b",
        "0.010 spawn c",
        "0.010 spawn d",
        "0.020 all up",
    ]


def test_a_child_waits_only_for_what_it_depends_on() -> None:
    """A slow sibling that nobody depends on delays nobody."""
    spec = tree(
        child("slow", depends_on=()), child("a", depends_on=()), child("b", depends_on=("a",))
    )

    driver = Driver(spec, {"slow": Behaviour(ready_s=0.5)}).begin().run(0.3)

    assert driver.states() == {"slow": "starting", "a": "up", "b": "up"}


def test_a_failed_first_start_rolls_back_in_reverse_order() -> None:
    """What was started stops, last first; nothing further starts; no start is tried twice."""
    driver = Driver(tree("a", "b", "c", "d"), {"c": Behaviour(failing_starts=9)}).begin().run(1.0)

    assert driver.done() == [
        "spawn a",
        "spawn b",
        "spawn c",
        "stop b",
        "stop a",
        "finish start_failed",
    ]
    assert driver.final is not None
    assert driver.final.origin == "c"


def test_a_degraded_child_that_fails_at_boot_does_not_stop_the_boot() -> None:
    """It is listed as degraded once its own window is full, and the rest comes up."""
    spec = tree(child("a", failure=FailureClass.DEGRADED), "b", intensity=2)

    driver = Driver(spec, {"a": Behaviour(failing_starts=99)}).begin().run(2.0)

    assert driver.machine.mode is Mode.RUNNING
    assert driver.states() == {"a": "degraded", "b": "up"}


def test_a_degraded_child_is_tried_again_with_growing_pauses() -> None:
    """Each round of failures waits longer than the one before."""
    backoff = Backoff(degraded_initial_s=10.0, degraded_max_s=300.0, jitter=0.0)
    spec = tree(child("a", failure=FailureClass.DEGRADED), intensity=0, backoff=backoff)

    driver = Driver(spec, {"a": Behaviour(failing_starts=99)}).begin().run(80.0)

    spawns = [float(line.split()[0]) for line in driver.transcript if "spawn" in line]
    pauses = [round(b - a) for a, b in itertools.pairwise(spawns)]
    assert pauses == [10, 20, 40]


def test_a_degraded_child_that_comes_back_is_up() -> None:
    """A later start that works ends the degradation."""
    spec = tree(child("a", failure=FailureClass.DEGRADED), "b", intensity=0)

    driver = Driver(spec, {"a": Behaviour(failing_starts=1)}).begin().run(20.0)

    assert driver.states() == {"a": "up", "b": "up"}


def test_stop_is_strictly_sequential_and_last_first() -> None:
    """Three children that need 50 ms each take 150 ms."""
    slow = {name: Behaviour(stop_s=0.05) for name in "abc"}
    driver = up(tree("a", "b", "c"), **slow)

    driver.send(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))
    driver.run(1.0)

    assert driver.transcript == [
        "1.000 stop c",
        "1.050 stop b",
        "1.100 stop a",
        "1.150 finish shutdown",
    ]


def test_a_child_that_ignores_the_request_is_killed_at_its_deadline() -> None:
    """The others still get their orderly stop."""
    driver = up(tree("a", child("b", shutdown_s=0.2)), b=Behaviour(stop_s=None))

    driver.send(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))
    driver.run(1.0)

    assert driver.transcript == [
        "1.000 stop b",
        "1.200 kill b",
        "1.200 stop a",
        "1.210 finish shutdown",
    ]


def test_brutal_kill_asks_nothing() -> None:
    """shutdown_s of 0 is OTP's brutal_kill."""
    driver = up(tree(child("a", shutdown_s=0)))

    driver.send(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))
    driver.run(1.0)

    assert driver.done() == ["kill a", "finish shutdown"]


def test_infinity_waits() -> None:
    """shutdown_s of None never kills."""
    driver = up(tree(child("a", shutdown_s=None)), a=Behaviour(stop_s=700.0))

    driver.send(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))
    driver.run(1000.0)

    assert driver.done() == ["stop a", "finish shutdown"]


@pytest.mark.parametrize(
    ("restart", "reason", "is_restarted"),
    [
        (RestartType.PERMANENT, NORMAL, True),
        (RestartType.PERMANENT, CRASH, True),
        (RestartType.PERMANENT, KILLED, True),
        (RestartType.TRANSIENT, NORMAL, False),
        (RestartType.TRANSIENT, CRASH, True),
        (RestartType.TRANSIENT, KILLED, True),
        (RestartType.TEMPORARY, CRASH, False),
        (RestartType.TEMPORARY, NORMAL, False),
    ],
)
def test_restart_type_decides(
    restart: RestartType, reason: ExitReason, *, is_restarted: bool
) -> None:
    """Each restart type against each kind of end."""
    driver = up(tree(child("a", restart=restart), "b"))

    driver.crash("a", reason)
    driver.run(1.0)

    assert driver.done() == (["spawn a"] if is_restarted else [])


def test_a_temporary_child_is_forgotten() -> None:
    """Its specification disappears with it."""
    driver = up(tree(child("a", restart=RestartType.TEMPORARY), "b"))

    driver.crash("a")

    assert driver.states() == {"b": "up"}


def test_one_for_one_touches_only_the_dead_child() -> None:
    """Siblings keep their processes."""
    driver = up(tree("a", "b", "c"))

    driver.crash("b")
    driver.run(1.0)

    assert driver.done() == ["spawn b"]


def test_one_for_all_stops_in_reverse_then_starts_in_order() -> None:
    """No start begins before the last stop has ended."""
    driver = up(tree("a", "b", "c", strategy=RestartStrategy.ONE_FOR_ALL))

    driver.crash("b")
    driver.run(1.0)

    assert driver.done() == ["stop c", "stop a", "spawn a", "spawn b", "spawn c"]


def test_rest_for_one_restarts_those_after_it() -> None:
    """Those before keep their processes."""
    driver = up(tree("a", "b", "c", "d", strategy=RestartStrategy.REST_FOR_ONE))

    driver.crash("b")
    driver.run(1.0)

    assert driver.done() == ["stop d", "stop c", "spawn b", "spawn c", "spawn d"]


def test_rest_for_one_with_declared_dependencies_restarts_dependents_only() -> None:
    """A later sibling that does not depend on the dead child, however indirectly, stays."""
    spec = tree(
        child("a", depends_on=()),
        child("b", depends_on=()),
        child("c", depends_on=("a",)),
        child("d", depends_on=("c",)),
        strategy=RestartStrategy.REST_FOR_ONE,
    )
    driver = up(spec)

    driver.crash("a")
    driver.run(1.0)

    assert driver.done() == ["stop d", "stop c", "spawn a", "spawn c", "spawn d"]


def test_the_death_of_a_degraded_child_touches_nobody() -> None:
    """Dependents of a degraded child are written to work without it."""
    spec = tree(
        child("redis", depends_on=(), failure=FailureClass.DEGRADED),
        child("cache", depends_on=("redis",)),
        strategy=RestartStrategy.REST_FOR_ONE,
    )
    driver = up(spec)

    driver.crash("redis")
    driver.run(1.0)

    assert driver.done() == ["spawn redis"]


def test_exactly_intensity_restarts_are_made() -> None:
    """The restart after the last allowed one stops everything and escalates."""
    driver = up(tree("a", "b", intensity=3))

    for _ in range(3):
        driver.crash("a")
        driver.run(5.0)
    spawned = driver.done()
    driver.crash("a")
    driver.run(1.0)

    assert spawned == ["spawn a"] * 3
    assert driver.done() == ["stop b", "finish escalated"]
    assert driver.final is not None
    assert driver.final.origin == "a"


def test_intensity_zero_allows_no_restart() -> None:
    """The first death escalates."""
    driver = up(tree("a", intensity=0))

    driver.crash("a")

    assert driver.done() == ["finish escalated"]


def test_the_budget_belongs_to_the_supervisor() -> None:
    """Deaths of different children add up."""
    driver = up(tree("a", "b", intensity=1))

    driver.crash("a")
    driver.run(1.0)
    driver.crash("b")
    driver.run(1.0)

    assert driver.final is not None


def test_the_window_slides() -> None:
    """Deaths further apart than the period are no storm."""
    driver = up(tree("a", intensity=1))

    for _ in range(5):
        driver.crash("a")
        driver.run(60.5)

    assert driver.final is None


def test_a_restart_exactly_one_period_old_still_counts() -> None:
    """The window's edge is inclusive, as OTP's."""
    driver = up(tree("a", intensity=1))
    driver.crash("a")
    driver.run(60.0)

    driver.crash("a")

    assert driver.machine.mode is Mode.FINISHED


def test_the_first_restart_is_immediate_and_later_ones_wait_longer() -> None:
    """Pauses double up to the cap."""
    backoff = Backoff(initial_s=0.1, factor=2.0, max_s=0.3, jitter=0.0, reset_s=10.0)
    driver = up(tree("a", intensity=9, backoff=backoff))

    for _ in range(4):
        driver.crash("a")
        driver.run(1.0)

    spawns = [float(line.split()[0]) for line in driver.transcript if "spawn" in line]
    assert spawns == pytest.approx([1.0, 2.1, 3.2, 4.3])


def test_a_long_good_run_resets_the_pauses() -> None:
    """After reset_s of being up the next restart is immediate again."""
    backoff = Backoff(initial_s=0.1, max_s=0.3, jitter=0.0, reset_s=10.0)
    driver = up(tree("a", intensity=9, backoff=backoff))
    driver.crash("a")
    driver.run(11.0)

    driver.crash("a")

    assert driver.done()[-1] == "spawn a"


def test_jitter_shortens_a_pause() -> None:
    """A draw of 1 takes off the whole jitter share."""
    backoff = Backoff(initial_s=1.0, max_s=1.0, jitter=0.5)
    driver = up(tree("a", intensity=9, backoff=backoff))
    driver.draw = 0.999
    driver.crash("a")
    driver.run(0.1)
    driver.transcript.clear()

    driver.crash("a")
    driver.run(0.6)

    assert driver.done() == ["spawn a"]


def test_a_critical_end_stops_the_tree_at_once() -> None:
    """No restart; the final reason names the child, its code and its phase."""
    driver = up(tree("a", child("b", phase=3), "c"))

    driver.crash("b", CRITICAL)
    driver.run(1.0)

    assert driver.done() == ["stop c", "stop a", "finish critical"]
    assert driver.final == dataclasses.replace(CRITICAL, origin="b", phase=3)


def test_a_critical_end_of_a_degraded_child_degrades_it() -> None:
    """The class of the child bounds what its death can do."""
    driver = up(tree(child("a", failure=FailureClass.DEGRADED), "b"))

    driver.crash("a", CRITICAL)
    driver.run(1.0)

    assert driver.states() == {"a": "degraded", "b": "up"}


def test_a_child_that_declines_stays_listed() -> None:
    """OTP's ignore: not an error, not restarted, startable by id."""
    declined = ExitReason(kind=ExitKind.DECLINED, detail="nothing to do")
    behaviours = {"a": Behaviour(failing_starts=1, start_failure=declined)}
    driver = Driver(tree("a", "b"), behaviours).begin().run(1.0)
    assert driver.states() == {"a": "stopped", "b": "up"}

    driver.send(events.StartChild("a"))
    driver.run(1.0)

    assert driver.states() == {"a": "up", "b": "up"}


def test_a_child_that_is_not_ready_in_time_has_failed_to_start() -> None:
    """It is killed, and the boot fails with that reason."""
    driver = Driver(tree(child("a", start_timeout_s=2.0)), {"a": Behaviour(ready_s=None)}).begin()

    driver.run(3.0)

    assert driver.done() == ["spawn a", "kill a", "finish start_failed"]
    assert driver.final is not None
    assert driver.final.detail == "not ready within 2 s"


def test_a_hung_child_shows_its_stacks_and_is_killed() -> None:
    """SIGABRT first, SIGKILL after the grace, then a new process; the reason says why."""
    driver = up(tree("a"))

    driver.send(events.StoppedBeating("a", 1))
    driver.run(2.0)

    assert driver.done() == ["abort a", "kill a", "spawn a"]
    last = driver.machine.children["a"].last_exit
    assert last is not None
    assert last.kind is ExitKind.UNRESPONSIVE


def test_words_of_an_earlier_process_are_ignored() -> None:
    """An exit or ready of an incarnation that is over changes nothing."""
    driver = up(tree("a"))
    driver.crash("a")
    driver.run(1.0)
    driver.transcript.clear()

    driver.send(events.Exited("a", 1, CRASH))
    driver.send(events.StoppedBeating("a", 1))
    driver.run(1.0)

    assert driver.done() == []


def test_an_operators_stop_outlasts_a_group_restart() -> None:
    """Unlike OTP, a stopped child is not brought back by its siblings' strategy."""
    driver = up(tree("a", "b", "c", strategy=RestartStrategy.ONE_FOR_ALL))
    driver.send(events.StopChild("b"))
    driver.run(1.0)
    driver.transcript.clear()

    driver.crash("c")
    driver.run(1.0)

    assert driver.states() == {"a": "up", "b": "stopped", "c": "up"}


def test_an_operators_restart_is_no_failure() -> None:
    """It does not count against the intensity."""
    driver = up(tree("a", intensity=0))

    driver.send(events.RestartChild("a"))
    driver.run(1.0)

    assert driver.done() == ["stop a", "spawn a"]
    assert driver.machine.restarts_in_window(driver.now_s) == 0


def test_an_operators_start_ends_a_pause() -> None:
    """A degraded child is started at once when somebody asks."""
    spec = tree(child("a", failure=FailureClass.DEGRADED), "b", intensity=0)
    driver = Driver(spec, {"a": Behaviour(failing_starts=1)}).begin().run(1.0)
    driver.transcript.clear()

    driver.send(events.StartChild("a"))
    driver.run(0.1)

    assert driver.states()["a"] == "up"


def test_a_command_for_a_stranger_changes_nothing() -> None:
    """The caller is told that there is no such child."""
    driver = up(tree("a"))

    with pytest.raises(UnknownChildError):
        driver.send(events.StopChild("b"))


def test_a_stop_during_a_restart_loop_wins() -> None:
    """A child that fails every start does not keep the supervisor from stopping."""
    driver = up(tree("a", "b", intensity=9), a=Behaviour())
    driver.behaviours["a"].failing_starts = 99
    driver.crash("a")
    driver.run(0.3)

    driver.send(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))
    driver.run(0.1)

    assert driver.final is not None


def test_nothing_is_done_after_the_end() -> None:
    """A finished machine takes events and returns no action."""
    driver = up(tree("a"))
    driver.send(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))
    driver.run(1.0)
    driver.transcript.clear()

    driver.send(events.StartChild("a"))
    driver.send(events.Begin())

    assert driver.done() == []


def test_reconfigure_touches_only_what_differs() -> None:
    """Changed children restart, new ones start, removed ones stop, the rest keep running."""
    driver = up(tree("a", child("b", settings={"x": 1}), "c"))

    driver.send(events.Reconfigure(tree("a", child("b", settings={"x": 2}), "d")))
    driver.run(1.0)

    assert driver.done() == ["stop c", "stop b", "spawn b", "spawn d"]
    assert driver.states() == {"a": "up", "b": "up", "d": "up"}


def test_reconfigure_keeps_a_stopped_child_stopped() -> None:
    """Even when its specification changed."""
    driver = up(tree("a", "b"))
    driver.send(events.StopChild("b"))
    driver.run(1.0)
    driver.transcript.clear()

    driver.send(events.Reconfigure(tree("a", child("b", settings={"x": 2}))))
    driver.run(1.0)

    assert driver.done() == []


def test_a_nested_supervisor_is_updated_in_place() -> None:
    """A change below it does not cost the processes that did not change."""

    def nested(value: int) -> ChildSpec:
        inner = tree(child("x", settings={"v": value}))
        return ChildSpec(id="sub", type=ChildType.SUPERVISOR, children=inner)

    driver = up(tree("a", nested(1)))

    driver.send(events.Reconfigure(tree("a", nested(2))))
    driver.run(1.0)

    assert driver.done() == ["update sub"]


def test_a_bad_specification_changes_nothing() -> None:
    """It is refused whole."""
    driver = up(tree("a"))

    with pytest.raises(SpecError):
        driver.send(events.Reconfigure(tree("b", "b")))

    assert driver.states() == {"a": "up"}


def test_an_idle_supervisor_waits_for_nothing() -> None:
    """Once everything is up no Tick is due."""
    driver = up(tree("a", "b"))

    assert driver.machine.due_s() is None
