"""What a supervisor says of its children when it is asked why."""

from __future__ import annotations

import pytest

from protocol.messages.control import ComponentRecord
from protocol.messages.explain import ChildExplanation, Explanation, Hold
from protocol.messages.health import HealthState
from protocol.records import from_wire, to_wire
from supervisor.core import events
from supervisor.core.actions import Spawn
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import (
    ChildSpec,
    FailureClass,
    RestartIntensity,
    RestartStrategy,
    SupervisorSpec,
)
from supervisor.core.supervisor import Supervisor
from supervisor.runtime.explain import EXITS_MAX, History, NoSuchChildError, View, explain
from supervisor.runtime.processes import component_record

CRASH = ExitReason(kind=ExitKind.CRASHED, detail="exit code 1")
UNIX_S = 1_700_000_000.0


class Runtime:
    """A state machine with the history that its loop would keep, on virtual time."""

    def __init__(self, *children: ChildSpec, **fields: object) -> None:
        spec = SupervisorSpec(
            intensity=RestartIntensity(intensity=3, period_s=60.0),
            children=children,
            **fields,  # type: ignore[arg-type]  # test data
        )
        self.machine = Supervisor(spec)
        self.history = History()
        self.now_s = 100.0
        self.step(events.Begin())

    def step(self, event: events.Event) -> None:
        """Take in an event; whatever is spawned runs at once."""
        for action in self.machine.step(event, now_s=self.now_s, draw=0.0):
            if isinstance(action, Spawn):
                self.step(events.Spawned(action.spec.id, action.incarnation, 4000))
        for record in self.records().values():
            self.history.is_now(record.path, record.state, self.now_s)

    def ready(self, *names: str) -> None:
        """Children say that they are up."""
        for name in names:
            self.step(events.BecameReady(name, self.machine.children[name].incarnation))

    def end(self, name: str, reason: ExitReason = CRASH) -> None:
        """A child's process ends."""
        child = self.machine.children[name]
        number, started_s = child.incarnation, child.started_s
        self.step(events.Exited(name, number, reason))
        final = child.last_exit or reason
        self.history.exited(name, number, final, started_s=started_s, now_s=self.now_s)

    def records(self) -> dict[str, ComponentRecord]:
        """What the children look like."""
        return {
            name: component_record("novacron", child, None)
            for name, child in self.machine.children.items()
        }

    def explain(self, name: str) -> Explanation:
        """The explanation, as it arrives at the other end of the wire."""
        view = View(
            path="novacron",
            machine=self.machine,
            records=self.records(),
            history=self.history,
            now_s=self.now_s,
            unix_s=UNIX_S + self.now_s,
        )
        return from_wire(Explanation, to_wire(explain(view, name)))

    def child(self, name: str) -> ChildExplanation:
        """The part about the child."""
        child = self.explain(name).child
        assert child is not None
        return child


def spec(name: str, *depends_on: str, **fields: object) -> ChildSpec:
    """A child that depends on those named alone."""
    return ChildSpec(id=name, start="p:N", depends_on=depends_on, **fields)  # type: ignore[arg-type]  # test data


def test_child_that_is_up() -> None:
    """A healthy child has a state with its age, no holds, and a budget shared with its siblings."""
    runtime = Runtime(spec("a"))
    runtime.now_s = 101.0
    runtime.ready("a")
    runtime.now_s = 130.0

    child = runtime.child("a")

    assert (child.state, child.decision, child.pid) == (HealthState.HEALTHY, "up", 4000)
    assert child.since_s == UNIX_S + 101.0
    assert child.budget.shared
    assert (child.holds, child.exits, child.order, child.retry_in_s) == ((), (), None, None)


def test_exits_are_kept_with_reason_and_lifetime() -> None:
    """Each end is told with its time, its reason and how long the process ran."""
    runtime = Runtime(spec("a"))
    runtime.ready("a")
    runtime.now_s = 107.5
    runtime.end("a")

    (end,) = runtime.child("a").exits

    assert (end.time_s, end.ran_s, end.incarnation) == (UNIX_S + 107.5, 7.5, 1)
    assert (end.kind, end.detail) == ("crashed", "exit code 1")
    assert runtime.child("a").budget.used == 1


def test_history_is_bounded() -> None:
    """Of many ends the last ones stay, and a removed child is forgotten."""
    history = History()
    for number in range(EXITS_MAX + 5):
        history.exited("a", number, CRASH, started_s=0.0, now_s=1.0)

    assert [number for _at, number, _why, _ran in history.get("a").exits] == list(range(5, 15))
    history.forget("a")
    assert not history.get("a").exits


