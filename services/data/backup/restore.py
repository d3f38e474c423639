"""Restore a backup into a new database, and put it in the old one's place when all of it is there.

In this order, and nothing of it changes the database before the last step:

1. The manifest and the file's hash, the schema's number, the server's version.
2. Nobody is connected, unless they may be disconnected.
3. A new database; pg_restore, in one transaction; the number of rows of each table.
4. The migrations that this program knows beyond the backup's.
5. The names change in one transaction; the old database is kept.

Whatever ends it earlier, Ctrl-C included, drops the new database. What a kill leaves behind is
marked, and goes with the next restore.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from services.data.backup import archive, manifest, programs, server, swap
from services.data.backup.errors import BackupError, RestoreRightsError, ServerProgramError
from services.data.backup.manifest import Manifest
from services.data.backup.server import Connection
from services.data.errors import DatabaseUnavailableError
from services.data.migrations import Migration
from services.data.model import PostgresSettings
from services.data.refusal import one_line

# What is done, bytes done, bytes in all.
Progress = Callable[[str, int, int], None]
# "novaback" as a number: one restore at a time on a server.
LOCK_KEY = int.from_bytes(b"novaback", "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore has done.

    Attributes:
        manifest: of the backup.
        database: its new name, the one that nodes use.
        kept: name of the replaced database; None where there was none.
        migrated: how many migrations were applied to it.
    """

    manifest: Manifest
    database: str
    kept: str | None
    migrated: int


def restore(
    settings: PostgresSettings,
    file: Path,
    known: tuple[Migration, ...],
    *,
    disconnect: bool,
    progress: Progress,
) -> Restored:
    """Replace the database by a backup of it.

    Args:
        settings: the database.
        file: the backup.
        known: the program's migrations.
        disconnect: end the connections of others at the end; else they are a reason to refuse.
        progress: told now and then how far it is.

    Raises:
        BackupError: says what is wrong; the database is as it was.
        CriticalError: a migration can't be applied to it; the database is as it was.
        DatabaseUnavailableError: no server.
    """
    stated = archive.read_manifest(file)
    archive.verify(file, lambda done: progress("verifying", done, stated.size_bytes))
    work = swap.restoring_name(settings.database)
    with server.maintenance(settings) as connection:
        _check(connection, settings, stated, known, name=str(file), disconnect=disconnect)
        with _locked(connection), _work_database(connection, work):
            target = replace(settings, database=work)
            major = server.major_version(connection)
            with _explained():
                _load(target, file, stated, major, progress)
                migrated = server.migrate(settings, known, work)
                with server.connected(target) as new:
                    new.execute("ANALYZE")
                before = swap.before_name(settings.database, time.time())
                kept = swap.put_in_place(settings, work, before=before, disconnect=disconnect)
    return Restored(manifest=stated, database=settings.database, kept=kept, migrated=migrated)


def discard(settings: PostgresSettings, name: str) -> int:
    """Drop a database that a restore has replaced; its size in bytes.

    Raises:
        BackupError: it is none of those.
    """
    with server.maintenance(settings) as connection:
        kept = swap.kept_databases(connection, settings.database)
        if name not in kept:
            names = ", ".join(kept) or "none"
            raise BackupError(
                f"{name} is no database that a restore has replaced; there are: {names}"
            )
        swap.check_unused(connection, name)
        swap.drop(connection, name)
        return kept[name]


def _check(
    connection: Connection,
    settings: PostgresSettings,
    stated: Manifest,
    known: tuple[Migration, ...],
    *,
    name: str,
    disconnect: bool,
) -> None:
    manifest.check_fits(
        stated, schema=len(known), server_major=server.major_version(connection), name=name
    )
    row = connection.execute(
        "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if row is None or not row[0]:
        role = connection.info.user
        raise RestoreRightsError(
            f"role {role} may not make databases; let an administrator run: "
            f'ALTER ROLE "{role}" CREATEDB'
        )
    if not disconnect:
        swap.check_unused(connection, settings.database)


def _load(
    target: PostgresSettings, file: Path, stated: Manifest, major: int, progress: Progress
) -> None:
    arguments = (
        f"--dbname={target.database}",
        "--no-owner",
        "--exit-on-error",
        "--single-transaction",
        "--no-password",
    )
    done_bytes = 0
    with programs.running("pg_restore", arguments, target, server_major=major) as program:
        # A pg_restore that has failed reads no more; why, comes out in the end.
        with suppress(BrokenPipeError):
            # The hash is taken again: the file may have changed since it was verified.
            for chunk in archive.chunks(file, stated):
                _write_all(program, chunk)
                done_bytes += len(chunk)
                progress("restoring", done_bytes, stated.size_bytes)
        program.wait()
    with server.connected(target) as connection:
        manifest.check_rows(stated.rows, server.count_rows(connection))


def _write_all(program: programs.Program, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[program.input.write(view) :]


@contextmanager
def _work_database(connection: Connection, work: str) -> Iterator[None]:
    swap.create(connection, work)
    try:
        yield
    except BaseException:
        # Where this fails too, the mark on the database has the next restore drop it.
        with suppress(psycopg.Error):
            swap.drop(connection, work)
        raise


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone()
    if row is None or not row[0]:
        raise BackupError("another restore is at work on this server; wait for its end")
    yield  # the connection's end lets go


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (psycopg.OperationalError, DatabaseUnavailableError) as exc:
        raise ServerProgramError(f"the server failed: {one_line(str(exc))}") from exc
    except psycopg.Error as exc:
        raise ServerProgramError(f"PostgreSQL: {one_line(str(exc))}") from exc
