"""The cache between callers and between nodes: one loads, nothing late overwrites, Redis or not."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
import redis

from protocol.errors import CallTimeoutError
from protocol.messages.health import HealthState
from protocol.records import Plain
from services.data import cache_store
from services.data.cache_client import CACHE, CacheClient
from services.data.cache_records import Scope
from services.data.errors import CacheLimitError
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.cache_nodes import CacheNode, running, wait_until
from tests.fixtures.fix_redis import RedisServer

pytestmark = pytest.mark.redis
Work = Callable[[CacheNode, CacheNode], Awaitable[None]]
SHARED = "shared"


def run_two(server: RedisServer, work: Work, **redis_settings: object) -> tuple[CacheNode, ...]:
    """Start the nodes a and b on one Redis, do the work, stop them."""

    async def main() -> tuple[CacheNode, ...]:
        nodes = [CacheNode(name, host=server.socket, **redis_settings) for name in "ab"]
        async with running(*nodes):
            for node in nodes:
                await node.wait_listening()
            await work(*nodes)
        return tuple(nodes)

    return asyncio.run(main())


def admin(server: RedisServer) -> redis.Redis:
    """A client of the test's own."""
    return redis.Redis(unix_socket_path=server.socket, decode_responses=True)


@pytest.mark.parametrize("scope", ["node", "shared"])
def test_one_caller_loads_and_the_others_wait_for_it(redis_server: RedisServer, scope: str) -> None:
    """A hundred misses at once are one loading."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        async def want() -> Plain:
            reply = await a.call("get", key="k", scope=scope, load_s=10, wait_s=10)
            if reply["load"]:
                loads.append(reply["load"])
                await asyncio.sleep(0.05)
                stored = await a.call(
                    "set", key="k", value="v", scope=scope, load=reply["load"], ttl_s=60
                )
                assert stored == {"is_stored": True}
                return "v"
            return reply["value"]

        assert await asyncio.gather(*(want() for _ in range(100))) == ["v"] * 100

    loads: list[str] = []
    run_two(redis_server, work)

    assert len(loads) == 1


def test_one_node_loads_for_all(redis_server: RedisServer) -> None:
    """The other's callers get the value as soon as it is there, not when they look next."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        load = (await a.call("get", key="k", scope=SHARED, load_s=20))["load"]
        assert load
        waiting = asyncio.create_task(b.call("get", key="k", scope=SHARED, load_s=20, wait_s=10))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await a.call("set", key="k", value=1, scope=SHARED, load=load)

        assert (await waiting)["value"] == 1
        assert await b.value("k", scope=SHARED) == 1

    run_two(redis_server, work)


def test_loader_that_died_keeps_nobody_waiting(redis_server: RedisServer) -> None:
    """Its lease ends, the next one loads, and what the dead one sends after all is refused."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        for scope, nodes in ((SHARED, (a, b)), ("node", (a, a))):
            first, second = nodes
            late = (await first.call("get", key="k", scope=scope, load_s=0.2))["load"]
            reply = await second.call("get", key="k", scope=scope, load_s=5, wait_s=5)
            assert reply["load"]
            refused = await first.call("set", key="k", value="late", scope=scope, load=late)
            assert refused == {"is_stored": False}
            kept = await second.call("set", key="k", value="new", scope=scope, load=reply["load"])
            assert kept == {"is_stored": True}
            refused = await first.call("set", key="k", value="late", scope=scope, load=late)
            assert refused == {"is_stored": False}
            assert await first.value("k", scope=scope) == "new"

    run_two(redis_server, work)


@pytest.mark.parametrize("scope", ["node", "shared"])
def test_what_is_deleted_while_it_is_loaded_stays_deleted(
    redis_server: RedisServer, scope: str
) -> None:
    """What was read before the deletion is out of date; by this node or another."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        load = (await a.call("get", key="k", scope=scope, load_s=10))["load"]
        deleting = a if scope == "node" else b
        await deleting.call("delete", key="k", scope=scope)

        stored = await a.call("set", key="k", value="old", scope=scope, load=load)

        assert stored == {"is_stored": False}
        assert await a.value("k", scope=scope) is None

    run_two(redis_server, work)


