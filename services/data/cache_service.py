"""The process ``data/cache``: the node's status in Redis, its events, and a cache for everybody.

Without Redis it is degraded and goes on: the cache lives in memory, the status is stored and
events are published again once Redis is back. A caller never gets an error because of Redis.

Calls:

    cache.get     {"key"} -> {"found", "value"}
    cache.set     {"key", "value", "ttl_s"} -> {}
    cache.delete  {"key"} -> {"deleted"}
    cache.status  nothing -> CacheStatus

The cache belongs to the node, and this process is its only writer: memory answers first, Redis
has what does not fit and what an earlier process of the node kept. Its keys carry an epoch. After
a loss a new one begins, so that what was deleted in between can't come back; entries of earlier
epochs end by their time to live.

Events: ``cache:lost`` (reason), ``cache:recovered`` (duration_s).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from protocol import codec
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.journal import JournalPage
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.data.background import BackgroundTasks
from services.data.errors import CacheLimitError
from services.data.journal_reader import follow, read_status
from services.data.local_cache import LocalCache
from services.data.model import CacheSettings
from services.data.node_mirror import (
    EVENTS_CHANNEL,
    MirrorUpdate,
    NodeMirror,
    components_key,
    status_key,
)
from services.data.redis_link import RedisLink, RedisUnavailableError
from services.data.retry import RetryPolicy, retry_pause_s
from supervisor.child.service import CallHandler, Request, Service, ServiceContext

KEY_LENGTH_MAX = 256
VALUE_BYTES_MAX = 64 * 1024
TTL_MAX_S = 24 * 3600.0
# Memory for the fallback: far below what the process itself takes.
ENTRIES_MAX = 4096
BYTES_MAX = 8 * 1024 * 1024
# A node that is up renews its status with each page of the journal, at least every 20 s.
STATUS_TTL_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """Body of ``cache.get`` and ``cache.delete``."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRequest:
    """Body of ``cache.set``; the value ends after ``ttl_s``."""

    key: str
    value: Plain
    ttl_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatus:
    """What ``cache.status`` answers; entries and bytes are those in memory."""

    is_connected: bool
    entries: int
    size_bytes: int
    evictions: int
    losses: int


