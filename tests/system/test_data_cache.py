"""The process ``data/cache`` against a real Redis, and without one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis

from protocol.messages.health import HealthState
from protocol.records import Plain
from services.data.cache_records import VALUE_BYTES_MAX
from services.data.cache_service import CacheService
from services.data.errors import CacheLimitError
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_redis import RedisServer
from tests.fixtures.memory_journal import MemoryJournal

pytestmark = pytest.mark.redis
WAIT_S = 10.0
MISS = {"found": False, "value": None, "is_absent": False, "is_stale": False, "load": ""}


class Node:
    """A cache service, the journal it follows, and its context."""

    def __init__(self, socket: str, journal: MemoryJournal, **options: Any) -> None:
        self.journal = journal
        settings: dict[str, Plain] = {
            "node_id": "n1",
            "redis": {
                "host": socket,
                "pool_size": 2,
                "ping_period_s": 0.05,
                "retry_initial_s": 0.02,
                "retry_max_s": 0.1,
                **options,
            },
        }
        self.context = MemoryServiceContext(
            path="data/cache", settings=settings, peers=journal.peers()
        )
        self.service = CacheService()

    async def call(self, method: str, **body: Plain) -> Any:
        """Call the service as another process."""
        return await self.service.calls()[method](Request("api", method, body, 5.0))

    async def wait_health(self, state: HealthState) -> None:
        """Wait until the service says that it is so."""

        async def is_so() -> bool:
            return self.context.health.state is state

        await wait_until(is_so)


async def wait_until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


def run(socket: str, *works: Callable[[Node], Awaitable[None]], **options: Any) -> Node:
    """For each work start a service on the same journal, do the work, stop the service."""

    async def main() -> Node:
        journal = MemoryJournal()
        for work in works:
            node = Node(socket, journal, **options)
            await node.service.init(node.context)
            try:
                await work(node)
            finally:
                await node.service.terminate()
            assert node.context.failures == []
        return node

    return asyncio.run(main())


def client(server: RedisServer) -> redis.Redis:
    """A client of the test's own."""
    return redis.Redis(unix_socket_path=server.socket, decode_responses=True)


def test_status_and_components_are_mirrored(redis_server: RedisServer) -> None:
    """Both under the node's keys, both ending by themselves when the node is gone."""

    async def work(node: Node) -> None:
        assert node.context.health.state is HealthState.HEALTHY
        node.journal.add("component:state", "core/vm", state="healthy", pid=7)
        node.journal.add("init:complete")

        async def is_ready() -> bool:
            text = reader.get("novacron:node:n1:status")
            return bool(text) and json.loads(text)["state"] == "ready"

        await wait_until(is_ready)
        components = reader.hgetall("novacron:node:n1:components")
        assert json.loads(components["core/vm"])["pid"] == 7
        for key in ("novacron:node:n1:status", "novacron:node:n1:components"):
            assert 0 < reader.ttl(key) <= 15

    with client(redis_server) as reader:
        run(redis_server.socket, work)


def test_events_are_published_once_over_a_restart_of_the_process(
    redis_server: RedisServer,
) -> None:
    """The successor reads the whole journal and publishes what is new in it."""

    async def wait_published(count: int) -> None:
        async def is_there() -> bool:
            message = subscription.get_message(ignore_subscribe_messages=True)
            if message:
                seen.append(json.loads(message["data"]))
            return len(seen) >= count

        await wait_until(is_there)

    async def first(node: Node) -> None:
        node.journal.add("vm:started", "core/vm", domain="a")
        node.journal.add("vm:stopped", "core/vm", domain="a")
        await wait_published(2)

    async def second(node: Node) -> None:
        node.journal.add("vm:started", "core/vm", domain="b")
        await wait_published(3)

    seen: list[dict[str, Any]] = []
    with client(redis_server) as reader, reader.pubsub() as subscription:
        subscription.subscribe("novacron:events")
        subscription.get_message(timeout=5)
        run(redis_server.socket, first, second)

    assert [(event["seq"], event["name"]) for event in seen] == [
        (1, "vm:started"),
        (2, "vm:stopped"),
        (3, "vm:started"),
    ]
    assert seen[2]["fields"] == {"domain": "b"}
    assert seen[2]["node_id"] == "n1"


