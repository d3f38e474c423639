"""One use of a pooled connection: bounded in time, measured, its errors put into our words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import psycopg
import psycopg_pool

from services.data.connecting import UNAVAILABLE, Connection
from services.data.deadlines import Deadline, Deadlines
from services.data.errors import DatabaseConflictError, DatabaseUnavailableError
from services.data.failures import CONFLICTS, FailureClass, classify
from services.data.pool import ConnectionPool
from services.data.refusal import one_line
from services.data.statements import Observation, Observe


class Session:
    """A connection of the pool, in autocommit mode, for a bounded time.

    A class and no generator, which would cost a twentieth of a quick query.

    Args:
        pool: None when the server is gone.
        deadlines: of the process.
        statement: what it is for.
        timeout_s: for the wait for a connection and all of the work.
        observe: told how it went; None when somebody else tells.
        doubt: called when the server may be gone.
    """

    __slots__ = (
        "_connection",
        "_deadline",
        "_deadlines",
        "_doubt",
        "_observe",
        "_pool",
        "_started_s",
        "_statement",
        "_timeout_s",
        "failure",
    )

    def __init__(
        self,
        pool: ConnectionPool | None,
        deadlines: Deadlines,
        *,
        statement: str,
        timeout_s: float,
        observe: Observe | None,
        doubt: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._deadlines = deadlines
        self._statement = statement
        self._timeout_s = timeout_s
        self._observe = observe
        self._doubt = doubt
        self._connection: Connection | None = None
        self.failure: FailureClass | None = None

    async def __aenter__(self) -> Connection:
        self._started_s = time.perf_counter()
        pool = self._pool
        if pool is None:
            self._tell(FailureClass.LOST)
            raise DatabaseUnavailableError("PostgreSQL is not connected")
        self._deadline: Deadline = self._deadlines.begin(self._timeout_s)
        connection = pool.take_nowait()
        if connection is None:
            try:
                connection = await pool.take()
            except BaseException as exc:
                await self.__aexit__(type(exc), exc, exc.__traceback__)
                raise
        self._connection = connection
        return connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.end(self._deadline)
        is_late = self._deadline.is_cause_of(error)
        connection, self._connection = self._connection, None
        if connection is not None and self._pool is not None:
            if isinstance(error, asyncio.CancelledError):
                # What it is in is not worth finding out, least of all from a server that hangs.
                with suppress(psycopg.Error):
                    await connection.close()
            if error is not None or not self._pool.give_back_nowait(connection):
                await self._pool.give_back(connection)
        if error is None:
            self._tell(None)
        elif is_late:
            self._tell(FailureClass.SLOW)
            self._doubt()
            raise DatabaseUnavailableError(f"no answer in {self._timeout_s:g} s") from error
        else:
            self._raise_translated(error)

    def _raise_translated(self, error: BaseException) -> None:
        """Raise what the caller can do something with, or return to let the error pass as it is."""
        if isinstance(error, psycopg_pool.PoolTimeout):
            self._tell(FailureClass.SLOW)
            self._doubt()
            raise DatabaseUnavailableError(one_line(str(error))) from error
        if not isinstance(error, psycopg.Error):
            is_lost = isinstance(error, DatabaseUnavailableError)
            self._tell(FailureClass.LOST if is_lost else FailureClass.OTHER)
            return
        failure = failure_class(error)
        self._tell(failure)
        if failure in CONFLICTS:
            raise DatabaseConflictError(one_line(str(error))) from error
        if isinstance(error, UNAVAILABLE):
            if failure is not FailureClass.EXHAUSTED:
                self._doubt()
            raise DatabaseUnavailableError(one_line(str(error))) from error

    def _tell(self, failure: FailureClass | None) -> None:
        self.failure = failure
        if self._observe is not None:
            duration_s = time.perf_counter() - self._started_s
            self._observe(Observation(self._statement, duration_s, failure))


def failure_class(error: psycopg.Error) -> FailureClass:
    """The class of what psycopg raised."""
    says_nothing = error.sqlstate is None and isinstance(error, UNAVAILABLE)
    return classify(error.sqlstate, is_connection_lost=says_nothing)
