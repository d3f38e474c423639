"""The cache of one node: memory first, then Redis, and one caller at a time who loads.

    fresh in memory       answered at once
    fresh in Redis        answered, and kept in memory
    stale, with load_s    the first caller is told to load, the others get the stale value
    nothing, with load_s  the first caller is told to load, the others wait for it up to wait_s
    Redis is away         memory alone, what has ended included where it was the last thing known

Entries of the node belong to this process, which is their only writer; Redis keeps them over its
restarts, under an epoch: after a loss of Redis a new one begins, so that what was deleted in
between can't come back. Shared entries belong to all nodes: memory holds copies for COPY_S, dropped
when another node says that the entry has changed. What this node changed while Redis was away is
deleted there when it is back, and other nodes load it anew.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from services.data.cache_loads import Loads
from services.data.cache_records import (
    JITTER,
    AbandonRequest,
    GetReply,
    GetRequest,
    KeyRequest,
    Scope,
    SetRequest,
    check_get,
    check_key,
    check_set,
)
from services.data.cache_shared import CHANNEL, SharedCache, changed_key, forget_all
from services.data.cache_values import (
    MISS,
    SHARED,
    local_key,
    to_blob,
    to_load,
    to_reply,
    verdict,
)
from services.data.cache_waiting import Waiting
from services.data.local_cache import LocalCache, LocalCacheStatistics
from services.data.redis_link import RedisLink, RedisUnavailableError

# Memory for the fallback: far below what the process itself takes.
ENTRIES_MAX = 4096
BYTES_MAX = 8 * 1024 * 1024
# How long a copy of a shared entry serves without asking; a change is told within milliseconds,
# so this bounds what a message that is lost with a connection can cost.
COPY_S = 5.0
# Changes to remember while Redis is away; past that all shared entries are dropped instead.
CHANGES_MAX = 1024
# How often somebody who waits for another node's loading looks; a message wakes him earlier.
_LOOK_S = 0.1

Count = Callable[[str], None]


class CacheStore:
    """See the head of the file.

    Args:
        node_id: whose cache.
        link: to Redis; whoever owns it connects it.
        count: told ``hit``, ``stale``, ``absent``, ``miss``, ``load`` for each get.
        chance: for the jitter.
    """

    def __init__(
        self,
        node_id: str,
        link: RedisLink,
        count: Count,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._node_id = node_id
        self._link = link
        self._count = count
        self._chance = chance
        self._origin = uuid.uuid4().hex
        self._shared = SharedCache(link, origin=self._origin)
        self._local = LocalCache(entries_max=ENTRIES_MAX, bytes_max=BYTES_MAX)
        self._loads = Loads(self._origin[:12])
        self._waiting = Waiting()
        self._changed: set[str] | None = set()
        self.epoch = ""
        self.is_listening = False

    def statistics(self) -> tuple[LocalCacheStatistics, int]:
        """Of the memory, and how many values are being loaded."""
        return self._local.statistics(), self._loads.active(time.monotonic())

    async def get(self, request: GetRequest) -> GetReply:
        """Find a value, or say who is to load it.

        Raises:
            CacheLimitError: a key or a time outside its limits.
        """
        check_get(request)
        end_s = time.monotonic() + request.wait_s
        while True:
            reply, retry_s = await self._try_get(request)
            left_s = end_s - time.monotonic()
            if reply.found or reply.is_absent or reply.load or retry_s <= 0 or left_s <= 0:
                break
            await self._waiting.wait(local_key(request.key, request.scope), min(left_s, retry_s))
        self._count(verdict(reply))
        return reply

    async def set(self, request: SetRequest) -> bool:
        """Keep a value; False when it was loaded and is out of date by now.

        Raises:
            CacheLimitError: a key, a value or a time outside its limits.
        """
        blob = to_blob(request)
        check_set(request, len(blob) - 1)
        name = local_key(request.key, request.scope)
        ttl_s = request.ttl_s * (1 - JITTER * self._chance())
        # A token with a dot is of this process, and not Redis's.
        is_stored = "." not in request.load or self._loads.end(name, request.load)
        if request.load and request.scope is Scope.NODE:
            is_stored = is_stored and "." in request.load
        if is_stored and request.scope is Scope.SHARED:
            is_stored = await self._set_shared(request, blob, ttl_s)
        elif is_stored:
            self._keep(name, blob, ttl_s, request.stale_s)
            await self._write(request.key, blob, ttl_s)
        if not request.load:
            self._loads.revoke(name)
        self._waiting.wake(name)
        return is_stored

    async def delete(self, request: KeyRequest) -> bool:
        """Forget a value; tells whether there was one.

        Raises:
            CacheLimitError: no key.
        """
        check_key(request.key)
        name = local_key(request.key, request.scope)
        is_deleted = self._local.delete(name)
        self._loads.revoke(name)
        try:
            if request.scope is Scope.SHARED:
                is_deleted = await self._shared.delete(request.key) or is_deleted
            else:
                is_deleted = await self._link.run(self._unlink(request.key)) or is_deleted
        except RedisUnavailableError:
            self._remember(request.key, request.scope)
        self._waiting.wake(name)
        return is_deleted

    async def abandon(self, request: AbandonRequest) -> None:
        """Let another caller load.

        Raises:
            CacheLimitError: no key.
        """
        check_key(request.key)
        name = local_key(request.key, request.scope)
        if not self._loads.end(name, request.load) and request.scope is Scope.SHARED:
            with contextlib.suppress(RedisUnavailableError):  # the lease ends by itself
                await self._shared.abandon(request.key, request.load)
        self._waiting.wake(name)

    async def listen(self, started: Callable[[], None]) -> None:
        """Take other nodes' changes until the connection is lost.

        Raises:
            RedisUnavailableError: says how.
        """

        def begin() -> None:
            # What was changed before is not told any more.
            self._local.delete_prefix(SHARED)
            self.is_listening = True
            started()

        try:
            await self._link.listen(CHANNEL, self._take_message, begin)
        finally:
            self.is_listening = False

    def redis_key(self, key: str) -> str:
        """Where an entry of the node is."""
        return f"novacron:node:{self._node_id}:cache:{self.epoch}:{key}"

    def refill(self, pipe: Pipeline) -> None:
        """Queue what memory has of the node's entries, under the epoch that has just begun."""
        for name, value, left_s in self._local.items(time.monotonic()):
            if not name.startswith(SHARED):
                key = self.redis_key(name.partition(":")[2])
                pipe.set(key, value, px=max(1, int(left_s * 1000)))

    async def settle(self, client: Redis) -> None:
        """Delete in Redis what changed here while it was away, before anybody reads there."""
        while self._changed is None:
            await forget_all(client)
            self._changed = set()
            self._local.delete_prefix(SHARED)
        while self._changed:
            keys = tuple(self._changed)
            async with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    self._shared.queue_delete(pipe, key)
                await pipe.execute()
            for key in keys:
                self._local.delete(local_key(key, Scope.SHARED))
                self._changed.discard(key)

    async def _try_get(self, request: GetRequest) -> tuple[GetReply, float]:
        """What there is now, and how soon to look again where another one loads; 0 for never."""
        name = local_key(request.key, request.scope)
        if (blob := self._local.get(name, time.monotonic())) is not None:
            return to_reply(blob), 0.0
        if request.scope is Scope.SHARED:
            with contextlib.suppress(RedisUnavailableError):
                return await self._get_shared(request, name)
        elif (blob := await self._read(request.key)) is not None:
            return to_reply(blob), 0.0
        return self._get_local(request, name)

    def _get_local(self, request: GetRequest, name: str) -> tuple[GetReply, float]:
        now_s = time.monotonic()
        stale = self._local.get_stale(name, now_s)
        if not request.load_s:
            # Without Redis a shared copy that has ended is the last thing known.
            if stale is None or request.scope is not Scope.SHARED:
                return MISS, 0.0
            return to_reply(stale, is_stale=True), 0.0
        token = self._loads.begin(name, lease_s=request.load_s, now_s=now_s)
        reply = MISS if stale is None else to_reply(stale, is_stale=True)
        if token is not None:
            return to_load(reply, token), 0.0
        return reply, self._loads.left_s(name, now_s)

    async def _get_shared(self, request: GetRequest, name: str) -> tuple[GetReply, float]:
        if request.load_s and (known := self._waiting.busy(name)) is not None:
            return known
        changes = self._waiting.changes
        asked_s = time.monotonic()
        entry = await self._shared.get(request.key, lease_s=request.load_s)
        if entry.value is None:
            reply = MISS
        elif entry.left_s > 0:
            reply = to_reply(entry.value)
            # A change that was told while the answer was on its way may be newer than it.
            if self.is_listening and changes == self._waiting.changes:
                fresh_s = min(entry.left_s, COPY_S)
                self._keep(name, entry.value, fresh_s, entry.left_s - fresh_s, since_s=asked_s)
            return reply, 0.0
        else:
            reply = to_reply(entry.value, is_stale=True)
        if not request.load_s:
            return MISS, 0.0
        # The next callers of this node need not ask Redis that somebody loads.
        busy_s = request.load_s if entry.fence else min(entry.lease_s, _LOOK_S)
        self._waiting.note_busy(name, busy_s, reply)
        return (to_load(reply, entry.fence), 0.0) if entry.fence else (reply, busy_s)

    async def _set_shared(self, request: SetRequest, blob: bytes, ttl_s: float) -> bool:
        """Write where it is to be; without Redis keep it here, unless Redis gave the lease."""
        name = local_key(request.key, Scope.SHARED)
        is_local_load = "." in request.load
        asked_s = time.monotonic()
        try:
            is_stored = not is_local_load or not self._link.is_up
            if is_stored:
                is_stored = await self._shared.set(
                    request.key, blob, ttl_s=ttl_s, stale_s=request.stale_s, fence=request.load
                )
        except RedisUnavailableError:
            if request.load and not is_local_load:
                return False  # whether it is still the newest nobody can say
            self._keep(name, blob, ttl_s, request.stale_s)
            self._remember(request.key, Scope.SHARED)
            return True
        self._local.delete(name)
        if is_stored and self.is_listening:
            fresh_s = min(ttl_s, COPY_S)
            self._keep(name, blob, fresh_s, ttl_s - fresh_s, since_s=asked_s)
        return is_stored

    def _keep(
        self, name: str, blob: bytes, ttl_s: float, stale_s: float, *, since_s: float | None = None
    ) -> None:
        """Keep it from now on, or a copy from when Redis was asked, lest it outlives the entry."""
        since_s = time.monotonic() if since_s is None else since_s
        self._local.set(name, blob, ttl_s=ttl_s, stale_s=stale_s, now_s=since_s)

    def _remember(self, key: str, scope: Scope) -> None:
        """Redis has something else than we; only shared entries have no epoch to tell that."""
        if scope is not Scope.SHARED or self._changed is None:
            return
        self._changed.add(key)
        if len(self._changed) > CHANGES_MAX:
            self._changed = None

    async def _read(self, key: str) -> bytes | None:
        async def read(client: Redis) -> bytes | None:
            found = await client.get(self.redis_key(key))
            return found if isinstance(found, bytes) else None

        try:
            return await self._link.run(read)
        except RedisUnavailableError:
            return None

    async def _write(self, key: str, blob: bytes, ttl_s: float) -> None:
        async def write(client: Redis) -> None:
            await client.set(self.redis_key(key), blob, px=max(1, int(ttl_s * 1000)))

        # Without Redis: the next epoch begins with what memory has.
        with contextlib.suppress(RedisUnavailableError):
            await self._link.run(write)

    def _unlink(self, key: str) -> Callable[[Redis], Awaitable[bool]]:
        async def unlink(client: Redis) -> bool:
            return bool(await client.unlink(self.redis_key(key)))

        return unlink

    def _take_message(self, message: bytes) -> None:
        key = changed_key(message, self._origin)
        if key is not None:
            name = local_key(key, Scope.SHARED)
            self._local.delete(name)
            self._waiting.wake(name)
