"""One connection to PostgreSQL: its arguments, its time limits, and how often it is tried."""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import psycopg
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

MAINTENANCE_DATABASE = "postgres"
# A server that vanished without a word is noticed after 10 + 3 * 5 s.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# The last one is what a standby says that was not promoted yet.
UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
)
# Two of these mean that another process was quicker; the third that it is at it.
_CREATED_BY_OTHERS = (
    psycopg.errors.DuplicateDatabase,
    psycopg.errors.UniqueViolation,
    psycopg.errors.ObjectInUse,
)


class WatchedConnection(AsyncConnection[Row]):
    """A connection that knows without asking the server whether its end has come.

    Attributes:
        heard_s: monotonic time at which the server last answered; who uses it keeps it.
        lease_s: monotonic time until which it need not go back to the pool after each use.
    """

    heard_s: float = 0.0
    lease_s: float = 0.0
    _poll: select.poll | None = None

    def is_quiet(self) -> bool:
        """False when something has come in that nobody asked for, mostly the server's farewell.

        One system call. A free connection has nothing to read: a server that ends it says so or
        at least closes it, and both make the socket readable.
        """
        if self._poll is None:
            if self.closed:
                return False
            self._poll = select.poll()
            self._poll.register(self.fileno(), select.POLLIN)
        # A descriptor that is closed by now counts as something, too.
        return not self._poll.poll(0)

    def sever(self) -> None:
        """End the link without a word; whoever waits for an answer fails at once.

        Cancelling would do the same after psycopg has spoken to the server, or has tried to for
        ten seconds.
        """
        if not self.closed:
            with socket.socket(fileno=os.dup(self.fileno())) as link, suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


Connection = WatchedConnection
Report = Callable[[str, float], Awaitable[None]]
Prepare = Callable[[Connection], Awaitable[None]]


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
    given = arguments(settings, application)
    if database is not None:
        given["dbname"] = database
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            connection = await WatchedConnection.connect(**given)
            try:
                await limit_times(connection, settings)
            except BaseException:
                await connection.close()  # nobody else knows of it
                raise
            return connection
    except TimeoutError as exc:
        raise DatabaseUnavailableError(
            f"{where(settings)}: no answer in {settings.connect_timeout_s:g} s"
        ) from exc
    except psycopg.Error as exc:
        raise connect_error(settings, exc) from exc


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


def arguments(settings: PostgresSettings, application: str) -> dict[str, Any]:  # Any: libpq's
    """What libpq is told."""
    given: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "dbname": settings.database,
        "user": settings.user,
        "sslmode": settings.ssl_mode,
        "application_name": application,
        "autocommit": True,
        # Whole seconds, and at least two; who waits for it has a finer limit.
        "connect_timeout": max(2, math.ceil(settings.connect_timeout_s)),
    }
    # An empty one would not keep libpq from looking into the account's own files.
    files = {
        "sslrootcert": settings.ssl_root_cert,
        "sslcert": settings.ssl_cert,
        "sslkey": settings.ssl_key,
    }
    given |= {name: file for name, file in files.items() if file}
    if settings.password:
        given["password"] = settings.password
    if not settings.is_local:
        given |= _KEEPALIVE
    return given


async def find_silence(connection: Connection, timeout_s: float) -> str | None:
    """Have the server answer an empty query; why it did not, and None when it did.

    A connection that did not answer in time is of no use afterwards.
    """
    try:
        await in_time(connection, connection.execute(""), timeout_s)
    except psycopg.Error as exc:
        return one_line(str(exc))
    return None


async def in_time(
    connection: Connection, work: Coroutine[Any, Any, object], timeout_s: float
) -> None:
    """Do something with a connection, which is severed when it takes too long.

    Raises:
        psycopg.Error: the work's own, or that it took too long.
    """
    asked = asyncio.ensure_future(work)
    try:
        await asyncio.wait({asked}, timeout=timeout_s)
    finally:
        is_late = not asked.done()
        if is_late:
            connection.sever()
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
    if is_late:
        raise psycopg.OperationalError(f"no answer in {timeout_s:g} s")
    asked.result()


async def limit_times(connection: AsyncConnection[Any], settings: PostgresSettings) -> None:
    """Have the server itself end what takes too long, even if we are gone by then."""
    # Not as a start-up option: poolers such as PgBouncer refuse those.
    limits = {
        "statement_timeout": settings.statement_timeout_s,
        "lock_timeout": settings.lock_timeout_s,
        "idle_in_transaction_session_timeout": settings.idle_in_transaction_timeout_s,
    }
    await connection.execute(
        ";".join(f"SET {name} = {round(limit_s * 1000)}" for name, limit_s in limits.items())
    )


def where(settings: PostgresSettings) -> str:
    """The server, for messages."""
    return f"PostgreSQL at {settings.host}:{settings.port}"


def connect_error(settings: PostgresSettings, error: psycopg.Error) -> Exception:
    """What a failed connection means: a refusal, or something that may pass."""
    refusal = find_refusal(str(error))
    if refusal is None:
        return DatabaseUnavailableError(f"{where(settings)}: {one_line(str(error))}")
    kind = DatabaseMissingError if refusal.is_missing_database else DatabaseRefusedError
    return kind(f"PostgreSQL refuses the connection: {refusal.sentence}; {refusal.advice}")


async def _attempt(settings: PostgresSettings, application: str, prepare: Prepare) -> Connection:
    connection = await _connect_or_create(settings, application)
    try:
        await prepare(connection)
    except UNAVAILABLE as exc:
        await connection.close()
        raise DatabaseUnavailableError(f"{where(settings)}: {one_line(str(exc))}") from exc
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
        with suppress(*_CREATED_BY_OTHERS):
            await maintenance.execute(sql.SQL("CREATE DATABASE {}").format(name))
    except psycopg.Error as exc:
        raise DatabaseUnavailableError(f"can't create the database: {one_line(str(exc))}") from exc
    finally:
        await maintenance.close()
    try:
        return await connect(settings, application=application)
    except DatabaseMissingError as exc:  # somebody else is still making it
        raise DatabaseUnavailableError(str(exc)) from exc
