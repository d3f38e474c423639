"""Free connections: psycopg's pool, and in front of it the few that are used again and again.

Going through psycopg's pool costs a tenth of a quick query. So a connection that comes back while
nobody waits is kept at hand, for ``LEASE_S`` after the pool has given it: then the pool sees it
again, and replaces it when it is too old.

No connection is handed out whose end has come:

1. Each one is asked for something to read, in one system call. A server that was stopped or
   killed, a backend that was ended and a connection that was cut all leave something to read.
2. Over the network, one that has been silent for ``SILENCE_MAX_S`` answers an empty query first:
   a host that lost its power, or a firewall that forgot the connection, leave nothing to read.

What fails is closed, and the pool makes another. A connection may still end between this look and
its use; what happens then is the business of whoever uses it.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import psycopg
import psycopg_pool

from services.data import connecting
from services.data.connecting import Connection, WatchedConnection
from services.data.errors import DatabaseUnavailableError
from services.data.model import PostgresSettings

Pool = psycopg_pool.AsyncConnectionPool[Connection]

LEASE_S = 1.0
SILENCE_MAX_S = 5.0
# A free connection above the limit of idle ones is closed after so long.
_IDLE_S = 30.0
_CLOSE_TIMEOUT_S = 2.0
_IDLE = psycopg.pq.TransactionStatus.IDLE
# It logs each connection that it has lost, at the level of a warning; we count them.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class ConnectionPool:
    """Sound connections, at most so many.

    Args:
        settings: where and as whom; one of ``pool_size`` is the caller's own.
        application: shown in pg_stat_activity.
        timeout_s: for a free connection.
    """

    def __init__(self, settings: PostgresSettings, *, application: str, timeout_s: float) -> None:
        self._settings = settings
        self._is_local = settings.is_local
        self._size_max = max(1, settings.pool_size - 1)
        idle_max = min(self._size_max, max(0, settings.max_idle_conns - 1))
        # What is at hand is open while idle, too.
        self._at_hand_max = min(1, idle_max)
        self._at_hand: list[Connection] = []
        self._waiting = 0
        self._dead = 0
        self._pool: Pool = psycopg_pool.AsyncConnectionPool(
            connection_class=WatchedConnection,
            kwargs=connecting.arguments(settings, application),
            min_size=idle_max,
            max_size=self._size_max,
            max_idle=_IDLE_S,
            max_lifetime=settings.conn_max_lifetime_s,
            timeout=timeout_s,
            configure=self._configure,
            num_workers=1,
            open=False,
            name=application,
        )

    async def open(self) -> None:
        """Begin to connect; not waited for, as the first one is made while the service starts."""
        await self._pool.open(wait=False)

    def take_nowait(self) -> Connection | None:
        """A sound connection that is at hand, or None: then ``take`` one."""
        if not self._at_hand:
            return None
        connection = self._at_hand[-1]
        now_s = time.monotonic()
        is_silent = not self._is_local and now_s - connection.heard_s >= SILENCE_MAX_S
        if now_s >= connection.lease_s or is_silent or not connection.is_quiet():
            return None
        return self._at_hand.pop()

    async def take(self) -> Connection:
        """A connection that is sound as far as one can tell.

        Raises:
            DatabaseUnavailableError: as many connections in a row were not as there can be.
            psycopg_pool.PoolTimeout: there was none in time.
        """
        for _ in range(2 * self._size_max + 1):
            connection = await self._next()
            try:
                is_sound = connection.is_quiet() and await self._answers(connection)
            except BaseException:
                await self._discard(connection)
                raise
            if is_sound:
                return connection
            self._dead += 1
            await self._discard(connection)
        raise DatabaseUnavailableError("the server ends each connection at once")

    def give_back_nowait(self, connection: Connection) -> bool:
        """Keep a connection at hand that has just worked; False when it has to go to the pool."""
        now_s = time.monotonic()
        if (
            self._waiting
            or len(self._at_hand) >= self._at_hand_max
            or now_s >= connection.lease_s
            or connection.pgconn.transaction_status != _IDLE
        ):
            return False
        connection.heard_s = now_s
        self._at_hand.append(connection)
        return True

    async def give_back(self, connection: Connection) -> None:
        """Take back a connection; one that is in a transaction or broken is not used again."""
        await self._pool.putconn(connection)

    async def close(self) -> None:
        """Close all connections; those that are in use, when they come back."""
        at_hand, self._at_hand, self._at_hand_max = self._at_hand, [], 0
        for connection in at_hand:
            await self._pool.putconn(connection)
        await self._pool.close(_CLOSE_TIMEOUT_S)

    def statistics(self) -> dict[str, int]:
        """psycopg_pool's counters by its names, and ``dead_connections``: found so and closed."""
        found = dict(self._pool.get_stats())
        found["pool_available"] = found.get("pool_available", 0) + len(self._at_hand)
        found["dead_connections"] = self._dead
        return found

    async def _next(self) -> Connection:
        if self._at_hand:
            connection = self._at_hand.pop()
            if time.monotonic() < connection.lease_s:
                return connection
            await self._pool.putconn(connection)
        self._waiting += 1
        try:
            connection = await self._pool.getconn()
        finally:
            self._waiting -= 1
        connection.lease_s = time.monotonic() + LEASE_S
        return connection

    async def _answers(self, connection: Connection) -> bool:
        if self._is_local or time.monotonic() - connection.heard_s < SILENCE_MAX_S:
            return True
        timeout_s = self._settings.connect_timeout_s
        if await connecting.find_silence(connection, timeout_s) is not None:
            return False
        connection.heard_s = time.monotonic()
        return True

    async def _discard(self, connection: Connection) -> None:
        with suppress(psycopg.Error):
            await connection.close()
        await self._pool.putconn(connection)

    async def _configure(self, connection: Connection) -> None:
        # The pool's one task that connects must not hang on a link that is cut right now.
        work = connecting.limit_times(connection, self._settings)
        await connecting.in_time(connection, work, self._settings.connect_timeout_s)
        connection.heard_s = time.monotonic()