def test_changes_of_states_are_published(redis_server: RedisServer) -> None:
    """With the payload that PostgreSQL notifies, once per change."""

    async def work(node: Node) -> None:
        async def wait_seen(count: int) -> None:
            async def is_there() -> bool:
                message = subscription.get_message(ignore_subscribe_messages=True)
                if message:
                    seen.append(json.loads(message["data"]))
                return len(seen) >= count

            await wait_until(is_there)

        node.journal.add("component:state", "core/vm", state="degraded")
        await wait_seen(1)
        node.journal.add("vm:started", "core/vm")
        node.journal.add("init:complete")
        await wait_seen(2)

    seen: list[dict[str, Any]] = []
    with client(redis_server) as reader, reader.pubsub() as subscription:
        subscription.subscribe("novacron:health")
        subscription.get_message(timeout=5)
        run(redis_server.socket, work)

    assert seen == [
        {"node_id": "n1", "component": "core/vm"},
        {"node_id": "n1", "component": ""},
    ]


def test_cached_value_comes_back_and_survives_the_process(redis_server: RedisServer) -> None:
    """Memory answers first; what an earlier process cached is in Redis."""
    value = {"raw": b"\x00", "list": [1, None]}

    async def first(node: Node) -> None:
        assert await node.call("cache.get", key="a") == MISS
        await node.call("cache.set", key="a", value=value, ttl_s=60)
        await node.call("cache.set", key="b", value=2, ttl_s=60)
        assert await node.call("cache.delete", key="b") == {"is_deleted": True}

    async def second(node: Node) -> None:
        assert await node.call("cache.get", key="a") == {**MISS, "found": True, "value": value}
        assert not (await node.call("cache.get", key="b"))["found"]
        assert await node.call("cache.delete", key="a") == {"is_deleted": True}
        assert await node.call("cache.delete", key="a") == {"is_deleted": False}

    run(redis_server.socket, first, second)


def test_cached_value_ends(redis_server: RedisServer) -> None:
    """In memory and in Redis."""

    async def work(node: Node) -> None:
        await node.call("cache.set", key="a", value=1, ttl_s=0.05)

        async def is_gone() -> bool:
            return not (await node.call("cache.get", key="a"))["found"]

        await wait_until(is_gone)

    run(redis_server.socket, work)


@pytest.mark.parametrize(
    "body",
    [
        {"key": "", "value": 1},
        {"key": "k" * 257, "value": 1},
        {"key": "k", "value": b"x" * VALUE_BYTES_MAX},
        {"key": "k", "value": 1, "ttl_s": 0},
        {"key": "k", "value": 1, "ttl_s": 86_401},
    ],
)
def test_limits_hold(redis_server: RedisServer, body: dict[str, Any]) -> None:
    """Keys, values and times outside the limits are the caller's error."""

    async def work(node: Node) -> None:
        with pytest.raises(CacheLimitError):
            await node.call("cache.set", **body)

    run(redis_server.socket, work)


def test_without_redis_the_cache_is_degraded_and_works() -> None:
    """It comes up at once, says why, and no caller gets an error."""

    async def work(node: Node) -> None:
        assert node.context.health.state is HealthState.DEGRADED
        assert "No such file" in node.context.health.reason
        assert (await node.service.check()).state is HealthState.DEGRADED
        node.journal.add("component:state", "api", state="healthy")
        await node.call("cache.set", key="a", value=1)
        assert (await node.call("cache.get", key="a"))["value"] == 1
        assert (await node.call("cache.delete", key="a"))["is_deleted"]
        assert not (await node.call("cache.status"))["is_connected"]

    started = time.monotonic()
    node = run("/tmp/nc-no-such-directory/redis.sock", work)

    assert time.monotonic() - started < 2.0
    assert node.context.events[0][0] == "cache:lost"


