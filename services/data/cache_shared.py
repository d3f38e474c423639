"""Entries that all nodes share, in Redis: scripts that each happen at once or not at all.

    novacron:cache:<key>    hash: v the value, f the fence it was written under, s when it ends in
                            ms of Redis's clock; without v a key that was deleted a moment ago
    novacron:lease:<key>    the fence of the one that loads it, for as long as its lease lasts
    novacron:fence          the newest fence; begins at Redis's clock, so that a Redis that lost
                            everything never gives a number again
    novacron:floor          entries under an older fence count for nothing
    channel novacron:cache  {"key", "from"} of each change, for who keeps a copy

Invariant: the fence of an entry never goes down. So who was told to load and is late, or loads
what was deleted meanwhile, stores nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from services.data.redis_link import RedisLink

CHANNEL = "novacron:cache"
_ENTRY, _LEASE = "novacron:cache:", "novacron:lease:"
_FENCE, _FLOOR = "novacron:fence", "novacron:floor"
# Longer than the longest lease: until then a loader may come that began before the deletion.
_TOMBSTONE_MS = 120_000
# Longer than an entry lives at most.
_FLOOR_S = 3 * 86_400

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function next_fence()
    redis.call('SET', KEYS[3], time[1] * 1000000 + time[2], 'NX')
    return redis.call('INCR', KEYS[3])
end
"""
# ARGV: lease in ms, 0 to read only. Returns {value or false, ms left, fence or false, ms that
# another's lease lasts}.
_GET = f"""{_NOW}
local found = redis.call('HMGET', KEYS[1], 'v', 's', 'f')
if found[1] and tonumber(found[3]) < tonumber(redis.call('GET', KEYS[4]) or 0) then
    found[1] = false
end
local left = found[1] and (tonumber(found[2]) - now) or 0
if left > 0 or tonumber(ARGV[1]) == 0 then
    return {{found[1], left, false, 0}}
end
local lease = redis.call('PTTL', KEYS[2])
if lease > 0 then
    return {{found[1], left, false, lease}}
end
local fence = string.format('%.0f', next_fence())
redis.call('SET', KEYS[2], fence, 'PX', ARGV[1])
return {{found[1], left, fence, 0}}
"""
# ARGV: fence or "", value, ms that it is fresh, ms until it is gone, message.
_SET = f"""{_NOW}
local fence = tonumber(ARGV[1]) or next_fence()
local newest = math.max(tonumber(redis.call('HGET', KEYS[1], 'f') or 0),
                        ARGV[1] ~= '' and tonumber(redis.call('GET', KEYS[2]) or 0) or 0)
if newest > fence then
    return 0
end
local text = string.format('%.0f', fence)
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'f', text, 's', string.format('%.0f', now + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', '{CHANNEL}', ARGV[5])
return 1
"""
# ARGV: message.
_DELETE = f"""{_NOW}
local existed = redis.call('HEXISTS', KEYS[1], 'v')
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'f', string.format('%.0f', next_fence()))
redis.call('PEXPIRE', KEYS[1], {_TOMBSTONE_MS})
redis.call('PUBLISH', '{CHANNEL}', ARGV[1])
return existed
"""
# ARGV: fence, message.
_ABANDON = f"""
if redis.call('GET', KEYS[2]) == ARGV[1] then
    redis.call('DEL', KEYS[2])
    redis.call('PUBLISH', '{CHANNEL}', ARGV[2])
end
return 0
"""


_FORGET = f"""{_NOW}
redis.call('SET', KEYS[4], string.format('%.0f', next_fence()), 'EX', {_FLOOR_S})
return 0
"""


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """What Redis says of a key.

    Attributes:
        value: as stored, or None.
        left_s: how long it is fresh; 0 or less for one that may only serve while another loads.
        fence: not "": the caller is the one who loads.
        lease_s: how long another's lease lasts.
    """

    value: bytes | None
    left_s: float
    fence: str
    lease_s: float


class SharedCache:
    """The scripts, over a link that may be lost.

    Args:
        link: to Redis.
        origin: says of a message whose it is.
    """

    def __init__(self, link: RedisLink, *, origin: str) -> None:
        self._link = link
        self._origin = origin

    async def get(self, key: str, *, lease_s: float) -> SharedEntry:
        """Read, and take the lease where there is nothing fresh and ``lease_s`` is not 0."""
        found = await self._run(_GET, key, int(lease_s * 1000))
        value, left_ms, fence, lease_ms = found
        return SharedEntry(
            value if isinstance(value, bytes) else None,
            left_ms / 1000,
            fence.decode() if isinstance(fence, bytes) else "",
            lease_ms / 1000,
        )

    async def set(
        self, key: str, value: bytes, *, ttl_s: float, stale_s: float, fence: str
    ) -> bool:
        """Write; False when something newer has been written or begun. No fence: the newest."""
        fresh_ms = max(1, int(ttl_s * 1000))
        gone_ms = fresh_ms + int(stale_s * 1000)
        return bool(await self._run(_SET, key, fence, value, fresh_ms, gone_ms, self._message(key)))

    async def delete(self, key: str) -> bool:
        """Delete; tells whether there was a value."""
        return bool(await self._run(_DELETE, key, self._message(key)))

    async def abandon(self, key: str, fence: str) -> None:
        """Give the lease up."""
        await self._run(_ABANDON, key, fence, self._message(key))

    def queue_delete(self, pipe: Pipeline, key: str) -> None:
        """Delete with a pipeline, for a link that is just coming up."""
        pipe.eval(_DELETE, 4, *_keys(key), self._message(key))

    async def _run(self, script: str, key: str, *arguments: object) -> Any:  # Any: as Lua returns
        async def evaluate(client: Redis) -> Any:
            values: list[Any] = [*_keys(key), *arguments]
            return await client.eval(script, 4, *values)

        return await self._link.run(evaluate)

    def _message(self, key: str) -> str:
        return json.dumps({"key": key, "from": self._origin})


async def forget_all(client: Redis) -> None:
    """Let no shared entry count that there is, for a node that no longer knows what is wrong."""
    await client.eval(_FORGET, 4, *_keys(""))


def changed_key(message: object, origin: str) -> str | None:
    """The key that a message on the channel names; None for our own and for what is no message."""
    try:
        document = json.loads(message if isinstance(message, (str, bytes)) else b"")
        key, sender = document["key"], document["from"]
    except (ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, str) and sender != origin else None


def _keys(key: str) -> tuple[str, str, str, str]:
    return _ENTRY + key, _LEASE + key, _FENCE, _FLOOR
