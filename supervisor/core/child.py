"""What a supervisor knows of one child.

States, and what moves a child on:

    WAITING   wanted, not running: a dependency, a free start slot or a pause is awaited
    STARTING  a process runs and has not said ready
    UP        it said ready
    STOPPING  it was asked to end, or killed
    DEGRADED  given up for now, tried again after a pause
    STOPPED   not wanted: stopped by an operator, finished, or declined

    WAITING -> STARTING -> UP -> STOPPING -> WAITING | STOPPED
    STARTING, UP -> WAITING (ended, restarted) | DEGRADED | STOPPED
    DEGRADED -> WAITING (pause over, or an operator starts it)
    STOPPED -> WAITING (an operator starts it)
"""

from __future__ import annotations

import enum

from protocol.dataclass import dataclass, field
from protocol.records import Plain
from supervisor.core.intensity import RestartWindow
from supervisor.core.reason import ExitReason
from supervisor.core.spec import ChildSpec, FailureClass


class ChildState(enum.Enum):
    """See the module."""

    WAITING = "waiting"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    DEGRADED = "degraded"
    STOPPED = "stopped"


class Order(enum.Enum):
    """What an operator ordered last, until the child is up; it decides what a failed start means.

    ADD: the child is discarded. START: it stays stopped. RESTART: it is tried again. None of them
    counts against an intensity.
    """

    NONE = "none"
    ADD = "add"
    START = "start"
    RESTART = "restart"


_ALIVE = frozenset((ChildState.STARTING, ChildState.UP, ChildState.STOPPING))


@dataclass(slots=True)
class Child:
    """The mutable record of one child.

    Attributes:
        index: its place in the start order.
        wanted: it is to run; False after an operator's stop or an end that is not restarted.
        finished: it ended by itself, or declined to start, and is not restarted.
        is_added: it was added at run time, not by a specification.
        order: see Order.
        extra: what an instance of a pool has besides the template's settings.
        base: incarnations that were used up before this record was made.
        removed: it leaves the specification as soon as it is down.
        incarnation: counts its processes, from 1.
        deadline_s: when the wait of STARTING or STOPPING ends in a kill; None for never.
        not_before_s: when a WAITING or DEGRADED child may be started.
        doom: the reason that replaces its exit status, when it was us who killed it.
        failures: ends in a row that were not asked for.
        attempts: times it was given up in a row.
        restarts: processes after the first one.
    """

    spec: ChildSpec
    state: ChildState = ChildState.WAITING
    index: int = 0
    wanted: bool = True
    finished: bool = False
    is_added: bool = False
    order: Order = Order.NONE
    extra: dict[str, Plain] = field(default_factory=dict)
    base: int = 0
    removed: bool = False
    incarnation: int = 0
    pid: int | None = None
    deadline_s: float | None = None
    not_before_s: float = 0.0
    started_s: float = 0.0
    up_s: float | None = None
    doom: ExitReason | None = None
    failures: int = 0
    attempts: int = 0
    restarts: int = 0
    last_exit: ExitReason | None = None
    window: RestartWindow = field(default_factory=RestartWindow)

    @property
    def is_alive(self) -> bool:
        """Whether a process runs for it."""
        return self.state in _ALIVE

    @property
    def is_settled(self) -> bool:
        """Whether those that depend on it need not wait any longer."""
        if self.state is ChildState.UP or self.finished:
            return True
        if self.spec.failure is FailureClass.DEGRADED:
            return self.last_exit is not None or not self.wanted
        return False

    @property
    def due_s(self) -> float | None:
        """When time alone moves it on; None when it does not."""
        if self.state in (ChildState.STARTING, ChildState.STOPPING) or self.doom is not None:
            return self.deadline_s
        if self.state in (ChildState.WAITING, ChildState.DEGRADED) and self.wanted:
            return self.not_before_s
        return None