def test_given_up_loading_goes_to_the_next(redis_server: RedisServer) -> None:
    """At once, on any node."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        load = (await a.call("get", key="k", scope=SHARED, load_s=20))["load"]
        waiting = asyncio.create_task(b.call("get", key="k", scope=SHARED, load_s=20, wait_s=10))
        await asyncio.sleep(0.05)
        await a.call("abandon", key="k", scope=SHARED, load=load)

        assert (await asyncio.wait_for(waiting, 5))["load"]

    run_two(redis_server, work)


@pytest.mark.parametrize("scope", ["node", "shared"])
def test_stale_value_serves_while_one_loads(redis_server: RedisServer, scope: str) -> None:
    """Nobody waits for what there is an old value of."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        other = a if scope == "node" else b
        await a.call("set", key="k", value="old", scope=scope, ttl_s=0.1, stale_s=60)

        async def is_over() -> bool:  # each clock counts in whole milliseconds of its own
            found = [await node.call("get", key="k", scope=scope) for node in (a, other)]
            return all(reply["value"] is None for reply in found)

        await wait_until(is_over)
        first = await a.call("get", key="k", scope=scope, load_s=10)
        second = await other.call("get", key="k", scope=scope, load_s=10, wait_s=10)

        assert first["load"]
        assert (second["value"], second["is_stale"], second["load"]) == ("old", True, "")
        await a.call("set", key="k", value="new", scope=scope, load=first["load"])

        async def is_new() -> bool:
            return await other.value("k", scope=scope) == "new"

        await wait_until(is_new)

    run_two(redis_server, work)


@pytest.mark.parametrize("scope", ["node", "shared"])
def test_known_absence_is_cached(redis_server: RedisServer, scope: str) -> None:
    """Nobody loads what is known not to be there."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        await a.call("set", key="k", is_absent=True, scope=scope, ttl_s=60)
        reply = await a.call("get", key="k", scope=scope, load_s=10)
        assert (reply["is_absent"], reply["found"], reply["load"]) == (True, False, "")

    run_two(redis_server, work)


def test_change_reaches_the_copies_of_other_nodes(redis_server: RedisServer) -> None:
    """A copy in memory is dropped by the message, long before it ends."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        await a.call("set", key="k", value=1, scope=SHARED)

        async def has_copy() -> bool:
            assert await b.value("k", scope=SHARED) == 1
            return bool((await b.call("status"))["entries"])

        await wait_until(has_copy)
        await a.call("set", key="k", value=2, scope=SHARED)

        async def is_new() -> bool:
            return await b.value("k", scope=SHARED) == 2

        await wait_until(is_new)
        await a.call("delete", key="k", scope=SHARED)

        async def is_gone() -> bool:
            return await b.value("k", scope=SHARED) is None

        await wait_until(is_gone)

    run_two(redis_server, work)


def test_entries_of_a_node_are_its_own(redis_server: RedisServer) -> None:
    """Two nodes and the shared scope have a value each under one key."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        await a.call("set", key="k", value="a")
        await b.call("set", key="k", value="b")
        await b.call("set", key="k", value="s", scope=SHARED)

        values = [await a.value("k"), await b.value("k"), await a.value("k", scope=SHARED)]
        assert values == ["a", "b", "s"]

    run_two(redis_server, work)


def test_times_to_live_differ(redis_server: RedisServer) -> None:
    """What is set together does not end together, and never later than asked for."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        for number in range(30):
            await a.call("set", key=f"k{number}", value=1, ttl_s=1000)
        with admin(redis_server) as client:
            left_ms = [client.pttl(key) for key in client.keys("novacron:node:a:cache:*")]
        assert len(left_ms) == 30
        assert 890_000 < min(left_ms) < max(left_ms) <= 1_000_000
        assert max(left_ms) - min(left_ms) > 20_000

    run_two(redis_server, work)


