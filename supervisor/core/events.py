"""What happens to a supervisor: the inputs of its state machine."""

from __future__ import annotations

from protocol.dataclass import dataclass, field
from protocol.records import Plain
from supervisor.core.reason import ExitReason
from supervisor.core.spec import ChildSpec, SupervisorSpec


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
class ExitedTogether:
    """Several processes were found gone at one look.

    Whoever is first in start order is dealt with first, so that one group restart repairs what
    one cause broke.
    """

    exits: tuple[Exited, ...]


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
    """An operator wants the child to run.

    Attributes:
        id: the child's.
        is_strict: refuse where it runs or is about to, as OTP's restart_child does.
    """

    id: str
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class StopChild:
    """An operator wants the child to stay down until it is started again."""

    id: str


@dataclass(frozen=True, slots=True)
class RestartChild:
    """An operator wants a new process for the child; it does not count as a failure."""

    id: str


@dataclass(frozen=True, slots=True)
class AddChild:
    """An operator adds a child, last in order (OTP's start_child).

    Where its first start fails it is Discarded; where this supervisor is restarted it is lost.
    """

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class AddInstance:
    """An operator adds a child to a pool; it is called ``Supervisor.next_instance_id``.

    Attributes:
        settings: what it has besides the template's, or in their place.
    """

    settings: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """An operator wants a stopped child off the list (OTP's delete_child)."""

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
    | ExitedTogether
    | StoppedBeating
    | StopAll
    | StartChild
    | StopChild
    | RestartChild
    | AddChild
    | AddInstance
    | DeleteChild
    | Reconfigure
    | Tick
)
