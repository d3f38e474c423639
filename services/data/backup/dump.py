"""Make a backup: one snapshot, which pg_dump, the row counts and the schema's number all see."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import IsolationLevel

from services.data.backup import archive, programs, server
from services.data.backup.errors import BackupError, ServerProgramError
from services.data.backup.manifest import FORMAT, Manifest
from services.data.backup.server import Connection
from services.data.model import PostgresSettings
from services.data.refusal import one_line
from services.version import VERSION

# Bytes written, and the size of the database, which is larger: what is written is compressed.
Progress = Callable[[int, int], None]


def back_up(
    settings: PostgresSettings, file: Path, *, node_id: str, progress: Progress
) -> Manifest:
    """Write the database to a file and its manifest beside it.

    Args:
        settings: the database.
        file: the place; nothing must be there.
        node_id: for the manifest.
        progress: told now and then how far it is.

    Raises:
        BackupError: says what is wrong; nothing is left of the file.
        DatabaseUnavailableError, DatabaseRefusedError: no database.
    """
    with archive.new_archive(file) as writer, server.connected(settings) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        try:
            # pg_dump takes part in this transaction's snapshot while it lasts.
            with connection.transaction():
                return _write(settings, writer, connection, node_id, progress)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as exc:
            raise ServerProgramError(f"PostgreSQL: {one_line(str(exc))}") from exc


def _write(
    settings: PostgresSettings,
    writer: archive.ArchiveWriter,
    connection: Connection,
    node_id: str,
    progress: Progress,
) -> Manifest:
    created_s = time.time()
    row = connection.execute(
        "SELECT pg_export_snapshot(), pg_database_size(current_database()),"
        " current_setting('server_version'), to_regclass('schema_migrations') IS NOT NULL"
    ).fetchone()
    assert row is not None
    snapshot, database_bytes, version, is_ours = row
    applied = server.read_applied(connection) if is_ours else ()
    if not applied:
        raise BackupError(
            f"the database {settings.database} has no schema of NovaCron's: nothing to back up"
        )
    rows = server.count_rows(connection)
    major = server.major_version(connection)
    arguments = ("--format=custom", f"--snapshot={snapshot}", "--no-password")
    with programs.running("pg_dump", arguments, settings, server_major=major) as program:
        while chunk := program.output.read(archive.CHUNK_BYTES):
            writer.write(chunk)
            progress(writer.size_bytes, database_bytes)
        program.wait()
    manifest = Manifest(
        format=FORMAT,
        created_s=created_s,
        node_id=node_id,
        program=VERSION,
        schema=applied[-1].version,
        schema_name=applied[-1].name,
        server=version.split()[0],
        server_major=major,
        database=settings.database,
        size_bytes=writer.size_bytes,
        sha256=writer.sha256,
        rows=rows,
    )
    writer.commit(manifest)
    return manifest
