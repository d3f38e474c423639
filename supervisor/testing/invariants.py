"""What must hold after every step of a supervisor, whatever happens to it.

A Checker watches one supervisor: it is shown each event with the actions that it led to, or with
the error that refused it, and raises InvariantError at the first thing that must not be. What must
be it knows from the model, which is built from the trace alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, assert_never

from supervisor.core import actions, events
from supervisor.core.actions import Action
from supervisor.core.events import Event
from supervisor.core.reason import ExitKind
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec
from supervisor.core.supervisor import Mode, Supervisor
from supervisor.testing.model import Kid, Model
from supervisor.testing.model_time import ROUNDING_S
from supervisor.testing.orders import expected_refusal, take_order

# A hung child has so long to write its stacks.
ABORT_GRACE_S = 0.5


class InvariantError(AssertionError):
    """A supervisor did what it must not, or not what it must.

    Attributes:
        invariant: short name of what was broken.
    """

    def __init__(self, invariant: str, sentence: str) -> None:
        super().__init__(f"{invariant}: {sentence}")
        self.invariant = invariant


class Checker:
    """Watches one supervisor.

    Args:
        spec: what it was made from.
        machine: the supervisor itself; only asked what it says of itself.
        kill_s: how long a killed process may take to end and be reported.

    Attributes:
        slack_s: time that passed while nobody looked, which no bound can include.
    """

    def __init__(self, spec: SupervisorSpec, machine: Supervisor, *, kill_s: float) -> None:
        self.slack_s = 0.0
        self._machine = machine
        self._kill_s = kill_s
        self._model = Model(spec)
        self._incarnations: dict[str, int] = {}
        self._is_finished = False
        self._ends_by_s: float | None = None
        self._now_s = 0.0

    def refused(self, event: Event, error: Exception) -> None:
        """A step was refused."""
        expected = expected_refusal(self._model, event)
        if type(error).__name__ != expected:
            _fail("refusal", f"{event} was refused by {error!r}, expected {expected}")

    def took(self, event: Event, decided: Sequence[Action], now_s: float) -> None:
        """A step was made."""
        self._now_s = now_s
        if self._is_finished:
            if decided:
                _fail("nothing after Finish", f"{decided}")
            return
        if (expected := expected_refusal(self._model, event)) is not None:
            _fail("refusal", f"{event} was not refused, expected {expected}")
        self._ask_machine()
        self._model.told.clear()
        was_ending = self._model.ending
        self._take_in(event)
        self._check_order(event)
        if self._model.ending is not None and was_ending is None:
            self._bound_stop()
        self._note_busy()
        for action in decided:
            self._check_action(action)
            self._note_busy()
        told = [
            (type(action).__name__, action.id)
            for action in decided
            if isinstance(action, actions.Discarded | actions.Update)
        ]
        if sorted(told) != sorted(self._model.told):
            _fail("those concerned are told", f"{told} instead of {self._model.told}")
        self._check_pauses()
        self._check_ending()
        self._check_stops()
        self._check_starts()
        self._check_times()
        self._check_answers()

    # -- the event ------------------------------------------------------------------------------

    def _ask_machine(self) -> None:
        model, machine = self._model, self._machine
        model.machine_escalated = machine.mode in (Mode.STOPPING, Mode.FINISHED)
        model.machine_gave_up = frozenset(
            name
            for name, child in machine.children.items()
            if name in model.kids and child.attempts > model.kids[name].attempts
        )

    def _take_in(self, event: Event) -> None:
        match event:
            case events.Begin():
                self._model.is_begun = True
            case events.Exited():
                self._take_exit(event)
            case events.ExitedTogether():
                order = {name: index for index, name in enumerate(self._model.kids)}
                for one in sorted(event.exits, key=lambda one: order.get(one.id, -1)):
                    self._take_exit(one)
            case events.BecameReady():
                kid = self._living(event.id, event.incarnation)
                if kid is not None and not kid.ready and not kid.asked:
                    kid.ready, kid.up_s, kid.deadline_s = True, self._now_s, None
                    kid.ordered = type(kid.ordered).NOTHING
            case events.StopAll():
                self._model.end(event.reason.kind)
            case events.Spawned() | events.StoppedBeating() | events.Tick():
                pass
            case _:
                take_order(self._model, event, self._now_s)

    def _take_exit(self, event: events.Exited) -> None:
        if (kid := self._living(event.id, event.incarnation)) is not None:
            self._model.exited(kid, event.reason, self._now_s)

    def _living(self, name: str, incarnation: int) -> Kid | None:
        kid = self._model.kids.get(name)
        return kid if kid is not None and kid.alive and kid.incarnation == incarnation else None

    def _note_busy(self) -> None:
        kids = self._model.kids.values()
        is_busy = any(kid.is_changing and not kid.is_degradable for kid in kids)
        self._model.window.note_busy(self._now_s, is_busy=is_busy)
        for kid in kids:
            if kid.is_degradable:
                kid.window.note_busy(self._now_s, is_busy=kid.is_changing)

    # -- the actions ----------------------------------------------------------------------------

    def _check_action(self, action: Action) -> None:
        if self._is_finished:
            _fail("nothing after Finish", f"{action}")
        match action:
            case actions.Spawn():
                self._check_spawn(action.spec, action.incarnation)
            case actions.AskStop():
                self._check_ask(self._present(action), is_kill=False)
            case actions.Kill():
                self._check_kill(self._present(action))
            case actions.Abort():
                kid = self._present(action)
                kid.is_aborted, kid.deadline_s = True, self._now_s + ABORT_GRACE_S
            case actions.Finish():
                self._check_finish(action.reason.kind)
            case actions.AllUp():
                if self._model.is_up or (late := self._unsettled()):
                    _fail("up when all are", f"AllUp while not settled: {late}")
                self._model.is_up = True
            case actions.Update() | actions.Changed() | actions.Discarded():
                pass
            case _:
                assert_never(action)

    def _present(self, action: actions.AskStop | actions.Kill | actions.Abort) -> Kid:
        kid = self._living(action.id, action.incarnation)
        if kid is None:
            _fail("actions name processes that are there", f"{action}")
        return kid

    def _check_spawn(self, spec: ChildSpec, incarnation: int) -> None:
        kid = self._model.kids.get(spec.id)
        if kid is None:
            _fail("only children are started", f"{spec.id} is none")
        if (why := self._model.why_not_start(kid, self._now_s)) is not None:
            _fail("no start out of turn", f"{spec.id} was started, but {why}")
        if incarnation <= self._incarnations.get(spec.id, 0):
            _fail("incarnations grow", f"{spec.id} has {incarnation} again")
        if spec != kid.spec:
            _fail("the specification in force is used", f"{spec.id} was started with another one")
        self._incarnations[spec.id] = kid.incarnation = incarnation
        kid.alive, kid.starts = True, kid.starts + 1
        kid.deadline_s = self._now_s + spec.start_timeout_s

    def _check_ask(self, kid: Kid, *, is_kill: bool) -> None:
        model, name = self._model, kid.spec.id
        if not kid.must_stop:
            _fail("only those concerned are stopped", f"{name} was asked to stop")
        if kid.asked:
            _fail("stops are asked for once", f"{name} was asked again")
        if is_kill != (kid.spec.shutdown_s == 0):
            _fail("brutal kill is by specification", f"{name}, shutdown_s {kid.spec.shutdown_s}")
        if (other := model.who_needs(kid)) is not None:
            _fail("stops are in reverse", f"{name} was asked before {other.spec.id} had ended")
        kid.asked = True
        due = [] if not kid.spec.shutdown_s else [self._now_s + kid.spec.shutdown_s]
        if kid.is_aborted and kid.deadline_s is not None and not is_kill:
            due.append(kid.deadline_s)
        kid.deadline_s = min(due, default=None)

    def _check_kill(self, kid: Kid) -> None:
        if kid.deadline_s is None or kid.deadline_s > self._now_s:
            if kid.asked or kid.spec.shutdown_s != 0:
                _fail("no kill before its time", f"{kid.spec.id}, due {kid.deadline_s}")
            self._check_ask(kid, is_kill=True)
            return
        kid.deadline_s = None
        if not kid.asked:
            kid.is_doomed = True

    def _check_finish(self, kind: ExitKind) -> None:
        if alive := self._model.alive():
            _fail("nothing is alive after Finish", f"{[kid.spec.id for kid in alive]}")
        if kind is not self._model.ending:
            _fail("the end has its reason", f"{kind} instead of {self._model.ending}")
        self._is_finished = True

    # -- after the step -------------------------------------------------------------------------

    def _check_order(self, event: Event) -> None:
        """The lists are the same; after a reload the model takes the places of those that leave."""
        model, children = self._model, self._machine.children
        if set(children) != set(model.kids):
            _fail("the list of children", f"{list(children)} instead of {list(model.kids)}")
        if isinstance(event, events.Reconfigure):
            staying = [name for name in children if not model.kids[name].removed]
            if staying != [name for name, kid in model.kids.items() if not kid.removed]:
                _fail("the list of children", f"{staying} after a reload")
            model.kids = {name: model.kids[name] for name in children}
        elif list(children) != list(model.kids):
            _fail("the list of children", f"{list(children)} instead of {list(model.kids)}")

    def _check_pauses(self) -> None:
        """A pause is as long as chance may make it; from then on the machine's word is taken."""
        for name, kid in self._model.kids.items():
            if not kid.wanted or kid.alive:
                continue
            at_s = self._machine.children[name].not_before_s
            if not kid.earliest_s - ROUNDING_S <= at_s <= kid.latest_s + ROUNDING_S:
                sentence = f"{name} until {at_s}, not {kid.earliest_s} to {kid.latest_s}"
                _fail("pauses are as specified", sentence)
            kid.earliest_s = kid.latest_s = at_s

    def _check_ending(self) -> None:
        ends = self._machine.mode in (Mode.STOPPING, Mode.FINISHED)
        if ends != (self._model.ending is not None):
            sentence = f"mode {self._machine.mode.value}, expected end {self._model.ending}"
            _fail("it gives up exactly when it must", sentence)
        if ends and not self._model.alive() and not self._is_finished:
            _fail("it finishes", "nothing is alive and there was no Finish")
        ends_by_s = None if self._ends_by_s is None else self._ends_by_s + self.slack_s
        if ends_by_s is not None and not self._is_finished and self._now_s > ends_by_s:
            _fail("a stop ends in time", f"it should have at {ends_by_s}")

    def _bound_stop(self) -> None:
        """A stop takes at most what all that are alive may take to end, one after another."""
        model = self._model
        times = [kid.spec.shutdown_s for kid in model.alive()]
        known = [time_s for time_s in times if time_s is not None]
        if len(known) == len(times):
            total = max(known, default=0.0) if model.is_pool else sum(known)
            self._ends_by_s = self._now_s + total + self._kill_s * (len(known) + 1) - self.slack_s

    def _check_stops(self) -> None:
        must = self._model.must_stop()
        if self._model.is_in_order and any(kid.asked for kid in must):
            return  # one after another
        for kid in must:
            if not kid.asked and self._model.who_needs(kid) is None:
                _fail("no stop is forgotten", f"{kid.spec.id} was not asked, and nobody needs it")

    def _check_starts(self) -> None:
        """No child is lost: whoever may start now has been started."""
        model = self._model
        for name, kid in model.kids.items():
            is_due = kid.wanted and not kid.alive and self._now_s >= kid.latest_s
            if is_due and model.why_not_start(kid, self._now_s) is None:
                _fail("no child is lost", f"{name} may start and was not started")
        if model.is_begun and not model.is_up and model.ending is None and not self._unsettled():
            _fail("up when all are", "all are settled and there was no AllUp")

    def _unsettled(self) -> list[str]:
        kids = self._model.kids.items()
        stopping = [kid.spec.id for kid in self._model.must_stop()]
        return stopping or [name for name, kid in kids if kid.wanted and not kid.is_settled]

    def _check_times(self) -> None:
        """Whatever time alone must bring is asked for, and nothing is overdue."""
        due: list[tuple[float, str]] = []
        for name, kid in self._model.kids.items():
            if kid.deadline_s is not None:
                due.append((kid.deadline_s, f"{name} is to be killed"))
            elif kid.wanted and not kid.alive and kid.latest_s > self._now_s:
                due.append((kid.latest_s, f"{name} is to be started"))
        if not due or self._is_finished:
            return
        at_s, what = min(due)
        if at_s <= self._now_s:
            _fail("deadlines are kept", f"{what}, overdue since {at_s}")
        asked_s = self._machine.due_s()
        if asked_s is None or asked_s > at_s + ROUNDING_S:
            _fail("time is asked for", f"{what} at {at_s}, and the next Tick is due at {asked_s}")

    def _check_answers(self) -> None:
        """What the supervisor says of itself is what happened."""
        kids = self._model.kids.values()
        counts = self._machine.count_children()
        up = sum(kid.alive and (kid.ready or kid.asked) for kid in kids)
        supervisors = sum(kid.spec.type is ChildType.SUPERVISOR for kid in kids)
        expected = (len(kids), up, supervisors, len(kids) - supervisors)
        found = (counts.specs, counts.active, counts.supervisors, counts.workers)
        if found != expected:
            _fail("counts are true", f"{found} instead of {expected}")
        for kid, child in zip(kids, self._machine.children.values(), strict=True):
            if (child.is_alive, child.wanted) != (kid.alive, kid.wanted):
                _fail("states are true", f"{kid.spec.id} is {child.state}, {child.wanted}")


def _fail(invariant: str, sentence: str) -> NoReturn:
    raise InvariantError(invariant, sentence)
