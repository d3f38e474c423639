"""PostgreSQL for a process: watched, pooled, and with the retries that are safe.

One connection does nothing but watch: its socket becomes readable when the server goes away, so
a loss is noticed at once and without a poll. All the work goes through the pool.

There are two ways to work. ``session`` hands out a connection in autocommit mode and never tries
again: what fails may have been done. ``run`` makes one transaction of the work and tries it again
where that is safe, by the class of the failure; see services.data.transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import psycopg

from services.data.connecting import Connection as Connection
from services.data.connecting import Prepare as Prepare
from services.data.connecting import Report as Report
from services.data.connecting import Row as Row
from services.data.connecting import connect as connect
from services.data.connecting import connect_with_retry as connect_with_retry
from services.data.connecting import find_silence
from services.data.deadlines import Deadlines
from services.data.model import PostgresSettings
from services.data.pool import ConnectionPool
from services.data.retry import RetryBudget
from services.data.session import Session
from services.data.statements import OTHER, Observe, ignore
from services.data.transactions import Transactions, Work

T = TypeVar("T")


class Database:
    """A watched server and a pool of connections to it.

    ``connect`` it, ``wait_lost``, and ``connect`` it again. Between a loss and the next
    connection every ``session`` fails at once with DatabaseUnavailableError, and ``run`` waits.

    Args:
        settings: where and as whom.
        application: shown in pg_stat_activity.
        timeout_s: for a free connection of the pool and for the work of one session.
        observe: told of each piece of work.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        *,
        application: str,
        timeout_s: float,
        observe: Observe | None = None,
    ) -> None:
        self._settings = settings
        self._application = application
        self._timeout_s = timeout_s
        self._observe = observe
        self._budget = RetryBudget()
        self._deadlines = Deadlines()
        self._watch: Connection | None = None
        self._pool: ConnectionPool | None = None
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
        self._pool = ConnectionPool(
            self._settings, application=self._application, timeout_s=self._timeout_s
        )
        await self._pool.open()
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
            timeout_s = self._settings.connect_timeout_s
            sentence = await find_silence(self._watch, timeout_s)
            if sentence is not None:
                self._connected.clear()
                return sentence

    def session(self, statement: str = OTHER) -> Session:
        """A connection of the pool, in autocommit mode, for a bounded time: ``async with``.

        Args:
            statement: what it is for, for the metrics: one of a few fixed names.

        Raises:
            DatabaseConflictError: it met another transaction and was not carried out.
            DatabaseUnavailableError: the server is gone or too slow; the statement may have been
                carried out.
        """
        return self._session(statement, self._timeout_s, self._observe)

    async def run(
        self, statement: str, work: Work[T], *, is_idempotent: bool, timeout_s: float | None = None
    ) -> T:
        """Do some work in one transaction, and again where that is safe and may help.

        A conflict with another transaction is always tried again. So is a lost connection if the
        work is idempotent, but never once the COMMIT was on its way: then it may have been done.

        Args:
            statement: what it is, for the metrics: one of a few fixed names.
            work: uses the connection it is given and neither commits nor rolls back.
            is_idempotent: doing all of the work once more has no effect beyond the database.
            timeout_s: for all attempts; None for the session's limit.

        Raises:
            OutcomeUnknownError: the connection was lost during COMMIT.
            DatabaseConflictError: conflicts up to the last attempt; nothing was done.
            DatabaseUnavailableError: no server, no time, or no retries left; nothing was done.
            StatementRefusedError: the server refuses the work; nothing was done.
        """
        transactions = Transactions(
            session=self._session,
            wait_connected=self.wait_connected,
            observe=self._observe or ignore,
            budget=self._budget,
        )
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        return await transactions.run(statement, work, is_idempotent=is_idempotent, limit_s=limit_s)

    def statistics(self) -> dict[str, int]:
        """The pool's counters."""
        return {} if self._pool is None else self._pool.statistics()

    async def close(self) -> None:
        """Let go of all connections."""
        self._connected.clear()
        pool, self._pool = self._pool, None
        watch, self._watch = self._watch, None
        if pool is not None:
            await pool.close()
        if watch is not None:
            with suppress(psycopg.Error):
                await watch.close()

    def _session(self, statement: str, timeout_s: float, observe: Observe | None) -> Session:
        pool = self._pool if self._connected.is_set() else None
        return Session(
            pool,
            self._deadlines,
            statement=statement,
            timeout_s=timeout_s,
            observe=observe,
            doubt=self._doubt.set,
        )

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
