"""A connection to Redis that may be lost: every operation works, or says so within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from protocol.errors import NovacronError
from services.data.model import RedisSettings
from services.data.refusal import one_line

T = TypeVar("T")
Operation = Callable[["Redis"], Awaitable[T]]


class RedisUnavailableError(NovacronError):
    """Redis does not answer or refuses; callers fall back to what they have."""

    code = "data.redis_unavailable"
    retryable = True


class RedisLink:
    """Runs operations on a pool of connections and remembers whether Redis is there.

    Args:
        settings: where Redis is, and the times.
        name: shown in CLIENT LIST; no blanks.
    """

    def __init__(self, settings: RedisSettings, *, name: str) -> None:
        self._settings = settings
        self._client = _client(settings, name)
        self._failed = asyncio.Event()
        self._failure: str | None = "not connected yet"

    @property
    def is_up(self) -> bool:
        """All operations since the last connection worked."""
        return self._failure is None

    async def run(self, operation: Operation[T]) -> T:
        """Carry out an operation within ``timeout_s``.

        Raises:
            RedisUnavailableError: it did not work, or Redis is known to be away.
        """
        if self._failure is not None:
            raise RedisUnavailableError(self._failure)
        try:
            return await self._bounded(operation, self._settings.timeout_s)
        except RedisUnavailableError as exc:
            self._failure = str(exc)
            self._failed.set()
            raise

    async def connect(self, greet: Operation[T]) -> T:
        """Try to reach Redis and carry out ``greet``; up if that works.

        Raises:
            RedisUnavailableError: says why not.
        """
        timeout_s = self._settings.connect_timeout_s + self._settings.timeout_s
        found = await self._bounded(greet, timeout_s)
        self._failure = None
        self._failed.clear()
        return found

    async def wait_lost(self) -> str:
        """Wait until an operation or a ping has failed; says how.

        An idle link is tried every ping_period_s. One failed operation counts as a loss: what it
        should have written has to be written again.
        """
        while self._failure is None:
            try:
                async with asyncio.timeout(self._settings.ping_period_s):
                    await self._failed.wait()
            except TimeoutError:
                with suppress(RedisUnavailableError):  # remembered by run
                    await self.run(_ping)
        return self._failure

    async def close(self) -> None:
        """Let go of all connections."""
        self._failure = "closed"
        await self._client.aclose(close_connection_pool=True)

    async def _bounded(self, operation: Operation[T], timeout_s: float) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await operation(self._client)
        except TimeoutError as exc:
            raise RedisUnavailableError(f"Redis gives no answer in {timeout_s:g} s") from exc
        except (RedisError, OSError) as exc:
            raise RedisUnavailableError(f"Redis: {one_line(str(exc))}") from exc


async def _ping(client: Redis) -> None:
    await client.ping()


def _client(settings: RedisSettings, name: str) -> Redis:
    options: dict[str, Any] = {  # Any: redis takes keywords of many types
        "db": settings.database,
        "password": settings.password or None,
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
        "client_name": name,
        # The library's own version is not news, and it reads its package's files to find it.
        "driver_info": None,
        # Trying again is this module's business, and its callers'.
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.host.startswith("/"):
        options |= {"connection_class": UnixDomainSocketConnection, "path": settings.host}
    else:
        options |= {"host": settings.host, "port": settings.port, "socket_keepalive": True}
    pool = BlockingConnectionPool(
        max_connections=settings.pool_size, timeout=settings.timeout_s, **options
    )
    return redis.asyncio.Redis(connection_pool=pool)
