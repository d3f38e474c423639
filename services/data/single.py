"""One connection for work that is rare: opened when it is needed, closed when it is not.

A backend of PostgreSQL costs the host several MiB while it waits, so what is asked for a few times
an hour should not hold one, and needs no pool either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg

from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection
from services.data.refusal import one_line

OPERATION_TIMEOUT_S = 5.0
IDLE_S = 30.0

Connect = Callable[[], Awaitable[Connection]]


class SingleConnection:
    """Hands one connection, in autocommit mode, to one caller at a time.

    Args:
        connect: opens one; raises DatabaseUnavailableError.
        timeout_s: for the wait, the connection and the work of one use together.
        idle_s: unused for so long, the connection is closed.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        timeout_s: float = OPERATION_TIMEOUT_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a connection is held at the moment."""
        return self._connection is not None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection, for work of bounded time.

        A connection that the server closed meanwhile is noticed before the work begins. What fails
        in any other way than by an error of the statement costs the connection, as nobody knows
        what it is in.

        Raises:
            DatabaseUnavailableError: the server is gone or too slow; the work may have been done.
            psycopg.Error: the server refused a statement.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._lock:
                connection = await self._take()
                try:
                    yield connection
                except psycopg.OperationalError:
                    await self._drop()
                    raise
                except psycopg.Error:
                    raise
                except BaseException:
                    await self._drop()
                    raise
                finally:
                    self._watch_idle()
        except TimeoutError as exc:
            raise DatabaseUnavailableError(f"no answer in {self._timeout_s:g} s") from exc
        except psycopg.OperationalError as exc:
            raise DatabaseUnavailableError(one_line(str(exc))) from exc

    async def close(self) -> None:
        """Close the connection."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        await self._drop()

    async def _take(self) -> Connection:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._connection is not None:
            try:
                await self._connection.execute("")  # asks the server, and nothing of it
            except psycopg.Error:
                await self._drop()
        if self._connection is None:
            self._connection = await self._connect()
        return self._connection

    def _watch_idle(self) -> None:
        if self._connection is not None:
            self._idle = asyncio.create_task(self._close_idle(), name="idle-connection")

    async def _close_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        async with self._lock:
            self._idle = None
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
