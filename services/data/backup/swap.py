"""Put one database in another's place, in one transaction, and the names that this uses.

    <database>                  what the node uses
    <database>_restoring        a restore's work; its comment says so, and it is dropped if found
    <database>_before_<time>    what a restore has replaced; stays until an operator drops it

``ALTER DATABASE … RENAME`` waits for the connections of the old one to end and keeps new ones
waiting meanwhile. So ending them from a second connection while it waits leaves no gap in which
the node could connect again, and no state that a crash could leave behind.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
from psycopg import sql

from services.data.backup import server
from services.data.backup.errors import DatabaseInUseError, RestoreRightsError
from services.data.backup.server import Connection
from services.data.errors import DatabaseUnavailableError
from services.data.model import PostgresSettings
from services.data.refusal import one_line

MARK = "novacron: a restore at work"
# PostgreSQL cuts longer names off.
NAME_BYTES_MAX = 63
_BEFORE = "_before_"
_RESTORING = "_restoring"
_TERMINATE_PERIOD_S = 0.05

_CONNECTED = """
    SELECT coalesce(nullif(application_name, ''), usename, '?'), count(*)
    FROM pg_stat_activity
    WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    GROUP BY 1 ORDER BY 1
"""
_TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = %s AND backend_type = 'client backend'
"""


def restoring_name(database: str) -> str:
    """The name of a restore's work."""
    return _cut(database, _RESTORING) + _RESTORING


def before_name(database: str, now_s: float) -> str:
    """The name that the replaced database gets.

    Args:
        database: its name up to now.
        now_s: seconds since the epoch.
    """
    suffix = _BEFORE + time.strftime("%Y%m%dt%H%M%Sz", time.gmtime(now_s))
    return _cut(database, suffix) + suffix


def kept_databases(connection: Connection, database: str) -> dict[str, int]:
    """The databases that restores have replaced, with their sizes in bytes."""
    prefix = _cut(database, _BEFORE + "20000101t000000z") + _BEFORE
    rows = connection.execute(
        "SELECT datname, pg_database_size(oid) FROM pg_database"
        " WHERE starts_with(datname, %s) ORDER BY 1",
        [prefix],
    ).fetchall()
    return dict(rows)


def exists(connection: Connection, database: str) -> bool:
    """Whether the server has a database of that name."""
    query = "SELECT 1 FROM pg_database WHERE datname = %s"
    return connection.execute(query, [database]).fetchone() is not None


def who_is_connected(connection: Connection, database: str) -> dict[str, int]:
    """The programs that are connected to a database, and how often."""
    return dict(connection.execute(_CONNECTED, [database]).fetchall())


def check_unused(connection: Connection, database: str) -> None:
    """See that nobody is connected.

    Raises:
        DatabaseInUseError: names who is.
    """
    if found := who_is_connected(connection, database):
        names = ", ".join(f"{name} ({count})" for name, count in found.items())
        raise DatabaseInUseError(
            f"the database {database} is in use by: {names}; stop the nodes that share it, or "
            "let --disconnect end their connections when the new database is ready"
        )


def create(connection: Connection, name: str) -> None:
    """Make an empty database that is marked as a restore's work; one of that mark goes first.

    Raises:
        RestoreRightsError: the role may not, or somebody else's database has the name.
    """
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
    found = connection.execute(query, [name]).fetchone()
    if found is not None and found[0] != MARK:
        raise RestoreRightsError(f"a database {name} is there that no restore made: rename it")
    quoted = sql.Identifier(name)
    try:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(quoted))
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(quoted)
        )
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(quoted, MARK))
    except psycopg.errors.InsufficientPrivilege as exc:
        role = connection.info.user
        raise RestoreRightsError(
            f"role {role} may not make databases ({one_line(str(exc))}); let an administrator run: "
            f'ALTER ROLE "{role}" CREATEDB'
        ) from exc


def drop(connection: Connection, name: str) -> None:
    """Remove a database with whoever is connected; nothing where there is none."""
    query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    connection.execute(query)


def put_in_place(
    settings: PostgresSettings, work: str, *, before: str, disconnect: bool
) -> str | None:
    """Give ``work`` the database's name, and the database, if there is one, the name ``before``.

    Args:
        settings: the server and the database.
        work: the new database.
        before: a free name.
        disconnect: end the connections of others.

    Returns:
        The name of the replaced database; None where there was none.

    Raises:
        DatabaseInUseError: somebody is connected who should not or could not be ended.
    """
    old, new, kept = map(sql.Identifier, (settings.database, work, before))
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    with server.maintenance(settings) as connection:
        is_there = exists(connection, settings.database)
        if is_there and not disconnect:
            check_unused(connection, settings.database)
        ender = _Ender(settings) if is_there and disconnect else None
        try:
            with connection.transaction():
                if is_there:
                    connection.execute(rename.format(old, kept))
                connection.execute(rename.format(new, old))
                connection.execute(sql.SQL("COMMENT ON DATABASE {} IS NULL").format(old))
        except psycopg.errors.ObjectInUse as exc:
            check_unused(connection, settings.database)
            raise DatabaseInUseError(one_line(str(exc))) from exc
        finally:
            if ender is not None:
                ender.stop()
    return before if is_there else None


class _Ender:
    """Ends the connections to a database again and again, until it is stopped."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ender", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_done.set()
        self._thread.join()

    def _run(self) -> None:
        # Where it can't, the rename fails and says who is connected.
        with (
            suppress(psycopg.Error, DatabaseUnavailableError),
            server.maintenance(self._settings) as connection,
        ):
            while not self._is_done.wait(_TERMINATE_PERIOD_S):
                connection.execute(_TERMINATE, [self._settings.database])


def _cut(database: str, suffix: str) -> str:
    room = NAME_BYTES_MAX - len(suffix)
    return database.encode()[:room].decode(errors="ignore")
