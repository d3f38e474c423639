"""What can go wrong on the data level, by what the caller may do about it."""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import NovacronError
from supervisor.child.service import CriticalError


class DatabaseUnavailableError(NovacronError):
    """PostgreSQL does not answer at the moment; the same request may succeed later."""

    code: ClassVar[str] = "data.database_unavailable"
    retryable: ClassVar[bool] = True


class DatabaseConflictError(DatabaseUnavailableError):
    """The work met another transaction and was rolled back; the same request may succeed now."""

    code: ClassVar[str] = "data.conflict"


class OutcomeUnknownError(NovacronError):
    """The connection was lost during COMMIT; look whether the work was done before repeating it."""

    code: ClassVar[str] = "data.outcome_unknown"


class StatementRefusedError(NovacronError):
    """The server refuses the work for what it is; nothing was done, and the same fails again.

    Fields ``failure`` (constraint, permission, syntax, data or other) and ``sqlstate``.
    """

    code: ClassVar[str] = "data.statement_refused"
    expected: ClassVar[bool] = False


class DatabaseLostError(CriticalError):
    """PostgreSQL could not be reached with all the attempts that the settings allow."""

    code: ClassVar[str] = "data.database_lost"


class DatabaseRefusedError(CriticalError):
    """PostgreSQL answers and turns us away; somebody has to change a setting or the server."""

    code: ClassVar[str] = "data.database_refused"


class DatabaseMissingError(DatabaseRefusedError):
    """The server has no database of that name."""

    code: ClassVar[str] = "data.database_missing"


class SchemaNewerError(CriticalError):
    """The database was migrated by a newer program; this one must not touch it."""

    code: ClassVar[str] = "data.schema_newer"


class MigrationChangedError(CriticalError):
    """What the database records of its migrations is not what this program carries."""

    code: ClassVar[str] = "data.migration_changed"


class MigrationFailedError(CriticalError):
    """A migration could not be applied; its transaction was rolled back."""

    code: ClassVar[str] = "data.migration_failed"


class ProgramMissingError(CriticalError):
    """A program of an embedded server is not installed."""

    code: ClassVar[str] = "data.program_missing"


class DirectoryError(CriticalError):
    """A directory of an embedded server can't be made or used as it has to be."""

    code: ClassVar[str] = "data.directory"


class ClusterDamagedError(CriticalError):
    """A PostgreSQL data directory that was complete once is not any more; it is left alone."""

    code: ClassVar[str] = "data.cluster_damaged"


class ClusterVersionError(CriticalError):
    """The data directory belongs to a PostgreSQL version that is not installed."""

    code: ClassVar[str] = "data.cluster_version"


class ClusterCreateError(CriticalError):
    """initdb failed; nothing of its work is left."""

    code: ClassVar[str] = "data.cluster_create"


class CheckpointTooLargeError(NovacronError):
    """The state to be saved is over the limit; the earlier checkpoint stays."""

    code: ClassVar[str] = "data.checkpoint_too_large"


class CheckpointDamagedError(NovacronError):
    """What is stored does not have the hash that it was saved with."""

    code: ClassVar[str] = "data.checkpoint_damaged"
    expected: ClassVar[bool] = False


class CheckpointForeignError(NovacronError):
    """What is stored is whole and not this component's, or in a format that we don't know."""

    code: ClassVar[str] = "data.checkpoint_foreign"
    expected: ClassVar[bool] = False


class CheckpointOwnerError(NovacronError):
    """A component asked for the checkpoint of another one."""

    code: ClassVar[str] = "data.checkpoint_owner"


class CacheLimitError(NovacronError):
    """A key, a value or a time to live is outside the cache's limits."""

    code: ClassVar[str] = "data.cache_limit"
