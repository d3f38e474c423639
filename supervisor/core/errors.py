"""Why a command for a supervisor is refused; nothing changed then."""

from __future__ import annotations

from protocol.errors import NovacronError


class CommandRefusedError(NovacronError):
    """A supervisor does not do what it was told."""

    code = "supervisor.refused"


class UnknownChildError(CommandRefusedError, LookupError):
    """The command names a child that there is not (OTP's not_found)."""

    code = "supervisor.no_such_child"


class AlreadyStartedError(CommandRefusedError):
    """A child of this id runs already; ``fields["pid"]`` is its process."""

    code = "supervisor.already_started"


class AlreadyPresentError(CommandRefusedError):
    """A child of this id is there, though it does not run; start it, or delete it first."""

    code = "supervisor.already_present"


class ChildRunningError(CommandRefusedError):
    """The child runs; stop it first."""

    code = "supervisor.running"


class ChildRestartingError(CommandRefusedError):
    """The child is about to be started; stop it first, or wait."""

    code = "supervisor.restarting"


class ChildNeededError(CommandRefusedError):
    """Another child depends on it."""

    code = "supervisor.child_needed"


class PoolError(CommandRefusedError):
    """The command is for a pool and this is none, or the other way round."""

    code = "supervisor.pool"


class TooManyChildrenError(CommandRefusedError):
    """The supervisor has as many children as it may have."""

    code = "supervisor.too_many_children"


class SupervisorStoppingError(CommandRefusedError):
    """The supervisor is about to end; whoever follows it may be asked again."""

    code = "supervisor.stopping"
    retryable = True
