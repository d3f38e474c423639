"""The process ``data/cache``: the node's status in Redis, its events, and a cache for everybody.

Without Redis it is degraded and goes on: the cache lives in memory, the status is stored and
events are published again once Redis is back. A caller never gets an error because of Redis.

Calls, see cache_records.py; services use cache_client.py:

    cache.get      GetRequest -> GetReply
    cache.set      SetRequest -> {"is_stored"}
    cache.delete   KeyRequest -> {"is_deleted"}
    cache.abandon  AbandonRequest -> {}
    cache.status   nothing -> CacheStatus

Events: ``cache:lost`` (reason), ``cache:recovered`` (duration_s).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.journal import JournalPage
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.data.background import BackgroundTasks
from services.data.cache_records import (
    AbandonRequest,
    CacheStatus,
    GetRequest,
    KeyRequest,
    SetRequest,
    check_get,
)
from services.data.cache_store import CacheStore
from services.data.journal_reader import follow, read_status
from services.data.model import CacheSettings
from services.data.node_mirror import (
    EVENTS_CHANNEL,
    HEALTH_CHANNEL,
    MirrorUpdate,
    NodeMirror,
    components_key,
    status_key,
)
from services.data.redis_link import RedisLink, RedisUnavailableError
from services.data.retry import RetryPolicy, retry_pause_s
from supervisor.child.service import CallHandler, Request, Service, ServiceContext

# A node that is up renews its status with each page of the journal, if only an empty one; one that
# is gone is out of Redis as soon as its lease in the health table has run out.
STATUS_TTL_S = 15
_RENEW_S = STATUS_TTL_S / 3
# The answer still has to travel before the caller's own deadline.
_ANSWER_MARGIN_S = 0.2
# A connection that was lost is listened on again at once; what fails so often will go on failing.
_LISTEN_ATTEMPTS = 3


class CacheService(Service):
    """Mirrors the node to Redis and caches for other processes."""

    def __init__(self) -> None:
        self._losses = 0
        self._reason = ""

    async def init(self, context: ServiceContext) -> None:
        """Try Redis once; come up with it or without."""
        self._context = context
        self._background = BackgroundTasks(context.fail)
        self._settings = from_wire(CacheSettings, context.settings)
        node_id = self._settings.node_id
        self._link = RedisLink(self._settings.redis, name=f"novacron:{context.path}")
        self._store = CacheStore(node_id, self._link, self._count_get)
        self._mirror = NodeMirror(node_id)
        self._epoch_key = f"novacron:node:{node_id}:cache-epoch"
        try:
            await self._link.connect(self._greet_first)
            context.set_health(HEALTHY)
        except RedisUnavailableError as exc:
            self._lose(str(exc))
        self._background.start(self._stay_connected())
        self._background.start(self._stay_listening())
        self._background.start(follow(context, self._take_page, wait_s=_RENEW_S))

    def calls(self) -> Mapping[str, CallHandler]:
        """See the head of the file."""
        return {
            "cache.get": self._get,
            "cache.set": self._set,
            "cache.delete": self._delete,
            "cache.abandon": self._abandon,
            "cache.status": self._status,
        }

    async def check(self) -> Health:
        """As it is: the link is tried all the time."""
        if self._link.is_up and not self._reason:
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
        self._store.epoch = (epoch or fresh.encode()).decode(errors="replace")
        if status is not None:
            self._mirror.published_to(status.decode(errors="replace"))

    async def _greet_again(self, client: Redis) -> None:
        """Begin a new epoch and fill it with what memory holds."""
        self._store.epoch = uuid.uuid4().hex
        async with client.pipeline(transaction=False) as pipe:
            pipe.set(self._epoch_key, self._store.epoch)
            self._store.refill(pipe)
            if update := self._mirror.whole(time.time()):
                self._queue(pipe, update)
            await pipe.execute()
        await self._store.settle(client)

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

    async def _stay_listening(self) -> None:
        """Hear of other nodes' changes as long as Redis is there."""
        settings = self._settings.redis
        policy = RetryPolicy(
            attempts=None, initial_s=settings.retry_initial_s, max_s=settings.retry_max_s
        )
        failed = 0

        def begun() -> None:
            nonlocal failed
            failed = 0
            if self._link.is_up:
                self._reason = ""
                self._context.set_health(HEALTHY)

        while True:
            await self._link.wait_up()
            try:
                await self._store.listen(begun)
            except RedisUnavailableError as exc:
                failed += 1
                self._context.log.warning("redis_not_listening", reason=str(exc))
                if self._link.is_up and failed >= _LISTEN_ATTEMPTS:
                    self._reason = f"{exc}; changes that other nodes make are not heard"
                    self._context.set_health(Health(HealthState.DEGRADED, self._reason))
            await asyncio.sleep(retry_pause_s(policy, max(1, failed)) or settings.retry_max_s)

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
        await self._store_status(self._mirror.apply(page, now_s=time.time(), status=status))
        for name, value in (
            ("novacron_cache_connected", float(self._link.is_up)),
            ("novacron_cache_entries", float(self._store.statistics()[0].entries)),
        ):
            self._context.measure(MetricSample(MetricKind.GAUGE, name, value))

    async def _store_status(self, update: MirrorUpdate) -> None:
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
        for change in update.changes:
            pipe.publish(HEALTH_CHANNEL, change)
        for event in update.events:
            pipe.publish(EVENTS_CHANNEL, event)

    async def _get(self, request: Request) -> Plain:
        body = from_wire(GetRequest, request.body)
        check_get(body)
        wait_s = min(body.wait_s, max(0.0, request.remaining_s - _ANSWER_MARGIN_S))
        return to_wire(await self._store.get(replace(body, wait_s=wait_s)))

    async def _set(self, request: Request) -> Plain:
        return {"is_stored": await self._store.set(from_wire(SetRequest, request.body))}

    async def _delete(self, request: Request) -> Plain:
        return {"is_deleted": await self._store.delete(from_wire(KeyRequest, request.body))}

    async def _abandon(self, request: Request) -> Plain:
        await self._store.abandon(from_wire(AbandonRequest, request.body))
        return {}

    async def _status(self, _request: Request) -> Plain:
        local, loads = self._store.statistics()
        return to_wire(
            CacheStatus(
                is_connected=self._link.is_up,
                is_listening=self._store.is_listening,
                entries=local.entries,
                size_bytes=local.size_bytes,
                evictions=local.evictions,
                losses=self._losses,
                loads=loads,
            )
        )

    def _count_get(self, result: str) -> None:
        self._count("novacron_cache_requests_total", 1, result=result)

    def _count(self, name: str, value: float, **labels: str) -> None:
        self._context.measure(MetricSample(MetricKind.COUNTER, name, value, labels))