def test_pause_before_the_next_try() -> None:
    """A child that crashed twice waits, and it is said for how long."""
    runtime = Runtime(spec("a"))
    runtime.ready("a")
    runtime.end("a")
    runtime.ready("a")
    runtime.end("a")
    runtime.now_s += 0.06

    child = runtime.child("a")

    assert child.decision == "waiting"
    assert child.retry_in_s == pytest.approx(0.04)
    assert [hold.kind for hold in child.holds] == ["pause"]
    assert child.holds[0].left_s == pytest.approx(0.04)


def test_dependency_that_is_not_up() -> None:
    """Both ends of a wait name each other, and what is behind waits too."""
    runtime = Runtime(spec("a"), spec("b", "a"), spec("c", "b"), spec("d"))

    waiting, awaited = runtime.child("b"), runtime.child("a")

    assert waiting.holds == (Hold(kind="dependency", path="a"),)
    assert [(r.path, r.state, r.holds) for r in waiting.depends_on] == [
        ("a", HealthState.STARTING, True)
    ]
    assert [(r.path, r.holds) for r in awaited.dependents] == [("b", True), ("c", True)]
    assert runtime.explain("").supervisor.waiting == ("b", "c")


def test_order_of_otp_waits_for_all_that_precede() -> None:
    """Without declared dependencies each child waits for those before it, unless not wanted."""
    runtime = Runtime(ChildSpec(id="a", start="p:N"), ChildSpec(id="b", start="p:N"))

    assert [hold.path for hold in runtime.child("b").holds] == ["a"]

    runtime.step(events.StopChild("a"))
    assert [(hold.kind, hold.path) for hold in runtime.child("b").holds] == [("stop", "a")]


def test_no_free_slot() -> None:
    """A start that waits for others' starts says so."""
    runtime = Runtime(spec("a"), spec("b"), start_concurrency=1)

    assert runtime.child("b").holds == (Hold(kind="slots"),)
    assert runtime.explain("").supervisor.starting == 1


def test_stop_of_a_sibling_comes_first() -> None:
    """While a sibling is being stopped nothing is started, and it is said how long at most."""
    runtime = Runtime(spec("a"), spec("b"), spec("c"), start_concurrency=2)
    runtime.step(events.StopChild("a"))
    runtime.now_s += 1.0

    assert Hold(kind="stop", path="a", left_s=4.0) in runtime.child("c").holds


def test_degraded_child_has_a_budget_of_its_own() -> None:
    """Past its own limit a degraded child is tried again later; the shared budget is untouched."""
    runtime = Runtime(spec("a", failure=FailureClass.DEGRADED))
    for _ in range(4):
        runtime.end("a")
        runtime.now_s += 3.0
        runtime.step(events.Tick())

    found = runtime.explain("a")

    assert found.child is not None
    assert (found.child.decision, found.child.attempts) == ("degraded", 1)
    assert not found.child.budget.shared
    assert found.child.retry_in_s == pytest.approx(7.0)
    assert found.supervisor.budget.used == 0


def test_order_of_an_operator() -> None:
    """Who wanted it stopped, and when, is remembered."""
    runtime = Runtime(spec("a"))
    runtime.ready("a")
    runtime.step(events.StopChild("a"))
    runtime.history.ordered("a", "stop", runtime.now_s)
    runtime.history.ordered("nobody", "stop", runtime.now_s)

    stopping = runtime.child("a")
    runtime.end("a")
    stopped = runtime.child("a")

    assert stopping.deadline_in_s == 5.0
    assert stopped.order is not None
    assert (stopped.order.verb, stopped.order.time_s) == ("stop", UNIX_S + 100.0)
    assert (stopped.wanted, stopped.retry_in_s, stopped.decision) == (False, None, "stopped")


def test_siblings_that_are_restarted_along() -> None:
    """With rest_for_one the dependents share the fate of the child."""
    children = (spec("a"), spec("b", "a"), spec("c"))

    assert Runtime(*children, strategy=RestartStrategy.REST_FOR_ONE).child("a").takes_along == (
        "b",
    )
    assert Runtime(*children).child("a").takes_along == ()


def test_supervisor_that_stops_holds_everything() -> None:
    """Nothing is started by a supervisor that ends."""
    runtime = Runtime(spec("a"), spec("b", "a"))
    runtime.step(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))

    assert runtime.explain("").supervisor.mode == "stopping"
    assert not runtime.child("b").wanted


def test_unknown_child() -> None:
    """A name that is no child's is refused."""
    with pytest.raises(NoSuchChildError, match="no child 'x'"):
        Runtime(spec("a")).explain("x")
