"""What an operator wants to know of the database: schema, size, connections, durability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import NovacronError
from services.data import durability
from services.data.backup import server, swap
from services.data.backup.server import Connection
from services.data.errors import DatabaseMissingError
from services.data.migrations import Applied, Migration, pending
from services.data.model import PostgresSettings

_SERVER = """
    SELECT current_setting('server_version'), pg_database_size(current_database()),
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
           current_setting('max_connections')::int, pg_is_in_recovery(),
           to_regclass('schema_migrations') IS NOT NULL
"""
_REPLICAS = """
    SELECT coalesce(nullif(application_name, ''), usename, '?'), coalesce(state, '?'),
           coalesce(sync_state, '?'),
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint
    FROM pg_stat_replication ORDER BY 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A server that follows this one; ``behind_bytes`` of the log are not replayed there yet."""

    name: str
    state: str
    sync: str
    behind_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The database at a moment.

    Attributes:
        host, port, database, user: how it was reached.
        server: version of PostgreSQL.
        tls: whether the connection was encrypted.
        schema: number of the newest migration that was applied; 0 for none.
        known: the newest one that this program has.
        pending: names of those that are left to do.
        problem: why the program can't use this schema; "" where it can.
        size_bytes: of the database.
        connections: to it, by application.
        server_connections, connections_max: to the server, and how many it takes.
        is_standby: the server follows another one and takes no writes.
        replicas: those who follow it; empty also where the role may not see them.
        durability: on, off and the like, by PostgreSQL's names.
        kept: databases that restores have replaced, with their sizes.
    """

    host: str
    port: int
    database: str
    user: str
    server: str
    tls: bool
    schema: int
    known: int
    pending: tuple[str, ...]
    problem: str
    size_bytes: int
    connections: dict[str, int]
    server_connections: int
    connections_max: int
    is_standby: bool
    replicas: tuple[Replica, ...]
    durability: dict[str, str]
    kept: dict[str, int]


def look(settings: PostgresSettings, known: Sequence[Migration]) -> Overview:
    """Ask the server.

    Raises:
        DatabaseUnavailableError, DatabaseRefusedError: it can't be asked.
    """
    with server.connected(settings) as connection:
        row = connection.execute(_SERVER).fetchone()
        assert row is not None
        version, size_bytes, server_connections, connections_max, is_standby, is_ours = row
        applied = server.read_applied(connection) if is_ours else ()
        left, problem = _pending(known, applied)
        return Overview(
            host=settings.host,
            port=settings.port,
            database=settings.database,
            user=settings.user,
            server=version.split()[0],
            tls=connection.pgconn.ssl_in_use,
            schema=applied[-1].version if applied else 0,
            known=len(known),
            pending=left,
            problem=problem,
            size_bytes=size_bytes,
            connections=swap.who_is_connected(connection, settings.database),
            server_connections=server_connections,
            connections_max=connections_max,
            is_standby=is_standby,
            replicas=() if is_standby else _replicas(connection),
            durability=_durability(connection),
            kept=swap.kept_databases(connection, settings.database),
        )


def pending_names(settings: PostgresSettings, known: Sequence[Migration]) -> tuple[str, ...]:
    """The migrations that ``migrate`` would apply, by file name; all where there is no database.

    Raises:
        CriticalError: the program can't use this schema.
        DatabaseUnavailableError: the server can't be asked.
    """
    try:
        with server.connected(settings) as connection:
            found = connection.execute("SELECT to_regclass('schema_migrations')").fetchone()
            is_ours = found is not None and found[0] is not None
            applied = server.read_applied(connection) if is_ours else ()
    except DatabaseMissingError:
        if not settings.create_database:
            raise
        applied = ()
    return tuple(_name(step) for step in pending(known, applied))


def _pending(known: Sequence[Migration], applied: Sequence[Applied]) -> tuple[tuple[str, ...], str]:
    try:
        return tuple(_name(step) for step in pending(known, applied)), ""
    except NovacronError as exc:
        return (), str(exc)


def _name(step: Migration) -> str:
    return f"{step.version:04}_{step.name}"


def _replicas(connection: Connection) -> tuple[Replica, ...]:
    rows = connection.execute(_REPLICAS).fetchall()
    return tuple(
        Replica(name=name, state=state, sync=sync, behind_bytes=behind)
        for name, state, sync, behind in rows
    )


def _durability(connection: Connection) -> dict[str, str]:
    found: dict[str, str] = dict(
        connection.execute(durability.QUERY, [list(durability.SAFE)]).fetchall()
    )
    return {name: found.get(name, "?") for name in durability.SAFE}
