"""What a trace of events and actions implies for the children of one supervisor.

This is the supervisor's behaviour told a second time, in the plainest way: by looking at everything
at each step, with lists and sums and no cleverness, and without a line of the state machine's own
code. The invariants compare the two.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import (
    AutoShutdown,
    ChildSpec,
    FailureClass,
    RestartStrategy,
    RestartType,
    SupervisorSpec,
)
from supervisor.testing.model_time import (
    ROUNDING_S,
    Window,
    degraded_pause_bounds_s,
    restart_pause_bounds_s,
)


class Ordered(enum.Enum):
    """What an operator ordered of a child that is not up yet."""

    NOTHING = "nothing"
    ADD = "add"
    START = "start"
    RESTART = "restart"


@dataclass(slots=True)
class Kid:
    """One child, as the trace has it.

    Attributes:
        spec: its specification.
        wanted, finished, removed, is_added: as the orders and ends imply.
        incarnation: of its last process; alive, ready, asked: that process's state.
        is_aborted, is_doomed: it was made to abort; it was killed for being late or hung.
        must_stop: it is to end, asked or not yet.
        tried: it had a process that ended.
        ordered: see Ordered.
        failures, attempts: unasked ends in a row; times given up in a row.
        earliest_s, latest_s: between these times it is to be started, as far as pauses go.
        deadline_s: when it is to be killed.
        up_s: since when it is ready.
        starts: processes that it had.
    """

    spec: ChildSpec
    wanted: bool = True
    finished: bool = False
    removed: bool = False
    is_added: bool = False
    incarnation: int = 0
    alive: bool = False
    ready: bool = False
    asked: bool = False
    is_aborted: bool = False
    is_doomed: bool = False
    must_stop: bool = False
    tried: bool = False
    ordered: Ordered = Ordered.NOTHING
    failures: int = 0
    attempts: int = 0
    earliest_s: float = 0.0
    latest_s: float = 0.0
    deadline_s: float | None = None
    up_s: float | None = None
    starts: int = 0
    window: Window = field(default_factory=Window)

    @property
    def is_degradable(self) -> bool:
        """Whether it is of the degraded class."""
        return self.spec.failure is FailureClass.DEGRADED

    @property
    def is_temporary(self) -> bool:
        """Whether it is gone with its process."""
        return self.spec.restart is RestartType.TEMPORARY

    @property
    def is_settled(self) -> bool:
        """Whether those after it need not wait for it."""
        if (self.alive and self.ready and not self.asked) or self.finished:
            return True
        return self.is_degradable and (self.tried or not self.wanted)

    @property
    def is_changing(self) -> bool:
        """Whether its process starts or stops."""
        return self.alive and (self.asked or not self.ready)


class Model:
    """One supervisor, as the trace has it.

    Attributes:
        spec: in force.
        kids: by id, in start order.
        ending: how the supervisor is to end; None while it is not.
        instances: how many a pool has had.
        told: what the step must tell of children, by the action's name.
        is_begun, is_up: the first start was ordered; was completed.
        machine_escalated, machine_gave_up: what the machine made of the step, for Window.
    """

    def __init__(self, spec: SupervisorSpec) -> None:
        self.spec = spec
        self.is_pool = spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE
        self.kids: dict[str, Kid] = {}
        if not self.is_pool:
            self.kids = {child.id: Kid(child) for child in spec.children}
        self.window = Window()
        self.ending: ExitKind | None = None
        self.instances = 0
        self.told: list[tuple[str, str]] = []
        self.is_begun = self.is_up = False
        self.machine_escalated = False
        self.machine_gave_up: frozenset[str] = frozenset()

    # -- questions ------------------------------------------------------------------------------

    def alive(self) -> list[Kid]:
        """Those with a process, in order."""
        return [kid for kid in self.kids.values() if kid.alive]

    def must_stop(self) -> list[Kid]:
        """Those that are to end, in order."""
        return [kid for kid in self.alive() if kid.must_stop]

    @property
    def is_in_order(self) -> bool:
        """Whether each needs all before it, as in OTP."""
        return not self.is_pool and all(kid.spec.depends_on is None for kid in self.kids.values())

    def who_needs(self, kid: Kid) -> Kid | None:
        """One that is to end as well and must have ended before; of pools, nobody is."""
        if self.is_pool:
            return None
        order = list(self.kids)
        place = order.index(kid.spec.id)
        for other in self.must_stop():
            is_behind = order.index(other.spec.id) > place
            by_order = other.spec.depends_on is None and is_behind
            declared = kid.spec.id in (other.spec.depends_on or ())
            if other is not kid and (by_order or declared or other.spec.phase > kid.spec.phase):
                return other
        return None

    def why_not_start(self, kid: Kid, now_s: float) -> str | None:
        """What forbids a start at this moment; None where nothing does."""
        if not self.is_begun or self.ending is not None:
            return "the supervisor does not start children now"
        if kid.alive:
            return "it has a process"
        if not kid.wanted:
            return "it is not wanted"
        if now_s < kid.earliest_s - ROUNDING_S:
            return f"its pause ends at {kid.earliest_s:.6f} at the earliest"
        if stopping := self.must_stop():
            return f"{stopping[0].spec.id} is still to stop"
        if sum(other.alive and not other.ready for other in self.kids.values()) >= (
            self.spec.start_concurrency
        ):
            return "all slots are taken"
        return next((f"{name} is not settled" for name in self._unsettled_before(kid)), None)

    def _unsettled_before(self, kid: Kid) -> Iterator[str]:
        if kid.spec.depends_on is not None:
            for name in kid.spec.depends_on:
                if name in self.kids and not self.kids[name].is_settled:
                    yield name
            return
        for name, other in self.kids.items():
            if other is kid:
                return
            if other.wanted and not other.is_settled:
                yield name

    def group_of(self, kid: Kid) -> set[str]:
        """Ids of those that share its fate."""
        names = list(self.kids)
        if kid.is_degradable:
            return {kid.spec.id}
        match self.spec.strategy:
            case RestartStrategy.ONE_FOR_ALL:
                return set(names)
            case RestartStrategy.REST_FOR_ONE:
                found = {kid.spec.id}
                for name in names[names.index(kid.spec.id) + 1 :]:
                    needs = self.kids[name].spec.depends_on
                    if needs is None or found.intersection(needs):
                        found.add(name)
                return found
            case RestartStrategy.ONE_FOR_ONE | RestartStrategy.SIMPLE_ONE_FOR_ONE:
                return {kid.spec.id}

    # -- what ends imply ------------------------------------------------------------------------

    def exited(self, kid: Kid, reason: ExitReason, now_s: float) -> None:
        """Its process ended."""
        was_ready, must, was_asked = kid.ready, kid.must_stop, kid.asked
        if kid.up_s is not None and now_s - kid.up_s >= self.spec.backoff.reset_s:
            kid.failures = kid.attempts = 0
        kind = ExitKind.UNRESPONSIVE if kid.is_doomed or kid.is_aborted else reason.kind
        kid.alive = kid.ready = kid.asked = kid.must_stop = kid.is_aborted = kid.is_doomed = False
        kid.deadline_s = kid.up_s = None
        kid.tried = True
        by_order = not was_ready and kid.ordered in (Ordered.ADD, Ordered.START) and not must
        is_critical = kind is ExitKind.CRITICAL and not kid.is_degradable and not was_asked
        if by_order:
            self._order_failed(kid, kind)
        elif is_critical and kid.wanted:
            self._give_up_on(kid)
            self.end(ExitKind.CRITICAL)
        elif must:
            self._stopped(kid)
        else:
            self._ended(kid, kind, now_s, was_ready=was_ready)

    def end(self, kind: ExitKind) -> None:
        """The supervisor is to end."""
        if self.ending is None:
            self.ending = kind
            for kid in self.kids.values():
                kid.wanted, kid.must_stop = False, kid.alive

    def _stopped(self, kid: Kid) -> None:
        comes_back = kid.ordered in (Ordered.START, Ordered.RESTART)
        if kid.removed or (kid.is_temporary and not comes_back and self.ending is None):
            del self.kids[kid.spec.id]

    def _order_failed(self, kid: Kid, kind: ExitKind) -> None:
        if kind is ExitKind.DECLINED:
            self._let_be(kid)
        elif kid.ordered is Ordered.ADD:
            self.told.append(("Discarded", kid.spec.id))
            del self.kids[kid.spec.id]
        else:
            self._give_up_on(kid)
            if kid.is_temporary or self.is_pool:
                del self.kids[kid.spec.id]

    def _ended(self, kid: Kid, kind: ExitKind, now_s: float, *, was_ready: bool) -> None:
        restart = kid.spec.restart
        is_clean = was_ready and kind in (ExitKind.NORMAL, ExitKind.SHUTDOWN)
        if kind is ExitKind.DECLINED and not was_ready:
            self._let_be(kid)
        elif not was_ready and not self.is_up and kid.starts == 1 and not kid.is_degradable:
            self._give_up_on(kid)
            self.end(ExitKind.START_FAILED)
        elif restart is RestartType.TEMPORARY or (restart is RestartType.TRANSIENT and is_clean):
            self._let_be(kid)
            if kid.spec.significant and self._was_last(kid):
                self.end(ExitKind.SHUTDOWN)
        elif kid.is_degradable:
            self._degrade(kid, kind, now_s)
        else:
            self._failed(kid, now_s)

    def _let_be(self, kid: Kid) -> None:
        kid.wanted, kid.finished, kid.ordered = False, True, Ordered.NOTHING
        if kid.is_temporary or self.is_pool:
            del self.kids[kid.spec.id]

    def _give_up_on(self, kid: Kid) -> None:
        kid.wanted, kid.ordered = False, Ordered.NOTHING

    def _was_last(self, kid: Kid) -> bool:
        if self.spec.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT:
            return True
        others = (other for other in self.kids.values() if other is not kid)
        return not any(other.spec.significant and other.wanted for other in others)

    def _failed(self, kid: Kid, now_s: float) -> None:
        is_counted = kid.ordered is not Ordered.RESTART
        kid.ordered = Ordered.NOTHING
        if is_counted:
            self.window.counted_s.append(now_s)
            if self.window.is_exceeded(
                now_s, self.spec.intensity, machine_says=self.machine_escalated
            ):
                kid.wanted = False
                self.end(ExitKind.ESCALATED)
                return
        self._pause(kid, now_s)
        for name in self.group_of(kid):
            other = self.kids[name]
            if other.alive:
                other.must_stop = True
                if other.ordered is not Ordered.ADD:
                    other.ordered = Ordered.NOTHING

    def _pause(self, kid: Kid, now_s: float) -> None:
        kid.failures += 1
        low, high = restart_pause_bounds_s(self.spec.backoff, kid.failures)
        kid.earliest_s, kid.latest_s = now_s + low, now_s + high

    def _degrade(self, kid: Kid, kind: ExitKind, now_s: float) -> None:
        kid.ordered = Ordered.NOTHING
        kid.window.counted_s.append(now_s)
        is_exceeded = kid.window.is_exceeded(
            now_s, self.spec.intensity, machine_says=kid.spec.id in self.machine_gave_up
        )
        if not is_exceeded and kind is not ExitKind.CRITICAL:
            self._pause(kid, now_s)
            return
        kid.failures += 1
        kid.attempts += 1
        kid.window.counted_s.clear()
        low, high = degraded_pause_bounds_s(self.spec.backoff, kid.attempts)
        kid.earliest_s, kid.latest_s = now_s + low, now_s + high