def test_what_changed_without_redis_is_not_believed_afterwards(redis_server: RedisServer) -> None:
    """A shared value that was deleted while Redis was out of reach does not come back."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        for key in ("gone", "new", "kept"):
            await a.call("set", key=key, value="old", scope=SHARED)
        with _stopped(redis_server):
            assert await a.call("delete", key="gone", scope=SHARED) == {"is_deleted": True}
            await a.wait_health(HealthState.DEGRADED)
            await a.call("set", key="new", value="new", scope=SHARED)
            assert await a.value("new", scope=SHARED) == "new"
            assert await a.value("kept", scope=SHARED) == "old"
        await a.wait_health(HealthState.HEALTHY)
        await b.wait_health(HealthState.HEALTHY)

        for node in (a, b):
            assert await node.value("gone", scope=SHARED) is None
            assert await node.value("new", scope=SHARED) is None  # who wants it loads it
            assert await node.value("kept", scope=SHARED) == "old"

    run_two(redis_server, work, timeout_s=0.3)


def test_more_changes_than_can_be_remembered_drop_all_shared_entries(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather nothing than something wrong."""
    monkeypatch.setattr(cache_store, "CHANGES_MAX", 3)

    async def work(a: CacheNode, b: CacheNode) -> None:
        for number in range(6):
            await b.call("set", key=f"k{number}", value="old", scope=SHARED)
        with _stopped(redis_server):
            for number in range(4):
                await a.call("delete", key=f"k{number}", scope=SHARED)
            await a.wait_health(HealthState.DEGRADED)
        await a.wait_health(HealthState.HEALTHY)
        await b.wait_health(HealthState.HEALTHY)

        async def is_forgotten() -> bool:
            return [await b.value(f"k{n}", scope=SHARED) for n in range(6)] == [None] * 6

        await wait_until(is_forgotten)
        await b.call("set", key="k0", value="new", scope=SHARED)
        assert await a.value("k0", scope=SHARED) == "new"

    run_two(redis_server, work, timeout_s=0.3)


def test_stopped_redis_costs_one_deadline_and_no_error(redis_server: RedisServer) -> None:
    """All that is under way falls back after it, what comes later does not wait at all."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        await a.call("set", key="warm", value=1)
        with _stopped(redis_server):
            started_s = time.monotonic()
            calls = [a.call("get", key=f"k{n}", scope=SHARED) for n in range(20)]
            replies = await asyncio.gather(*calls)
            first_s = time.monotonic() - started_s
            started_s = time.monotonic()
            for number in range(200):
                await a.call("set", key=f"k{number}", value=number)
                assert await a.value(f"k{number}") == number
                await a.call("get", key=f"k{number}", scope=SHARED, load_s=1)
            later_s = time.monotonic() - started_s
            assert await a.value("warm") == 1
            assert not any(reply["found"] for reply in replies)
            assert first_s < 0.3 + 0.5
            assert later_s < 0.3
            assert "no answer in 0.3 s" in await a.wait_health(HealthState.DEGRADED)
        await a.wait_health(HealthState.HEALTHY)
        await a.wait_listening()

    run_two(redis_server, work, timeout_s=0.3, ping_period_s=60.0)


def test_killed_redis_is_listened_to_again(redis_server: RedisServer) -> None:
    """Changes arrive after it is back, with everything that it held lost."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        await a.call("set", key="k", value=1, scope=SHARED)
        await asyncio.to_thread(redis_server.kill)
        await a.wait_health(HealthState.DEGRADED)
        await b.wait_health(HealthState.DEGRADED)
        load = (await a.call("get", key="x", scope=SHARED, load_s=30))["load"]
        assert load
        await asyncio.to_thread(redis_server.start)
        for node in (a, b):
            await node.wait_health(HealthState.HEALTHY)
            await node.wait_listening()
        # Redis decides again who loads: what was told without it is not kept.
        stored = await a.call("set", key="x", value=1, scope=SHARED, load=load)
        assert stored == {"is_stored": False}
        await a.call("set", key="k", value=2, scope=SHARED)
        assert await b.value("k", scope=SHARED) == 2
        await a.call("set", key="k", value=3, scope=SHARED)

        async def is_new() -> bool:
            return await b.value("k", scope=SHARED) == 3

        await wait_until(is_new)

    run_two(redis_server, work)


