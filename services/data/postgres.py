"""Connections to PostgreSQL: opened with retry, pooled, watched.

One connection does nothing but watch: its socket becomes readable when the server goes away, so
a loss is noticed at once and without a poll. All the work goes through the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import psycopg_pool
from psycopg import AsyncConnection, sql

from services.data.errors import (
    DatabaseLostError,
    DatabaseMissingError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
)
from services.data.model import PostgresSettings
from services.data.refusal import find_refusal, one_line
from services.data.retry import RetryPolicy, retry_pause_s

Row = tuple[Any, ...]  # Any: a row's columns have the types of the table
Connection = AsyncConnection[Row]
Pool = psycopg_pool.AsyncConnectionPool[Connection]
Report = Callable[[str, float], Awaitable[None]]
Prepare = Callable[[Connection], Awaitable[None]]

MAINTENANCE_DATABASE = "postgres"
# Statements of this level take milliseconds; one that takes this long waits for a lost lock.
STATEMENT_TIMEOUT_MS = 30_000
# A server that vanished without a word is noticed after 10 + 3 * 5 s.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# A free connection above the limit of idle ones is closed after so long.
_IDLE_S = 30.0
_POOL_CLOSE_TIMEOUT_S = 2.0
# The last one is what a standby says that was not promoted yet.
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
)


async def connect(
    settings: PostgresSettings, *, application: str, database: str | None = None
) -> Connection:
    """Open one connection, in autocommit mode, once.

    Args:
        settings: where and as whom.
        application: shown in pg_stat_activity.
        database: another one than the settings name.

    Raises:
        DatabaseRefusedError: the server turns us away; DatabaseMissingError for its database.
        DatabaseUnavailableError: anything that may pass.
    """
    arguments = _arguments(settings, application)
    if database is not None:
        arguments["dbname"] = database
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            connection = await AsyncConnection.connect(**arguments)
            await _configure(connection)
            return connection
    except TimeoutError as exc:
        raise DatabaseUnavailableError(
            f"{_where(settings)}: no answer in {settings.connect_timeout_s:g} s"
        ) from exc
    except psycopg.Error as exc:
        raise _connect_error(settings, exc) from exc


async def connect_with_retry(
    settings: PostgresSettings,
    *,
    application: str,
    prepare: Prepare,
    on_failure: Report,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Connection:
    """Open and prepare one connection, with the attempts and pauses of the settings.

    Args:
        settings: where and as whom; makes the database where they say so.
        application: shown in pg_stat_activity.
        prepare: part of the attempt, such as bringing the schema up to date.
        on_failure: told of each failed attempt that another one follows: sentence, pause.
        sleep: waits between attempts.

    Raises:
        DatabaseRefusedError: the server turns us away; raised at once.
        DatabaseLostError: the last attempt failed too.
    """
    policy = RetryPolicy(attempts=settings.retry_attempts, initial_s=settings.retry_initial_s)
    failed = 0
    while True:
        try:
            return await _attempt(settings, application, prepare)
        except DatabaseUnavailableError as exc:
            failed += 1
            pause_s = retry_pause_s(policy, failed)
            if pause_s is None:
                raise DatabaseLostError(
                    f"PostgreSQL can't be used after {failed} attempts: {exc}",
                    attempts=failed,
                ) from exc
            await on_failure(str(exc), pause_s)
        await sleep(pause_s)


class Database:
    """A watched server and a pool of connections to it.

    ``connect`` it, ``wait_lost``, and ``connect`` it again. Between a loss and the next
    connection every ``session`` fails at once with DatabaseUnavailableError.

    Args:
        settings: where and as whom.
        application: shown in pg_stat_activity.
        timeout_s: for a free connection of the pool and for the work of one session.
    """

    def __init__(self, settings: PostgresSettings, *, application: str, timeout_s: float) -> None:
        self._settings = settings
        self._application = application
        self._timeout_s = timeout_s
        self._watch: Connection | None = None
        self._pool: Pool | None = None
        self._doubt = asyncio.Event()
        self._connected = asyncio.Event()

    async def connect(
        self,
        *,
        prepare: Prepare,
        on_failure: Report,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Connect with retry, let ``prepare`` use the first connection, open the pool.

        Raises:
            CriticalError: see connect_with_retry; and what ``prepare`` raises.
        """
        await self.close()
        self._watch = await connect_with_retry(
            self._settings,
            application=self._application,
            prepare=prepare,
            on_failure=on_failure,
            sleep=sleep,
        )
        self._pool = open_pool = _new_pool(self._settings, self._application, self._timeout_s)
        # Not waited for: the pool's first connection is made while the service gets ready.
        await open_pool.open(wait=False)
        self._connected.set()

    @property
    def is_connected(self) -> bool:
        """False between a loss and the next connection."""
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Wait until sessions can be had; whoever reconnects bounds it."""
        await self._connected.wait()

    async def wait_lost(self) -> str:
        """Wait until the server is gone, and say how it was noticed."""
        assert self._watch is not None
        while True:
            await self._wait_readable(self._watch)
            self._doubt.clear()
            sentence = await self._probe(self._watch)
            if sentence is not None:
                self._connected.clear()
                return sentence

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection of the pool, in autocommit mode, for a bounded time.

        Raises:
            DatabaseUnavailableError: the server is gone or too slow; the statement may have been
                carried out.
        """
        if self._pool is None or not self._connected.is_set():
            raise DatabaseUnavailableError("PostgreSQL is not connected")
        try:
            async with asyncio.timeout(self._timeout_s), self._pool.connection() as connection:
                yield connection
        except TimeoutError as exc:
            self._doubt.set()
            raise DatabaseUnavailableError(f"no answer in {self._timeout_s:g} s") from exc
        except _UNAVAILABLE as exc:
            self._doubt.set()
            raise DatabaseUnavailableError(one_line(str(exc))) from exc

    def statistics(self) -> dict[str, int]:
        """The pool's counters, by psycopg_pool's names."""
        return {} if self._pool is None else dict(self._pool.get_stats())

    async def close(self) -> None:
        """Let go of all connections."""
        self._connected.clear()
        pool, self._pool = self._pool, None
        watch, self._watch = self._watch, None
        if pool is not None:
            await pool.close(_POOL_CLOSE_TIMEOUT_S)
        if watch is not None:
            with suppress(psycopg.Error):
                await watch.close()

    async def _wait_readable(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            descriptor = connection.fileno()
        except psycopg.Error:
            return  # closed already
        loop.add_reader(descriptor, self._doubt.set)
        try:
            await self._doubt.wait()
        finally:
            loop.remove_reader(descriptor)

    async def _probe(self, connection: Connection) -> str | None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await connection.execute("SELECT 1")
        except TimeoutError:
            return f"no answer in {self._settings.connect_timeout_s:g} s"
        except psycopg.Error as exc:
            return one_line(str(exc))
        return None


async def _attempt(settings: PostgresSettings, application: str, prepare: Prepare) -> Connection:
    connection = await _connect_or_create(settings, application)
    try:
        await prepare(connection)
    except _UNAVAILABLE as exc:
        await connection.close()
        raise DatabaseUnavailableError(f"{_where(settings)}: {one_line(str(exc))}") from exc
    except BaseException:
        await connection.close()
        raise
    return connection


async def _connect_or_create(settings: PostgresSettings, application: str) -> Connection:
    try:
        return await connect(settings, application=application)
    except DatabaseMissingError:
        if not settings.create_database:
            raise
    maintenance = await connect(settings, application=application, database=MAINTENANCE_DATABASE)
    try:
        name = sql.Identifier(settings.database)
        with suppress(psycopg.errors.DuplicateDatabase):  # another process was quicker
            await maintenance.execute(sql.SQL("CREATE DATABASE {}").format(name))
    except psycopg.Error as exc:
        raise DatabaseUnavailableError(f"can't create the database: {one_line(str(exc))}") from exc
    finally:
        await maintenance.close()
    return await connect(settings, application=application)


def _new_pool(settings: PostgresSettings, application: str, timeout_s: float) -> Pool:
    size_max = max(1, settings.pool_size - 1)  # one is the watching connection
    return psycopg_pool.AsyncConnectionPool(
        kwargs=_arguments(settings, application),
        min_size=min(size_max, max(0, settings.max_idle_conns - 1)),
        max_size=size_max,
        max_idle=_IDLE_S,
        max_lifetime=settings.conn_max_lifetime_s,
        timeout=timeout_s,
        configure=_configure,
        check=psycopg_pool.AsyncConnectionPool.check_connection,
        num_workers=1,
        open=False,
        name=application,
    )


def _arguments(settings: PostgresSettings, application: str) -> dict[str, Any]:  # Any: libpq's
    arguments: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "dbname": settings.database,
        "user": settings.user,
        "sslmode": settings.ssl_mode,
        "application_name": application,
        "autocommit": True,
    }
    if settings.password:
        arguments["password"] = settings.password
    if not settings.host.startswith("/"):
        arguments |= _KEEPALIVE
    return arguments


async def _configure(connection: Connection) -> None:
    # Not as a start-up option: poolers such as PgBouncer refuse those.
    await connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")


def _connect_error(settings: PostgresSettings, error: psycopg.Error) -> Exception:
    refusal = find_refusal(str(error))
    if refusal is None:
        return DatabaseUnavailableError(f"{_where(settings)}: {one_line(str(error))}")
    kind = DatabaseMissingError if refusal.is_missing_database else DatabaseRefusedError
    return kind(f"PostgreSQL refuses the connection: {refusal.sentence}; {refusal.advice}")


def _where(settings: PostgresSettings) -> str:
    return f"PostgreSQL at {settings.host}:{settings.port}"
