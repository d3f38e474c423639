"""What a supervisor's state machine wants done; whoever runs it does it in this order."""

from __future__ import annotations

from protocol.dataclass import dataclass
from supervisor.core.reason import ExitReason
from supervisor.core.spec import ChildSpec, SupervisorSpec


@dataclass(frozen=True, slots=True)
class Spawn:
    """Create a process; answer with Spawned, or with Exited where that fails."""

    spec: ChildSpec
    incarnation: int


@dataclass(frozen=True, slots=True)
class AskStop:
    """Ask the child to end."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Make a hung child say where it hangs (SIGABRT); Kill follows."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the child's process and all below it without asking."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Update:
    """Hand a nested supervisor its changed specification; the process stays."""

    id: str
    incarnation: int
    spec: SupervisorSpec


@dataclass(frozen=True, slots=True)
class Changed:
    """The child's state is another one; tell who wants to know."""

    id: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """A child added at run time failed to start and is no child any more."""

    id: str
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class AllUp:
    """The supervisor itself is up: every child is, or is known to be degraded."""


@dataclass(frozen=True, slots=True)
class Finish:
    """No child is left and the supervisor ends for the reason; nothing follows."""

    reason: ExitReason


Action = Spawn | AskStop | Abort | Kill | Update | Changed | Discarded | AllUp | Finish
