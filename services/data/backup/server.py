"""What backup and restore ask the server, over blocking connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from services.data import connecting, migrations
from services.data.connecting import MAINTENANCE_DATABASE
from services.data.errors import DatabaseUnavailableError, StatementRefusedError
from services.data.migrations import Applied, Migration
from services.data.model import PostgresSettings
from services.data.refusal import one_line

Connection = psycopg.Connection[tuple[Any, ...]]  # Any: as the columns are
APPLICATION = "novacronctl db"

_APPLIED = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
_TABLES = """
    SELECT n.nspname, c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    ORDER BY 1, 2
"""


@contextmanager
def connected(settings: PostgresSettings, *, database: str | None = None) -> Iterator[Connection]:
    """A connection in autocommit mode, without time limits of statements; closed afterwards.

    Raises:
        DatabaseRefusedError, DatabaseUnavailableError: as services.data.connecting.connect; the
            latter also for a connection that is lost in the block.
        StatementRefusedError: the server refuses a statement in the block.
    """
    given = connecting.arguments(settings, APPLICATION)
    if database is not None:
        given["dbname"] = database
    try:
        connection = psycopg.connect(**given)
    except psycopg.Error as exc:
        raise connecting.connect_error(settings, exc) from exc
    try:
        # The defaults of the server may be meant for quicker work.
        connection.execute(
            "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;"
            "SET lock_timeout = '30s'"
        )
        yield connection
    except psycopg.OperationalError as exc:
        raise DatabaseUnavailableError(
            f"{connecting.where(settings)}: {one_line(str(exc))}"
        ) from exc
    except psycopg.Error as exc:
        raise StatementRefusedError(
            f"{connecting.where(settings)}: {one_line(str(exc))}", sqlstate=exc.sqlstate
        ) from exc
    finally:
        connection.close()


def maintenance(settings: PostgresSettings) -> Any:  # Any: contextmanager's own type
    """A connection to the server's maintenance database; as ``connected``."""
    return connected(settings, database=MAINTENANCE_DATABASE)


def read_applied(connection: Connection) -> tuple[Applied, ...]:
    """The migrations that the database records; none where it was never ours."""
    try:
        rows = connection.execute(_APPLIED).fetchall()
    except psycopg.errors.UndefinedTable:
        return ()
    return tuple(Applied(*row) for row in rows)


def count_rows(connection: Connection) -> dict[str, int]:
    """The rows of each table, ``schema.name``."""
    found = {}
    for schema, table in connection.execute(_TABLES).fetchall():
        name = sql.Identifier(schema, table)
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
        assert row is not None
        found[f"{schema}.{table}"] = row[0]
    return found


def major_version(connection: Connection) -> int:
    """The server's major version."""
    return connection.info.server_version // 10_000


def migrate(settings: PostgresSettings, known: tuple[Migration, ...], database: str) -> int:
    """Bring a database up to date; how many migrations that took."""

    async def work() -> int:
        connection = await connecting.connect(
            replace(settings, database=database), application=APPLICATION
        )
        async with connection:
            return await migrations.migrate(connection, known)

    return asyncio.run(work())
