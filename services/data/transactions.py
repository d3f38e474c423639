"""Transactions that are tried again where that is safe.

    failure                         | idempotent work     | other work
    before COMMIT: conflict, locked | again               | again
    before COMMIT: lost             | again               | DatabaseUnavailableError
    before COMMIT: anything else    | an error            | an error
    at COMMIT: the server refuses   | as before COMMIT    | as before COMMIT
    at COMMIT: lost, no answer      | OutcomeUnknownError | OutcomeUnknownError

A transaction that did not reach its COMMIT was rolled back, whatever became of the connection.
What the server says of a COMMIT is true, too: a conflict or a constraint that is checked at its
end rolled it back. But a connection that ends there says nothing: the record may be on the disk.

The invariant: work that may have been committed is never done a second time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import psycopg

from services.data.connecting import Connection
from services.data.errors import (
    DatabaseConflictError,
    DatabaseUnavailableError,
    OutcomeUnknownError,
    StatementRefusedError,
)
from services.data.failures import CONFLICTS, UNKNOWN_AT_COMMIT, FailureClass
from services.data.refusal import one_line
from services.data.retry import STATEMENTS, RetryBudget, jittered_s, retry_pause_s
from services.data.session import Session, failure_class
from services.data.statements import Observation, Observe

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]


class OpenSession(Protocol):
    """Makes a session; ``observe`` is None as the transaction tells itself how it went."""

    def __call__(self, statement: str, timeout_s: float, observe: Observe | None) -> Session:
        """A session of a statement's name and a time limit."""


class Transactions:
    """Runs work by the table above.

    Args:
        session: opens one.
        wait_connected: returns when there is a server again.
        observe: told of each attempt.
        budget: of retries, shared by all work of a process.
    """

    def __init__(
        self,
        *,
        session: OpenSession,
        wait_connected: Callable[[], Awaitable[None]],
        observe: Observe,
        budget: RetryBudget,
    ) -> None:
        self._session = session
        self._wait_connected = wait_connected
        self._observe = observe
        self._budget = budget

    async def run(self, statement: str, work: Work[T], *, is_idempotent: bool, limit_s: float) -> T:
        """See ``Database.run``."""
        give_up_s = time.monotonic() + limit_s
        failed = 0
        while True:
            await self._wait_server(give_up_s, limit_s)
            attempt = _Attempt(work)
            started_s = time.perf_counter()
            session = self._session(statement, max(0.001, give_up_s - time.monotonic()), None)
            try:
                found = await attempt.make(session)
            except (psycopg.Error, DatabaseUnavailableError) as exc:
                failed += 1
                failure = attempt.failure(session, exc)
                pause_s = None
                if attempt.may_repeat(failure, is_idempotent=is_idempotent):
                    pause_s = self._pause_s(failed, give_up_s)
                duration_s = time.perf_counter() - started_s
                is_retried = pause_s is not None
                self._observe(Observation(statement, duration_s, failure, is_retried))
                if pause_s is None:
                    raise attempt.translated(failure, exc) from exc
            except BaseException:
                duration_s = time.perf_counter() - started_s
                self._observe(Observation(statement, duration_s, FailureClass.OTHER))
                raise
            else:
                self._budget.succeed()
                self._observe(Observation(statement, time.perf_counter() - started_s))
                return found
            await asyncio.sleep(pause_s)

    async def _wait_server(self, give_up_s: float, limit_s: float) -> None:
        try:
            async with asyncio.timeout(give_up_s - time.monotonic()):
                await self._wait_connected()
        except TimeoutError as exc:
            raise DatabaseUnavailableError(
                f"PostgreSQL is not connected, and was not within {limit_s:g} s"
            ) from exc

    def _pause_s(self, failed: int, give_up_s: float) -> float | None:
        pause_s = retry_pause_s(STATEMENTS, failed)
        if pause_s is None:
            return None
        pause_s = jittered_s(pause_s, random.random())  # noqa: S311 - nobody gains by guessing it
        if time.monotonic() + pause_s >= give_up_s or not self._budget.take():
            return None
        return pause_s


class _Attempt(Generic[T]):
    """One transaction, and how far it got."""

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self._is_committing = False
        self._error: BaseException | None = None

    async def make(self, session: Session) -> T:
        async with session as connection:
            try:
                async with connection.transaction():
                    found = await self._work(connection)
                    self._is_committing = True
            except BaseException as exc:
                self._error = exc
                raise
        return found

    def failure(self, session: Session, error: Exception) -> FailureClass:
        if isinstance(self._error, psycopg.Error):
            return failure_class(self._error)
        if session.failure not in (None, FailureClass.OTHER):
            assert session.failure is not None
            return session.failure
        return failure_class(error) if isinstance(error, psycopg.Error) else FailureClass.LOST

    def may_repeat(self, failure: FailureClass, *, is_idempotent: bool) -> bool:
        if failure in CONFLICTS:
            return True
        return failure is FailureClass.LOST and is_idempotent and not self._is_committing

    def translated(self, failure: FailureClass, error: Exception) -> Exception:
        sentence = one_line(str(error))
        if self._is_committing and failure in UNKNOWN_AT_COMMIT:
            return OutcomeUnknownError(
                f"the connection was lost during COMMIT ({sentence}): look whether it was done "
                "before doing it again"
            )
        if failure in CONFLICTS:
            return DatabaseConflictError(sentence)
        if failure in (FailureClass.LOST, FailureClass.SLOW, FailureClass.EXHAUSTED):
            return DatabaseUnavailableError(sentence)
        sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
        return StatementRefusedError(sentence, failure=failure.value, sqlstate=sqlstate)
