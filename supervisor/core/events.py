"""What happens to a supervisor: the inputs of its state machine."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.reason import ExitReason
from supervisor.core.spec import SupervisorSpec


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the children for the first time."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process runs for the child."""

    id: str
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class BecameReady:
    """The child said that it is up."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The child's process is gone, or could not be created."""

    id: str
    incarnation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class StoppedBeating:
    """The child's own loop has not turned for too long."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class StopAll:
    """End the supervisor: stop the children in reverse order, then finish with the reason."""

    reason: ExitReason


@dataclass(frozen=True, slots=True)
class StartChild:
    """An operator wants the child to run."""

    id: str


@dataclass(frozen=True, slots=True)
class StopChild:
    """An operator wants the child to stay down until it is started again."""

    id: str


@dataclass(frozen=True, slots=True)
class RestartChild:
    """An operator wants a new process for the child; it does not count as a failure."""

    id: str


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Another specification holds from now on; only what differs is touched."""

    spec: SupervisorSpec


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; something may be due."""


Event = (
    Begin
    | Spawned
    | BecameReady
    | Exited
    | StoppedBeating
    | StopAll
    | StartChild
    | StopChild
    | RestartChild
    | Reconfigure
    | Tick
)