def test_wrong_password_is_degraded_with_the_servers_sentence(redis_server: RedisServer) -> None:
    """A setting that is wrong does not stop the node either, and shows no password."""
    with client(redis_server) as admin:
        admin.config_set("requirepass", "right")
    try:

        async def work(node: Node) -> None:
            assert node.context.health.state is HealthState.DEGRADED
            assert "password" in node.context.health.reason
            assert "wrong-one" not in node.context.health.reason

        run(redis_server.socket, work, password="wrong-one")

        async def right(node: Node) -> None:
            assert node.context.health.state is HealthState.HEALTHY

        run(redis_server.socket, right, password="right")
    finally:
        with redis.Redis(unix_socket_path=redis_server.socket, password="right") as admin:
            admin.config_set("requirepass", "")


def test_killed_redis_is_noticed_used_again_and_told_everything(
    redis_server: RedisServer,
) -> None:
    """Degraded without an error to anybody; the new Redis has status and cache as memory has."""

    async def work(node: Node) -> None:
        node.journal.add("component:state", "api", state="starting")
        await node.call("cache.set", key="a", value=1)
        await node.call("cache.set", key="gone", value=1)
        await asyncio.to_thread(redis_server.kill)
        await node.wait_health(HealthState.DEGRADED)
        node.journal.add("component:state", "api", state="healthy")
        await node.call("cache.set", key="a", value=2)
        assert await node.call("cache.delete", key="gone") == {"is_deleted": True}

        await asyncio.to_thread(redis_server.start)
        await node.wait_health(HealthState.HEALTHY)

        with client(redis_server) as reader:
            components = reader.hgetall("novacron:node:n1:components")
            assert json.loads(components["api"])["state"] == "healthy"
            assert len(reader.keys("novacron:node:n1:cache:*")) == 1
        assert (await node.call("cache.get", key="a"))["value"] == 2

    node = run(redis_server.socket, work)

    assert [name for name, _ in node.context.events] == ["cache:lost", "cache:recovered"]


def test_what_was_deleted_while_redis_was_out_of_reach_does_not_come_back(
    redis_server: RedisServer,
) -> None:
    """A Redis that kept its keys while it was away is not believed."""

    async def work(node: Node) -> None:
        await node.call("cache.set", key="a", value="old")
        with client(redis_server) as admin:
            admin.config_set("maxmemory", "1mb")  # writes fail from now on, reads do not
            await node.call("cache.set", key="b", value=1)
            await node.wait_health(HealthState.DEGRADED)
            await node.call("cache.delete", key="a")
            admin.config_set("maxmemory", "0")
            await node.wait_health(HealthState.HEALTHY)
            assert admin.keys("novacron:node:n1:cache:*:a")

        assert not (await node.call("cache.get", key="a"))["found"]
        assert (await node.call("cache.get", key="b"))["value"] == 1

    run(redis_server.socket, work)


def test_redis_that_hangs_costs_a_caller_the_timeout_once(redis_server: RedisServer) -> None:
    """Then it counts as lost, and calls are answered from memory at once."""

    async def work(node: Node) -> None:
        with client(redis_server) as admin:
            admin.execute_command("CLIENT", "PAUSE", "1500", "ALL")
        started = time.monotonic()
        await node.call("cache.set", key="a", value=1)
        first_s = time.monotonic() - started
        await node.wait_health(HealthState.DEGRADED)
        started = time.monotonic()
        assert (await node.call("cache.get", key="a"))["value"] == 1
        await node.call("cache.set", key="b", value=1)

        assert first_s < 1.0
        assert time.monotonic() - started < 0.1
        await node.wait_health(HealthState.HEALTHY)

    run(redis_server.socket, work, timeout_s=0.3)
