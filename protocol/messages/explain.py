"""Why a component is as it is: what its supervisor answers to the call ``explain``.

An operator calls ``explain`` at any supervisor with an ExplainQuery and gets an Explanation. The
explanation says what the supervisor has decided about the child, on which grounds, and what will
happen next; it changes nothing.

``novacronctl explain --json`` prints these records, so their field names are a public interface.
"""

from __future__ import annotations

from protocol.dataclass import dataclass
from protocol.messages.health import HealthState


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainQuery:
    """The child asked about; "" for the supervisor alone."""

    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastExit:
    """How one process of the child ended.

    Attributes:
        time_s: Unix time.
        incarnation: which of the child's processes, counted from 1.
        kind: such as crashed, killed, start_failed, unresponsive; see ExitKind.
        detail: a sentence for people.
        code: stable error code, or "".
        origin: path of the component where it began, when that was further down.
        ran_s: from the start of the process to its end.
    """

    time_s: float
    incarnation: int
    kind: str
    detail: str = ""
    code: str = ""
    origin: str = ""
    ran_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The last thing that an operator wanted of the child.

    Attributes:
        time_s: Unix time.
        verb: start, stop or restart.
    """

    time_s: float
    verb: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The restarts that count at the moment; one more than ``intensity`` gives up.

    Attributes:
        used: restarts within the last ``period_s``.
        shared: whether all children of the supervisor use it; a child of the degraded class has
            one of its own.
    """

    used: int
    intensity: int
    period_s: float
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One thing that keeps a child from being started.

    Attributes:
        kind: ``pause`` before the next try, ``dependency`` that is not up, ``stop`` of a sibling
            that comes first, ``slots`` of starts under way, ``supervisor`` that is stopping.
        path: the component that is waited for; "" where it is none.
        left_s: seconds until it is over, where that is known.
    """

    kind: str
    path: str = ""
    left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A sibling that a child depends on, or that depends on it.

    Attributes:
        path: the sibling.
        state, reason: as in its status.
        holds: one of the two waits for the other at the moment.
    """

    path: str
    state: HealthState
    reason: str = ""
    holds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """The supervisor that answers.

    Attributes:
        path: its own.
        mode: booting, running, stopping or finished.
        strategy: which siblings are restarted along with an ended child.
        budget: its restarts.
        starting: children that are starting, of ``start_concurrency`` at once.
        waiting: children that are to run and are not started yet.
    """

    path: str
    mode: str
    strategy: str
    budget: Budget
    starting: int
    start_concurrency: int
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExplanation:
    """One child as its supervisor sees it.

    Attributes:
        path: the child.
        state, reason: as in its status.
        since_s: Unix time since which it is in this state; None when that is not known.
        decision: the supervisor's own state of it: waiting, starting, up, stopping, degraded or
            stopped.
        wanted: it is to run.
        kind: service, loop, command or supervisor.
        failure: critical, recoverable or degraded.
        restart: permanent, transient or temporary.
        pid: None while it does not run.
        incarnation: processes that it has had.
        restarts: processes after the first one.
        failures: ends in a row that nobody asked for.
        attempts: times in a row that it was given up for a while.
        retry_in_s: seconds until it is tried again; None when nothing is planned.
        deadline_in_s: seconds until a start or a stop that does not end is ended by force.
        start_timeout_s: what it has for a start.
        shutdown_s: what it has for a stop; None for any time.
        budget: the restarts that count for it.
        exits: the last ends of its processes, oldest first.
        order: what an operator wanted last; None when none did.
        holds: what keeps it from being started; empty unless it waits.
        depends_on: siblings that have to be up before it is started.
        dependents: siblings that are started after it, directly or not.
        takes_along: siblings that are restarted when it ends.
    """

    path: str
    state: HealthState
    reason: str = ""
    since_s: float | None = None
    decision: str
    wanted: bool
    kind: str
    failure: str
    restart: str
    pid: int | None = None
    incarnation: int = 0
    restarts: int = 0
    failures: int = 0
    attempts: int = 0
    retry_in_s: float | None = None
    deadline_in_s: float | None = None
    start_timeout_s: float
    shutdown_s: float | None
    budget: Budget
    exits: tuple[PastExit, ...] = ()
    order: Order | None = None
    holds: tuple[Hold, ...] = ()
    depends_on: tuple[Relation, ...] = ()
    dependents: tuple[Relation, ...] = ()
    takes_along: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A supervisor's answer; ``child`` is None when only the supervisor was asked about."""

    supervisor: Supervision
    child: ChildExplanation | None = None
