"""What a supervisor and its children tell each other.

Child to supervisor, as casts on the child's DEALER to the supervisor's ROUTER::

    hello   Hello            the process is there and can be spoken to
    ready   null             it is up
    health  Health           what it can do has changed
    event   EventReport      something to be kept in the node's journal
    report  TreeReport       of a nested supervisor: records below it that changed

Supervisor to child::

    stop    cast, null             end in an orderly way
    check   call, null             -> CheckReport: probe yourself now
    update  cast, SupervisorSpec   to a nested supervisor: this specification holds from now on
"""

from __future__ import annotations

from protocol.dataclass import dataclass, field
from protocol.messages.health import Health, HealthState
from protocol.records import Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A process introduces itself; a hello of an incarnation that is over is ignored."""

    pid: int
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReport:
    """An event on its way up the tree to the journal.

    Attributes:
        name: such as ``vm:started``.
        component: path of the process that it is about.
        fields: plain data.
        correlation: the request that led to it, or "".
    """

    name: str
    component: str
    fields: dict[str, Plain] = field(default_factory=dict)
    correlation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRecord:
    """One component as its supervisor knows it; the fields are ComponentStatus's.

    Times are CLOCK_MONOTONIC seconds, which all processes of a host share.

    Attributes:
        started_s: start of the process; None while it does not run.
        up_s: when it said ready; None until then.
        limits: what its process is limited to, for people, and what of it does not hold.
        retry_at_s: when it is started again; None when that is not planned.
        removed: the component is no longer part of the tree.
    """

    path: str
    level: str
    phase: int
    failure: str
    kind: str
    state: HealthState
    reason: str = ""
    pid: int | None = None
    cpus: tuple[int, ...] = ()
    limits: tuple[str, ...] = ()
    restarts: int = 0
    started_s: float | None = None
    up_s: float | None = None
    last_exit: str = ""
    retry_at_s: float | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeReport:
    """Components that changed, each whole."""

    components: tuple[ComponentRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """Result of a probe, by path; a supervisor answers for all below it."""

    results: dict[str, Health]
