"""Bring the database's schema up to the one that this program knows: plain SQL, applied once.

``migrations/NNNN_name.sql`` are applied in order of their number, each in a transaction that
also records it in ``schema_migrations`` with the hash of its text. An advisory lock keeps two
programs apart. With nothing to do it is one query. A file that was applied is never changed: what
has to be different is a new file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection

from services.data.errors import MigrationChangedError, MigrationFailedError, SchemaNewerError
from services.data.refusal import one_line
from services.version import VERSION

DIRECTORY = Path(__file__).with_name("migrations")
# "novaschm" as a number: any constant serves that no other part of the database uses.
LOCK_KEY = int.from_bytes(b"novaschm", "big")
# Another node may be migrating; a minute is long for that and short for an operator.
LOCK_TIMEOUT_MS = 60_000

_FILE_NAME = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")
_CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version    integer PRIMARY KEY,
        name       text NOT NULL,
        checksum   text NOT NULL,
        program    text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
_SELECT = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
_INSERT = "INSERT INTO schema_migrations (version, name, checksum, program) VALUES (%s,%s,%s,%s)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema; ``script`` is the SQL."""

    version: int
    name: str
    script: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the script, hexadecimal."""
        return hashlib.sha256(self.script.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """What the database records of one step."""

    version: int
    name: str
    checksum: str


def load(directory: Path = DIRECTORY) -> tuple[Migration, ...]:
    """Read the program's migrations, in order.

    Raises:
        ValueError: a file is named wrongly, or the numbers have a gap: our own fault.
    """
    found = []
    for file in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            raise ValueError(f"{file.name} is no name of a migration")
        found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations in {directory} are not numbered 1, 2, 3 …")
    return tuple(found)


def pending(known: Sequence[Migration], applied: Sequence[Applied]) -> tuple[Migration, ...]:
    """What is left to do.

    Args:
        known: the program's migrations, numbered from 1 without a gap.
        applied: the database's, in order.

    Raises:
        SchemaNewerError: the database knows a step that the program does not.
        MigrationChangedError: a step is not the same in both, or one is missing in between.
    """
    if applied and applied[-1].version > len(known):
        newest = applied[-1]
        raise SchemaNewerError(
            f"the database's schema is version {newest.version} ({newest.name}), this program "
            f"({VERSION}) knows it up to {len(known)}; run a newer NovaCron",
            schema=newest.version,
            known=len(known),
        )
    for position, (ours, theirs) in enumerate(zip(known, applied, strict=False), start=1):
        if theirs.version != position:
            raise MigrationChangedError(
                f"the database never had migration {position:04} but has {theirs.version:04}",
                migration=position,
            )
        if theirs.checksum != ours.checksum:
            raise MigrationChangedError(
                f"migration {position:04}_{ours.name} is not the one that was applied to the "
                f"database ({theirs.name}, SHA-256 {theirs.checksum:.12}…)",
                migration=position,
            )
    return tuple(known[len(applied) :])


async def read_applied(connection: AsyncConnection[Any]) -> tuple[Applied, ...] | None:
    """What the database records of its migrations, in order; None when it never had any."""
    try:
        cursor = await connection.execute(_SELECT)
    except psycopg.errors.UndefinedTable:
        return None
    return tuple([Applied(*row) async for row in cursor])


async def migrate(
    connection: AsyncConnection[Any],  # Any: rows are tuples or whatever the caller set
    known: Sequence[Migration],
) -> int:
    """Apply what is missing.

    Args:
        connection: in autocommit mode.
        known: the program's migrations.

    Returns:
        How many were applied.

    Raises:
        SchemaNewerError, MigrationChangedError: as ``pending``.
        MigrationFailedError: names the migration and says what the server said.
        psycopg.OperationalError: the server went away.
    """
    applied = await read_applied(connection)
    if applied is not None and not pending(known, applied):
        return 0
    await _lock(connection)
    try:
        await connection.execute(_CREATE_TABLE)
        steps = pending(known, await read_applied(connection) or ())
        for step in steps:
            await _apply(connection, step)
    except psycopg.ProgrammingError as exc:
        raise MigrationFailedError(f"the schema can't be read: {one_line(str(exc))}") from exc
    finally:
        if not connection.closed:
            await connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK_KEY])
    return len(steps)


async def _lock(connection: AsyncConnection[Any]) -> None:
    try:
        async with connection.transaction():
            await _limit(connection)
            await connection.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
    except psycopg.errors.LockNotAvailable as exc:
        raise MigrationFailedError(
            f"another program has been migrating for {LOCK_TIMEOUT_MS / 1000:g} s"
        ) from exc


async def _limit(connection: AsyncConnection[Any]) -> None:
    """Let a migration of a large table take its time, and wait for others, in this transaction."""
    await connection.execute(
        f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"
    )


async def _apply(connection: AsyncConnection[Any], step: Migration) -> None:
    try:
        async with connection.transaction():
            await _limit(connection)
            # Our own file, without parameters: the server may run several statements at once.
            await connection.execute(step.script.encode())
            values = [step.version, step.name, step.checksum, VERSION]
            await connection.execute(_INSERT, values)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as exc:
        raise MigrationFailedError(
            f"migration {step.version:04}_{step.name} failed and was rolled back: "
            f"{one_line(str(exc))}",
            migration=step.version,
        ) from exc
