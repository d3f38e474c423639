"""The supervisor's decisions as a pure state machine: step(event, now_s, draw) -> actions.

Rules, each in one place below:

    start     in order; a child waits until what it depends on is up (or is degraded and was
              tried), and for one of ``start_concurrency`` slots
    boot      a child that is not of the degraded class and fails before the first AllUp ends the
              supervisor: what was started stops in reverse order, and Finish names the child
    stop      strictly one after another, last started first; no start begins meanwhile
    restart   by restart type and strategy, after a pause; counted against the intensity, past
              which the supervisor stops everything and finishes ESCALATED
    degraded  a child of this class has a window of its own, and past it is tried again later
    critical  a child that ends CRITICAL ends the supervisor at once, unless it is degraded class
    operator  a stopped child stays stopped through restarts of its siblings and new specifications

Invariants: an incarnation is spawned at most once and only when no process of the child is left;
after Finish nothing is ever done again; every child that is alive is asked to stop before Finish.

Source: OTP ``supervisor`` reference; docs/adr/0001 lists the differences and their reasons.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import assert_never

from supervisor.core import backoff, events, strategy
from supervisor.core.actions import (
    Abort,
    Action,
    AllUp,
    AskStop,
    Changed,
    Finish,
    Kill,
    Spawn,
    Update,
)
from supervisor.core.child import Child, ChildState
from supervisor.core.events import Event
from supervisor.core.intensity import RestartWindow
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import (
    ChildSpec,
    ChildType,
    FailureClass,
    RestartType,
    SupervisorSpec,
    validate,
)

# A hung child gets this long to write its stacks before it is killed.
ABORT_GRACE_S = 0.5


class Mode(enum.Enum):
    """What the supervisor as a whole is doing."""

    IDLE = "idle"
    BOOTING = "booting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


class UnknownChildError(LookupError):
    """A command names a child that the specification does not have."""


class Supervisor:
    """One supervisor's state; see the module for its rules.

    Args:
        spec: a valid specification.

    Attributes:
        mode: what it is doing.
        children: the children's records by id, in start order; read only.
    """

    def __init__(self, spec: SupervisorSpec) -> None:
        validate(spec)
        self._spec = spec
        self._window = RestartWindow()
        self._to_stop: set[str] = set()
        self._final: ExitReason | None = None
        self._actions: list[Action] = []
        self._stepped_s = 0.0
        self.mode = Mode.IDLE
        self.children: dict[str, Child] = {child.id: Child(child) for child in spec.children}

    @property
    def spec(self) -> SupervisorSpec:
        """The specification in force."""
        return self._spec

    def restarts_in_window(self, now_s: float) -> int:
        """How many restarts count against the intensity at the moment."""
        return self._window.count(now_s, self._spec.intensity)

    def due_s(self) -> float | None:
        """When the next Tick is needed; None when only an event can change anything."""
        due = [
            at
            for child in self.children.values()
            # A pause that is over waits for a dependency or a slot, which no Tick can bring.
            if (at := child.due_s) is not None and (child.is_alive or at > self._stepped_s)
        ]
        return min(due, default=None)

    def step(self, event: Event, *, now_s: float, draw: float) -> list[Action]:
        """Take in one event.

        Args:
            event: what happened.
            now_s: monotonic time.
            draw: a random number in [0, 1), for jitter.

        Returns:
            What is to be done, in this order.

        Raises:
            UnknownChildError: a command names no child of ours; nothing changed.
            SpecError: a new specification is invalid; nothing changed.
        """
        self._actions = []
        self._stepped_s = now_s
        if self.mode is not Mode.FINISHED:
            self._take_in(event, now_s, draw)
            self._pass_deadlines(now_s)
            self._advance(now_s)
        return self._actions

    # -- events ---------------------------------------------------------------------------------

    def _take_in(self, event: Event, now_s: float, draw: float) -> None:
        match event:
            case events.Begin():
                if self.mode is Mode.IDLE:
                    self.mode = Mode.BOOTING
            case events.Spawned() | events.BecameReady() | events.Exited():
                self._take_in_child(event, now_s, draw)
            case events.StoppedBeating():
                self._abort(event, now_s)
            case events.StopAll():
                self._finish(event.reason)
            case events.StartChild():
                self._start_child(self._named(event.id), now_s)
            case events.StopChild():
                self._stop_child(self._named(event.id))
            case events.RestartChild():
                self._restart_child(self._named(event.id), now_s)
            case events.Reconfigure():
                self._reconfigure(event.spec, now_s)
            case events.Tick():
                pass
            case _:
                assert_never(event)

    def _take_in_child(
        self, event: events.Spawned | events.BecameReady | events.Exited, now_s: float, draw: float
    ) -> None:
        child = self.children.get(event.id)
        if child is None or child.incarnation != event.incarnation or not child.is_alive:
            return  # a late word of a process that is already accounted for
        match event:
            case events.Spawned():
                child.pid = event.pid
            case events.BecameReady():
                if child.state is ChildState.STARTING:
                    child.up_s, child.deadline_s = now_s, None
                    self._move(child, ChildState.UP)
            case events.Exited():
                self._exited(child, event.reason, now_s, draw)

    def _exited(self, child: Child, reason: ExitReason, now_s: float, draw: float) -> None:
        was, lifetime_s = child.state, now_s - (child.up_s or now_s)
        reason = child.doom or reason
        if was is ChildState.STARTING and reason.kind in (ExitKind.NORMAL, ExitKind.CRASHED):
            reason = dataclasses.replace(reason, kind=ExitKind.START_FAILED)
        elif was is ChildState.STOPPING and child.doom is None:
            reason = dataclasses.replace(reason, kind=ExitKind.SHUTDOWN)
        child.pid = child.up_s = child.deadline_s = child.doom = None
        child.last_exit = reason
        self._to_stop.discard(child.spec.id)
        if was is ChildState.STOPPING:
            self._settle_stopped(child)
        elif self.mode is Mode.STOPPING:
            self._move(child, ChildState.STOPPED)
        else:
            if lifetime_s >= self._spec.backoff.reset_s:
                child.failures = child.attempts = 0
            self._ended(child, reason, booting=was is ChildState.STARTING, now_s=now_s, draw=draw)

    def _settle_stopped(self, child: Child) -> None:
        """A child that ended because we wanted it to: what follows depends on why we did."""
        if child.removed or child.spec.restart is RestartType.TEMPORARY:
            del self.children[child.spec.id]
        elif child.wanted and self.mode is not Mode.STOPPING:
            self._move(child, ChildState.WAITING)
        else:
            self._move(child, ChildState.STOPPED)

    def _ended(
        self, child: Child, reason: ExitReason, *, booting: bool, now_s: float, draw: float
    ) -> None:
        """A child that ended by itself: give up, let it be, or start it again."""
        spec = child.spec
        is_degradable = spec.failure is FailureClass.DEGRADED
        if reason.kind is ExitKind.CRITICAL and not is_degradable:
            self._move(child, ChildState.STOPPED)
            self._finish(self._blame(child, reason))
        elif reason.kind is ExitKind.DECLINED:
            self._let_be(child)
        elif booting and self.mode is Mode.BOOTING and not is_degradable:
            self._move(child, ChildState.STOPPED)
            kind = ExitKind.START_FAILED
            self._finish(self._blame(child, dataclasses.replace(reason, kind=kind)))
        elif spec.restart is RestartType.TEMPORARY:
            del self.children[spec.id]
            self._actions.append(Changed(spec.id))
        elif spec.restart is RestartType.TRANSIENT and not reason.is_abnormal:
            self._let_be(child)
        elif is_degradable:
            self._retry_degraded(child, reason, now_s, draw)
        else:
            self._restart(child, reason, now_s, draw)

    def _let_be(self, child: Child) -> None:
        child.wanted = False
        self._move(child, ChildState.STOPPED)

    def _restart(self, child: Child, reason: ExitReason, now_s: float, draw: float) -> None:
        if not self._window.add(now_s, self._spec.intensity):
            self._move(child, ChildState.STOPPED)
            limit = self._spec.intensity
            sentence = f"more than {limit.intensity} restarts in {limit.period_s:g} s; {reason}"
            self._finish(self._blame(child, ExitReason(kind=ExitKind.ESCALATED, detail=sentence)))
            return
        child.failures += 1
        pause_s = backoff.restart_pause_s(self._spec.backoff, failures=child.failures, draw=draw)
        child.not_before_s = now_s + pause_s
        self._move(child, ChildState.WAITING)
        group = strategy.affected(self._spec.strategy, self._child_specs(), child.spec.id)
        self._to_stop.update(name for name in group if self.children[name].is_alive)

    def _retry_degraded(self, child: Child, reason: ExitReason, now_s: float, draw: float) -> None:
        child.failures += 1
        within = child.window.add(now_s, self._spec.intensity)
        if within and reason.kind is not ExitKind.CRITICAL:
            pause_s = backoff.restart_pause_s(
                self._spec.backoff, failures=child.failures, draw=draw
            )
            child.not_before_s = now_s + pause_s
            self._move(child, ChildState.WAITING)
            return
        child.attempts += 1
        child.window.clear()
        child.not_before_s = now_s + backoff.degraded_pause_s(
            self._spec.backoff, attempts=child.attempts, draw=draw
        )
        self._move(child, ChildState.DEGRADED)

    def _abort(self, event: events.StoppedBeating, now_s: float) -> None:
        child = self.children.get(event.id)
        if (
            child is None
            or child.incarnation != event.incarnation
            or child.state is not ChildState.UP
            or child.doom is not None
        ):
            return
        child.doom = ExitReason(
            kind=ExitKind.UNRESPONSIVE, detail="its loop stopped turning and it was killed"
        )
        child.deadline_s = now_s + ABORT_GRACE_S
        self._actions.append(Abort(event.id, event.incarnation))

    # -- commands -------------------------------------------------------------------------------

    def _named(self, id: str) -> Child:  # noqa: A002 - OTP's word
        child = self.children.get(id)
        if child is None or child.removed:
            raise UnknownChildError(id)
        return child

    def _start_child(self, child: Child, now_s: float) -> None:
        child.wanted = True
        if child.state in (ChildState.STOPPED, ChildState.DEGRADED, ChildState.WAITING):
            child.failures = child.attempts = 0
            child.not_before_s = now_s
            child.window.clear()
            self._move(child, ChildState.WAITING)

    def _stop_child(self, child: Child) -> None:
        child.wanted = False
        if child.is_alive:
            self._to_stop.add(child.spec.id)
        else:
            self._move(child, ChildState.STOPPED)

    def _restart_child(self, child: Child, now_s: float) -> None:
        if child.is_alive:
            child.wanted = True
            child.not_before_s = now_s
            self._to_stop.add(child.spec.id)
        else:
            self._start_child(child, now_s)

    def _reconfigure(self, spec: SupervisorSpec, now_s: float) -> None:
        validate(spec)
        old, self._spec = self.children, spec
        self.children = {}
        for wanted in spec.children:
            child = old.pop(wanted.id, None)
            if child is None or child.removed:
                child = Child(wanted, not_before_s=now_s)
            elif child.spec != wanted:
                self._respecify(child, wanted, now_s)
            self.children[wanted.id] = child
        for name, child in old.items():
            if child.is_alive:
                child.removed, child.wanted = True, False
                self.children[name] = child
                self._to_stop.add(name)

    def _respecify(self, child: Child, wanted: ChildSpec, now_s: float) -> None:
        old, child.spec = child.spec, wanted
        is_same_process = dataclasses.replace(old, children=wanted.children) == wanted
        if wanted.type is ChildType.SUPERVISOR and is_same_process:
            if child.is_alive and wanted.children is not None:
                self._actions.append(Update(wanted.id, child.incarnation, wanted.children))
        elif child.is_alive:
            child.not_before_s = now_s
            self._to_stop.add(wanted.id)

    # -- what time and order bring --------------------------------------------------------------

    def _pass_deadlines(self, now_s: float) -> None:
        for child in self.children.values():
            if child.deadline_s is not None and child.deadline_s <= now_s:
                self._deadline_passed(child)
            elif child.state is ChildState.DEGRADED and child.not_before_s <= now_s:
                self._move(child, ChildState.WAITING)

    def _deadline_passed(self, child: Child) -> None:
        child.deadline_s = None
        if child.state is ChildState.STARTING and child.doom is None:
            child.doom = ExitReason(
                kind=ExitKind.START_FAILED,
                detail=f"not ready within {child.spec.start_timeout_s:g} s",
            )
        self._actions.append(Kill(child.spec.id, child.incarnation))

    def _advance(self, now_s: float) -> None:
        if self._stop_next(now_s):
            return
        if self.mode is Mode.STOPPING:
            assert self._final is not None
            self.mode = Mode.FINISHED
            self._actions.append(Finish(self._final))
        elif self.mode in (Mode.BOOTING, Mode.RUNNING):
            self._start_next(now_s)
            if self.mode is Mode.BOOTING and self._is_up():
                self.mode = Mode.RUNNING
                self._actions.append(AllUp())

    def _stop_next(self, now_s: float) -> bool:
        """Stop the last child that is to go; True while there is one."""
        for child in reversed(self.children.values()):
            if not child.is_alive:
                continue
            if self.mode is not Mode.STOPPING and child.spec.id not in self._to_stop:
                continue
            if child.state is not ChildState.STOPPING:
                self._ask_stop(child, now_s)
            return True
        return False

    def _ask_stop(self, child: Child, now_s: float) -> None:
        timeout_s = child.spec.shutdown_s
        child.doom = None
        self._move(child, ChildState.STOPPING)
        if timeout_s == 0:
            child.deadline_s = None
            self._actions.append(Kill(child.spec.id, child.incarnation))
        else:
            child.deadline_s = None if timeout_s is None else now_s + timeout_s
            self._actions.append(AskStop(child.spec.id, child.incarnation))

    def _start_next(self, now_s: float) -> None:
        starting = sum(child.state is ChildState.STARTING for child in self.children.values())
        all_settled = True
        for child in self.children.values():
            if starting >= self._spec.start_concurrency:
                return
            if (
                child.state is ChildState.WAITING
                and child.wanted
                and child.not_before_s <= now_s
                and self._may_start(child, all_preceding_settled=all_settled)
            ):
                self._spawn(child, now_s)
                starting += 1
            all_settled = all_settled and (child.is_settled or not child.wanted)

    def _may_start(self, child: Child, *, all_preceding_settled: bool) -> bool:
        if child.spec.depends_on is None:
            return all_preceding_settled
        return all(self.children[name].is_settled for name in child.spec.depends_on)

    def _spawn(self, child: Child, now_s: float) -> None:
        child.restarts += child.incarnation > 0
        child.incarnation += 1
        child.started_s = now_s
        child.deadline_s = now_s + child.spec.start_timeout_s
        self._move(child, ChildState.STARTING)
        self._actions.append(Spawn(child.spec, child.incarnation))

    def _is_up(self) -> bool:
        return all(child.is_settled or not child.wanted for child in self.children.values())

    # -- small ones -----------------------------------------------------------------------------

    def _move(self, child: Child, state: ChildState) -> None:
        if child.state is not state:
            child.state = state
            self._actions.append(Changed(child.spec.id))

    def _finish(self, reason: ExitReason) -> None:
        if self.mode is not Mode.STOPPING:
            self.mode = Mode.STOPPING
            self._final = reason
            for child in self.children.values():
                child.wanted = False
                if child.state in (ChildState.WAITING, ChildState.DEGRADED):
                    self._move(child, ChildState.STOPPED)

    def _blame(self, child: Child, reason: ExitReason) -> ExitReason:
        """The supervisor's own end, naming the component where it began."""
        if reason.origin:
            return reason
        return dataclasses.replace(reason, origin=child.spec.id, phase=child.spec.phase)

    def _child_specs(self) -> list[ChildSpec]:
        return [child.spec for child in self.children.values()]
