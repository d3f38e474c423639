"""What can go wrong with a backup; in each case the database is as it was before."""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import NovacronError


class BackupError(NovacronError):
    """A backup or a restore did not come about."""

    code: ClassVar[str] = "data.backup"


class BackupExistsError(BackupError):
    """There is a file of that name, or somebody is writing it; name another one."""

    code: ClassVar[str] = "data.backup_exists"


class BackupWriteError(BackupError):
    """The file can't be written; nothing of it is left."""

    code: ClassVar[str] = "data.backup_write"


class BackupDamagedError(BackupError):
    """The file is not what its manifest says, or one of the two is missing: take another one."""

    code: ClassVar[str] = "data.backup_damaged"


class BackupUnfitError(BackupError):
    """The backup is sound, and this program or this server is too old for it."""

    code: ClassVar[str] = "data.backup_unfit"


class DatabaseInUseError(BackupError):
    """Somebody is connected to the database that is to be replaced; the message names them."""

    code: ClassVar[str] = "data.database_in_use"


class RestoreRightsError(BackupError):
    """The role may not do what a restore needs; the message says what to grant."""

    code: ClassVar[str] = "data.restore_rights"


class ServerProgramError(BackupError):
    """pg_dump, pg_restore or the server failed; the message has what it said."""

    code: ClassVar[str] = "data.server_program"
