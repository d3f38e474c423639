"""Why a child is as it is, from the state machine's record of it and a short memory of its past."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from protocol import names
from protocol.dataclass import dataclass, field
from protocol.errors import NovacronError
from protocol.messages.control import ComponentRecord
from protocol.messages.explain import (
    Budget,
    ChildExplanation,
    Explanation,
    Hold,
    Order,
    PastExit,
    Relation,
    Supervision,
)
from protocol.messages.health import HealthState
from supervisor.core import strategy
from supervisor.core.child import Child, ChildState
from supervisor.core.reason import ExitReason
from supervisor.core.spec import ChildSpec, FailureClass
from supervisor.core.supervisor import Mode

if TYPE_CHECKING:
    from supervisor.core.supervisor import Supervisor

# What a person reads at a glance; the journal and the logs have the rest.
EXITS_MAX = 10


class NoSuchChildError(NovacronError):
    """The supervisor has no child of that id."""

    code = "supervisor.no_such_child"


@dataclass(slots=True)
class _Past:
    """What is remembered of one child; times are monotonic."""

    exits: deque[tuple[float, int, ExitReason, float]] = field(
        default_factory=lambda: deque(maxlen=EXITS_MAX)
    )
    order: tuple[float, str] | None = None
    state: HealthState | None = None
    since_s: float = 0.0


class History:
    """What a supervisor remembers of its children for the sake of explanations.

    Bounded: EXITS_MAX ends of each child, and a child that is removed is forgotten.
    """

    def __init__(self) -> None:
        self._past: dict[str, _Past] = {}

    def exited(
        self, name: str, incarnation: int, reason: ExitReason, *, started_s: float, now_s: float
    ) -> None:
        """A process of the child ended."""
        self._of(name).exits.append((now_s, incarnation, reason, now_s - started_s))

    def ordered(self, name: str, verb: str, now_s: float) -> None:
        """An operator wants something of the child."""
        if name in self._past:  # any other is no child of ours, or has not begun yet
            self._past[name].order = (now_s, verb)

    def is_now(self, name: str, state: HealthState, now_s: float) -> None:
        """The child's state, whether it is another one or not."""
        past = self._of(name)
        if past.state is not state:
            past.state, past.since_s = state, now_s

    def forget(self, name: str) -> None:
        """The child is no longer part of the specification."""
        self._past.pop(name, None)

    def get(self, name: str) -> _Past:
        """What is known of the child."""
        return self._past.get(name) or _Past()

    def _of(self, name: str) -> _Past:
        return self._past.setdefault(name, _Past())


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that an explanation is made of.

    Attributes:
        path: the supervisor's.
        machine: its state machine.
        records: what its children are like, by path.
        history: see History.
        now_s, unix_s: the same moment on both clocks.
    """

    path: str
    machine: Supervisor
    records: Mapping[str, ComponentRecord]
    history: History
    now_s: float
    unix_s: float


def explain(view: View, name: str) -> Explanation:
    """Explain a child, or the supervisor alone where ``name`` is "".

    Raises:
        NoSuchChildError: there is none of that id.
    """
    if not name:
        return Explanation(supervisor=_supervision(view))
    child = view.machine.children.get(name)
    if child is None:
        raise NoSuchChildError(f"{view.path} has no child {name!r}")
    return Explanation(supervisor=_supervision(view), child=_child(view, name, child))


def view_now(
    path: str, machine: Supervisor, records: Mapping[str, ComponentRecord], history: History
) -> View:
    """A view of this moment."""
    return View(
        path=path,
        machine=machine,
        records=records,
        history=history,
        now_s=time.monotonic(),
        unix_s=time.time(),
    )


def _supervision(view: View) -> Supervision:
    machine = view.machine
    waiting = (name for name, child in machine.children.items() if _is_waiting(child))
    return Supervision(
        path=view.path,
        mode=machine.mode.value,
        strategy=machine.spec.strategy.value,
        budget=_shared_budget(view),
        starting=_starting(machine),
        start_concurrency=machine.spec.start_concurrency,
        waiting=tuple(names.child_path(view.path, name) for name in waiting),
    )


def _child(view: View, name: str, child: Child) -> ChildExplanation:
    spec, past = child.spec, view.history.get(name)
    path = names.child_path(view.path, name)
    record = view.records.get(path)
    is_planned = child.wanted and child.last_exit is not None and not child.is_alive
    taken = strategy.affected(view.machine.spec.strategy, _specs(view), name)
    return ChildExplanation(
        path=path,
        state=HealthState.STARTING if record is None else record.state,
        reason="" if record is None else record.reason,
        since_s=None if past.state is None else _unix(view, past.since_s),
        decision=child.state.value,
        wanted=child.wanted,
        kind=spec.type.value,
        failure=spec.failure.value,
        restart=spec.restart.value,
        pid=child.pid,
        incarnation=child.incarnation,
        restarts=child.restarts,
        failures=child.failures,
        attempts=child.attempts,
        retry_in_s=max(0.0, child.not_before_s - view.now_s) if is_planned else None,
        deadline_in_s=(
            None if child.deadline_s is None else max(0.0, child.deadline_s - view.now_s)
        ),
        start_timeout_s=spec.start_timeout_s,
        shutdown_s=spec.shutdown_s,
        budget=_budget(view, child),
        exits=_exits(view, past),
        order=(
            None
            if past.order is None
            else Order(time_s=_unix(view, past.order[0]), verb=past.order[1])
        ),
        holds=_holds(view, child) if _is_waiting(child) else (),
        depends_on=_dependencies(view, child),
        dependents=_dependents(view, child),
        takes_along=tuple(
            names.child_path(view.path, other)
            for other in view.machine.children
            if other in taken and other != name
        ),
    )


def _exits(view: View, past: _Past) -> tuple[PastExit, ...]:
    return tuple(
        PastExit(
            time_s=_unix(view, at_s),
            incarnation=incarnation,
            kind=reason.kind.value,
            detail=reason.detail,
            code=reason.code,
            origin=reason.origin,
            ran_s=ran_s,
        )
        for at_s, incarnation, reason, ran_s in past.exits
    )


def _budget(view: View, child: Child) -> Budget:
    if child.spec.failure is not FailureClass.DEGRADED:
        return _shared_budget(view)
    limit = view.machine.spec.intensity
    return Budget(
        used=child.window.count(view.now_s, limit),
        intensity=limit.intensity,
        period_s=limit.period_s,
        shared=False,
    )


def _shared_budget(view: View) -> Budget:
    limit = view.machine.spec.intensity
    return Budget(
        used=view.machine.restarts_in_window(view.now_s),
        intensity=limit.intensity,
        period_s=limit.period_s,
        shared=True,
    )


def _holds(view: View, child: Child) -> tuple[Hold, ...]:
    """What the state machine waits for before it starts a child; its rules, read back."""
    machine, found = view.machine, []
    if machine.mode not in (Mode.BOOTING, Mode.RUNNING):
        found.append(Hold(kind="supervisor", path=view.path))
    if child.not_before_s > view.now_s:
        found.append(Hold(kind="pause", left_s=child.not_before_s - view.now_s))
    for name in _needed(view, child):
        other = machine.children[name]
        if not _lets_pass(child, other):
            found.append(Hold(kind="dependency", path=names.child_path(view.path, name)))
    for name, other in machine.children.items():
        if other.state is ChildState.STOPPING:
            left_s = None if other.deadline_s is None else max(0.0, other.deadline_s - view.now_s)
            path = names.child_path(view.path, name)
            found.append(Hold(kind="stop", path=path, left_s=left_s))
    if _starting(machine) >= machine.spec.start_concurrency:
        found.append(Hold(kind="slots"))
    return tuple(found)


def _dependencies(view: View, child: Child) -> tuple[Relation, ...]:
    is_waiting = _is_waiting(child)
    return tuple(
        _relation(
            view, name, holds=is_waiting and not _lets_pass(child, view.machine.children[name])
        )
        for name in _needed(view, child)
    )


def _dependents(view: View, child: Child) -> tuple[Relation, ...]:
    later = strategy.dependents(_specs(view), child.spec.id)
    return tuple(
        _relation(view, name, holds=_is_waiting(other) and not _lets_pass(other, child))
        for name, other in view.machine.children.items()
        if name in later and other is not child
    )


def _relation(view: View, name: str, *, holds: bool) -> Relation:
    path = names.child_path(view.path, name)
    record = view.records.get(path)
    if record is None:
        return Relation(path=path, state=HealthState.STARTING, holds=holds)
    return Relation(path=path, state=record.state, reason=record.reason, holds=holds)


def _needed(view: View, child: Child) -> list[str]:
    """The siblings that have to be up first, in start order."""
    wanted = child.spec.depends_on
    found = []
    for name in view.machine.children:
        if name == child.spec.id:
            break
        if wanted is None or name in wanted:
            found.append(name)
    return found


def _lets_pass(child: Child, other: Child) -> bool:
    """Whether a sibling does not keep the child waiting; by OTP's order also one not wanted."""
    return other.is_settled or (child.spec.depends_on is None and not other.wanted)


def _is_waiting(child: Child) -> bool:
    return child.wanted and child.state is ChildState.WAITING


def _starting(machine: Supervisor) -> int:
    return sum(child.state is ChildState.STARTING for child in machine.children.values())


def _specs(view: View) -> list[ChildSpec]:
    return [child.spec for child in view.machine.children.values()]


def _unix(view: View, at_s: float) -> float:
    return view.unix_s - (view.now_s - at_s)