class CacheService(Service):
    """Mirrors the node to Redis and caches for other processes."""

    def __init__(self) -> None:
        self._local = LocalCache(entries_max=ENTRIES_MAX, bytes_max=BYTES_MAX)
        self._epoch = ""
        self._losses = 0
        self._reason = ""

    async def init(self, context: ServiceContext) -> None:
        """Try Redis once; come up with it or without."""
        self._context = context
        self._background = BackgroundTasks(context.fail)
        self._settings = from_wire(CacheSettings, context.settings)
        node_id = self._settings.node_id
        self._link = RedisLink(self._settings.redis, name=f"novacron:{context.path}")
        self._mirror = NodeMirror(node_id)
        self._epoch_key = f"novacron:node:{node_id}:cache-epoch"
        try:
            await self._link.connect(self._greet_first)
            context.set_health(HEALTHY)
        except RedisUnavailableError as exc:
            self._lose(str(exc))
        self._background.start(self._stay_connected())
        self._background.start(follow(context, self._take_page))

    def calls(self) -> Mapping[str, CallHandler]:
        """See the head of the file."""
        return {
            "cache.get": self._get,
            "cache.set": self._set,
            "cache.delete": self._delete,
            "cache.status": self._status,
        }

    async def check(self) -> Health:
        """As it is: the link is tried all the time."""
        if self._link.is_up:
            return HEALTHY
        return Health(HealthState.DEGRADED, self._reason or "Redis is not connected")

    async def terminate(self) -> None:
        """Disconnect; the node's keys in Redis end by themselves."""
        await self._background.end()
        await self._link.close()

    async def _greet_first(self, client: Redis) -> None:
        """Take over what an earlier process of this node left."""
        node_id = self._settings.node_id
        fresh = uuid.uuid4().hex
        async with client.pipeline(transaction=False) as pipe:
            pipe.set(self._epoch_key, fresh, nx=True)
            pipe.get(self._epoch_key)
            pipe.get(status_key(node_id))
            _, epoch, status = await pipe.execute()
        self._epoch = (epoch or fresh.encode()).decode(errors="replace")
        if status is not None:
            self._mirror.published_to(status.decode(errors="replace"))

    async def _greet_again(self, client: Redis) -> None:
        """Begin a new epoch and fill it with what memory holds."""
        self._epoch = uuid.uuid4().hex
        async with client.pipeline(transaction=False) as pipe:
            pipe.set(self._epoch_key, self._epoch)
            for key, value, remaining_s in self._local.items(time.monotonic()):
                pipe.set(self._redis_key(key), value, px=max(1, int(remaining_s * 1000)))
            if update := self._mirror.whole(time.time()):
                self._queue(pipe, update)
            await pipe.execute()

    async def _stay_connected(self) -> None:
        settings = self._settings.redis
        policy = RetryPolicy(
            attempts=None, initial_s=settings.retry_initial_s, max_s=settings.retry_max_s
        )
        failed = 0
        while True:
            if self._link.is_up:
                up = time.monotonic()
                self._lose(await self._link.wait_lost())
                # A link that breaks again at once is not tried in a hot loop.
                failed = 0 if time.monotonic() - up > settings.retry_max_s else failed + 1
            else:
                failed += 1
            lost = time.monotonic()
            while not self._link.is_up:
                if failed:
                    await asyncio.sleep(retry_pause_s(policy, failed) or settings.retry_max_s)
                try:
                    await self._link.connect(self._greet_again)
                except RedisUnavailableError as exc:
                    failed += 1
                    self._degrade(str(exc))
            self._recover(time.monotonic() - lost)

    def _recover(self, duration_s: float) -> None:
        self._reason = ""
        self._context.log.info("redis_connected", duration_s=duration_s)
        self._context.set_health(HEALTHY)
        self._context.emit("cache:recovered", duration_s=duration_s)

    def _lose(self, reason: str) -> None:
        self._losses += 1
        self._context.log.warning("redis_lost", reason=reason)
        self._context.emit("cache:lost", reason=reason)
        self._degrade(reason)

    def _degrade(self, reason: str) -> None:
        self._reason = f"{reason}; the cache is in memory, other nodes don't see this one's status"
        self._context.set_health(Health(HealthState.DEGRADED, self._reason))

    async def _take_page(self, page: JournalPage) -> None:
        status = await read_status(self._context) if page.lost else None
        await self._store(self._mirror.apply(page, now_s=time.time(), status=status))
        for name, value in (
            ("novacron_cache_connected", float(self._link.is_up)),
            ("novacron_cache_entries", float(self._local.statistics().entries)),
        ):
            self._context.measure(MetricSample(MetricKind.GAUGE, name, value))

    async def _store(self, update: MirrorUpdate) -> None:
        async def store(client: Redis) -> None:
            async with client.pipeline(transaction=True) as pipe:
                self._queue(pipe, update)
                await pipe.execute()

        try:
            await self._link.run(store)
        except RedisUnavailableError:
            # Whoever stays connected has been woken, and stores everything when Redis is back.
            if update.events:
                self._count("novacron_cache_events_dropped_total", len(update.events))

    def _queue(self, pipe: Pipeline, update: MirrorUpdate) -> None:
        key = components_key(self._settings.node_id)
        pipe.set(status_key(self._settings.node_id), update.status, ex=STATUS_TTL_S)
        if update.is_whole:
            pipe.delete(key)
        if update.components:
            mapping: dict[Any, Any] = dict(update.components)  # Any: redis's own unions
            pipe.hset(key, mapping=mapping)
        pipe.expire(key, STATUS_TTL_S)
        for event in update.events:
            pipe.publish(EVENTS_CHANNEL, event)

    async def _get(self, request: Request) -> Plain:
        key = _checked_key(from_wire(KeyRequest, request.body).key)
        value = self._local.get(key, time.monotonic())
        if value is None:
            value = await self._read(key)
        self._count("novacron_cache_requests_total", 1, result="miss" if value is None else "hit")
        if value is None:
            return {"found": False, "value": None}
        return {"found": True, "value": codec.decode(value)}

    async def _read(self, key: str) -> bytes | None:
        async def read(client: Redis) -> bytes | None:
            found = await client.get(self._redis_key(key))
            return found if isinstance(found, bytes) else None

        try:
            return await self._link.run(read)
        except RedisUnavailableError:
            return None

    async def _set(self, request: Request) -> Plain:
        body = from_wire(SetRequest, request.body)
        key = _checked_key(body.key)
        value = codec.encode(body.value)
        if len(value) > VALUE_BYTES_MAX:
            raise CacheLimitError(f"the value has {len(value)} bytes; at most {VALUE_BYTES_MAX}")
        if not 0 < body.ttl_s <= TTL_MAX_S:
            raise CacheLimitError(f"ttl_s is {body.ttl_s:g}; more than 0, at most {TTL_MAX_S:g}")
        self._local.set(key, value, ttl_s=body.ttl_s, now_s=time.monotonic())

        async def write(client: Redis) -> None:
            await client.set(self._redis_key(key), value, px=max(1, int(body.ttl_s * 1000)))

        try:
            await self._link.run(write)
        except RedisUnavailableError:
            self._context.log.debug("cached_in_memory_only")
        return {}

    async def _delete(self, request: Request) -> Plain:
        key = _checked_key(from_wire(KeyRequest, request.body).key)
        is_deleted = self._local.delete(key)

        async def delete(client: Redis) -> int:
            count: int = await client.unlink(self._redis_key(key))
            return count

        try:
            is_deleted = bool(await self._link.run(delete)) or is_deleted
        except RedisUnavailableError:
            self._context.log.debug("deleted_in_memory_only")
        return {"deleted": is_deleted}

    async def _status(self, _request: Request) -> Plain:
        local = self._local.statistics()
        return to_wire(
            CacheStatus(
                is_connected=self._link.is_up,
                entries=local.entries,
                size_bytes=local.size_bytes,
                evictions=local.evictions,
                losses=self._losses,
            )
        )

    def _redis_key(self, key: str) -> str:
        return f"novacron:node:{self._settings.node_id}:cache:{self._epoch}:{key}"

    def _count(self, name: str, value: float, **labels: str) -> None:
        self._context.measure(MetricSample(MetricKind.COUNTER, name, value, labels))


def _checked_key(key: str) -> str:
    if not 0 < len(key) <= KEY_LENGTH_MAX:
        raise CacheLimitError(f"the key has {len(key)} characters; 1 to {KEY_LENGTH_MAX}")
    return key