def test_full_redis_is_degraded_with_its_sentence(redis_server: RedisServer) -> None:
    """Noeviction and no room: callers go on in memory, the health says what Redis said."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        with admin(redis_server) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1mb")
            try:
                for scope in (SHARED, "node"):
                    stored = await a.call("set", key="k", value="v" * 1000, scope=scope)
                    assert stored == {"is_stored": True}
                    assert await a.value("k", scope=scope) == "v" * 1000
                assert "maxmemory" in await a.wait_health(HealthState.DEGRADED)
            finally:
                client.config_set("maxmemory", "0")
        await a.wait_health(HealthState.HEALTHY)
        assert await a.value("k") == "v" * 1000

    run_two(redis_server, work)


def test_cut_subscription_is_renewed_and_copies_are_dropped(redis_server: RedisServer) -> None:
    """What was changed while nobody listened is not served from memory."""

    async def work(a: CacheNode, b: CacheNode) -> None:
        await a.call("set", key="k", value=1, scope=SHARED)
        assert await b.value("k", scope=SHARED) == 1
        with admin(redis_server) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await a.call("set", key="k", value=2, scope=SHARED)

        async def is_new() -> bool:
            return await b.value("k", scope=SHARED) == 2

        await wait_until(is_new)
        await b.wait_listening()

    run_two(redis_server, work)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("get", {"key": "k", "load_s": 61}),
        ("get", {"key": "k", "wait_s": 31}),
        ("get", {"key": "k", "wait_s": -1}),
        ("set", {"key": "k", "stale_s": -1}),
        ("set", {"key": "k", "stale_s": 86_401}),
        ("abandon", {"key": "", "load": "x"}),
        ("delete", {"key": ""}),
    ],
)
def test_limits_of_loading_hold(
    redis_server: RedisServer, method: str, body: dict[str, Plain]
) -> None:
    """A wait or a lease without end is the caller's error."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        with pytest.raises(CacheLimitError):
            await a.call(method, **body)

    run_two(redis_server, work)


def test_client_loads_once_and_survives_a_cache_that_is_away(redis_server: RedisServer) -> None:
    """The caller's side, on the real service and without one."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        async def call(request: Request) -> Plain:
            reply: Plain = await a.service.calls()[request.method](request)
            return reply

        methods = dict.fromkeys(("cache.get", "cache.set", "cache.delete", "cache.abandon"), call)
        context = MemoryServiceContext(path="api", peers={CACHE: methods})
        client = CacheClient(context)

        async def load() -> Plain:
            loaded.append(1)
            await asyncio.sleep(0.02)
            return {"n": len(loaded)}

        async def nothing() -> Plain:
            loaded.append(1)

        wanted = [client.load("k", load, ttl_s=60, scope=Scope.SHARED) for _ in range(20)]
        assert await asyncio.gather(*wanted) == [{"n": 1}] * 20
        await client.forget("k", scope=Scope.SHARED)
        assert await client.load("k", load, ttl_s=60, scope=Scope.SHARED) == {"n": 2}
        assert await client.load("none", nothing, ttl_s=60, absent_ttl_s=60) is None
        assert await client.load("none", load, ttl_s=60, absent_ttl_s=60) is None
        context._peers.clear()
        assert await client.load("k", load, ttl_s=60) == {"n": 4}
        await client.forget("k")

    loaded: list[int] = []
    run_two(redis_server, work)


def test_error_of_a_loader_reaches_its_caller_and_the_next_one_loads(
    redis_server: RedisServer,
) -> None:
    """The lease is given up, not waited for."""

    async def work(a: CacheNode, _b: CacheNode) -> None:
        async def call(request: Request) -> Plain:
            reply: Plain = await a.service.calls()[request.method](request)
            return reply

        context = MemoryServiceContext(path="api", peers={CACHE: {"cache.get": call}})
        client = CacheClient(context)

        async def fail() -> Plain:
            raise CallTimeoutError("the source is away")

        with pytest.raises(CallTimeoutError, match="the source"):
            await client.load("k", fail, ttl_s=60)
        ((path, method, body),) = context.casts
        assert (path, method) == (CACHE, "cache.abandon")
        await a.call("abandon", **body)
        assert (await a.call("get", key="k", load_s=1))["load"]

    run_two(redis_server, work)


class _stopped:  # noqa: N801 - reads as a statement
    """Redis gets no CPU inside the block."""

    def __init__(self, server: RedisServer) -> None:
        self._pid = server.pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)
