"""A connection to Redis that may be lost: every operation works, or says so within its time.

    up      operations run, each within ``timeout_s``
    down    after the first that fails; operations fail at once, so a Redis that hangs costs its
            callers one timeout and no more
    up      after a ``connect`` that works; whoever owns the link tries that, with pauses

Over TLS only a server whose certificate is in order is spoken to, by version 1.2 or later; the
files are read anew with each ``connect``, so that renewed ones are used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio import (
    BlockingConnectionPool,
    Redis,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from protocol.errors import NovacronError
from services.data.model import RedisSettings, RedisTlsSettings
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
        self._name = name
        self._client = _client(settings, name, size=settings.pool_size)
        self._failed = asyncio.Event()
        self._up = asyncio.Event()
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
            self._up.clear()
            raise

    async def connect(self, greet: Operation[T]) -> T:
        """Try to reach Redis and carry out ``greet``; up if that works.

        Raises:
            RedisUnavailableError: says why not.
        """
        timeout_s = self._settings.connect_timeout_s + self._settings.timeout_s
        if self._settings.tls is not None:
            _check_files(self._settings.tls)
            await self._client.aclose(close_connection_pool=True)
            self._client = _client(self._settings, self._name, size=self._settings.pool_size)
        found = await self._bounded(greet, timeout_s)
        self._failure = None
        self._failed.clear()
        self._up.set()
        return found

    async def wait_up(self) -> None:
        """Wait until operations run; whoever connects bounds it."""
        await self._up.wait()

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

    async def listen(
        self, channel: str, handle: Callable[[bytes], None], started: Callable[[], None]
    ) -> None:
        """Hand over what is published, on a connection of its own, until that is lost.

        Args:
            channel: which.
            handle: takes each message.
            started: called once nothing that is published from now on is missed.

        Raises:
            RedisUnavailableError: says how it ended.
        """
        client = _client(self._settings, f"{self._name}:listen", size=1)
        try:
            async with client.pubsub() as subscription:
                timeout_s = self._settings.connect_timeout_s + self._settings.timeout_s
                async with asyncio.timeout(timeout_s):
                    await subscription.subscribe(channel)
                    while await subscription.get_message(timeout=timeout_s) is None:
                        continue
                started()
                await self._take_messages(subscription, handle)
        except (RedisError, OSError, TimeoutError) as exc:
            raise RedisUnavailableError(f"Redis: {_sentence(exc)}") from exc
        finally:
            await client.aclose(close_connection_pool=True)

    async def _take_messages(self, subscription: PubSub, handle: Callable[[bytes], None]) -> None:
        is_asked = False
        while True:
            message = await subscription.get_message(timeout=self._settings.ping_period_s)
            if message is not None:
                is_asked = False
                if message["type"] == "message":
                    handle(message["data"])
            elif is_asked:
                raise TimeoutError("no answer to a ping")
            else:
                is_asked = True
                async with asyncio.timeout(self._settings.timeout_s):
                    await subscription.ping()

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
            raise RedisUnavailableError(f"Redis: {_sentence(exc)}") from exc


def _sentence(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__


async def _ping(client: Redis) -> None:
    await client.ping()


def _client(settings: RedisSettings, name: str, *, size: int) -> Redis:
    options: dict[str, Any] = {  # Any: redis takes keywords of many types
        "db": settings.database,
        "username": settings.user or None,
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
    if settings.tls is not None:
        options |= {"connection_class": SSLConnection, **_tls_options(settings.tls)}
    pool = BlockingConnectionPool(max_connections=size, timeout=settings.timeout_s, **options)
    return redis.asyncio.Redis(connection_pool=pool)


def _tls_options(tls: RedisTlsSettings) -> dict[str, Any]:  # Any: as above
    return {
        "ssl_ca_certs": tls.ca_file or None,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": tls.check_host,
        "ssl_certfile": tls.cert_file or None,
        "ssl_keyfile": tls.key_file or None,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }


def _check_files(tls: RedisTlsSettings) -> None:
    """Name the file that can't be read; the library would speak of the connection."""
    for file in filter(None, (tls.ca_file, tls.cert_file, tls.key_file)):
        try:
            Path(file).open("rb").close()
        except OSError as exc:
            raise RedisUnavailableError(f"Redis: can't read {file}: {exc.strerror}") from exc
