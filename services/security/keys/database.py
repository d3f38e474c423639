"""The database's side of the keys: one connection when it is needed, and errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg

from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection
from services.data.refusal import one_line
from services.data.single import SingleConnection
from services.security.errors import KeysSchemaError

# Shorter than the pause between two cancellations when a part is closed.
CANCELLED_WAIT_S = 0.08

Connect = Callable[[], Awaitable[Connection]]


class KeysDatabase:
    """Statements about keys and sealed values.

    Args:
        connect: opens a connection; raises DatabaseUnavailableError.
        node_id: whose rows are meant.
    """

    def __init__(self, connect: Connect, *, node_id: str) -> None:
        self.node_id = node_id
        self._connect = connect
        self._single = SingleConnection(self.connect)

    async def connect(self) -> Connection:
        """A connection of the caller's own; one who is cancelled meanwhile leaves none behind.

        Raises:
            DatabaseUnavailableError: the server is gone.
        """
        task = asyncio.ensure_future(self._connect())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # It is nearly there, and is closed better than it is broken off.
            await asyncio.wait({task}, timeout=CANCELLED_WAIT_S)
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None:
                await task.result().close()
            raise

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection, for work of bounded time.

        Raises:
            DatabaseUnavailableError: the server is gone or too slow; the work may have been done.
            KeysSchemaError: a table is missing or not open to our role.
        """
        try:
            async with self._single.use() as connection:
                yield connection
        except psycopg.ProgrammingError as exc:
            reason = one_line(str(exc))
            raise KeysSchemaError(f"the tables of the keys can't be used: {reason}") from exc

    @asynccontextmanager
    async def translated(self, timeout_s: float) -> AsyncIterator[None]:
        """Bound the work on another connection in time, and put its errors into our words."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as exc:
            raise DatabaseUnavailableError(f"no answer in {timeout_s:g} s") from exc
        except psycopg.ProgrammingError as exc:
            reason = one_line(str(exc))
            raise KeysSchemaError(f"the tables of the keys can't be used: {reason}") from exc
        except psycopg.Error as exc:
            raise DatabaseUnavailableError(one_line(str(exc))) from exc

    async def close(self) -> None:
        """Close the connection."""
        await self._single.close()
