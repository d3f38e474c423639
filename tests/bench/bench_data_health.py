"""What nodes know of each other and how soon; what a cached value costs.

Two real database services on one PostgreSQL, each in a process of its own: a component of node a
changes, and node b's watch says so. Measured from the record in a's journal to the answer in b.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import psycopg
import structlog

from protocol.records import Plain
from tests.bench.figures import Benchmark, Figure, MeasurementError, spread
from tests.fixtures.cache_nodes import CacheNode
from tests.fixtures.cache_nodes import running as caches_running
from tests.fixtures.data_nodes import DataNode, running
from tests.fixtures.fix_postgres import PostgresDatabase, PostgresServer, postgres_programs
from tests.fixtures.fix_redis import RedisServer

HEALTH_LIMIT_MS = 50.0
CHANGES = 200
# Changes in a node come alone or in a burst, not evenly; this keeps one from meeting the next.
PAUSE_S = 0.01
GETS = 2000
CHECKPOINTS = 200
_START_S = 20.0


def measure(runs: int) -> Iterator[Figure]:
    """The changes, then checkpoints, then the cache."""
    # The standard output stream is the figures'.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with _postgres() as database:
        for figure in asyncio.run(_measure_database(database, runs)):
            yield figure
    with _redis() as server:
        for figure in asyncio.run(_measure_cache(server, runs)):
            yield figure


async def _measure_database(database: PostgresDatabase, runs: int) -> list[Figure]:
    node = DataNode(database, "a")
    async with running(node):
        node.journal.add("init:complete")
        watcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.data_watcher", database.host, database.name),
            stdout=subprocess.PIPE,
        )
        try:
            seen_ms = await _changes(node, watcher, runs)
        finally:
            watcher.kill()
            await watcher.wait()
        saved_ms = await _checkpoints(node, runs)
    return [
        Figure(
            name="data_health_change_ms",
            value=statistics.median(seen_ms),
            unit="ms",
            limit=HEALTH_LIMIT_MS,
            median_of=len(seen_ms),
            details={"seen_by_another_node": spread(seen_ms), "over_limit": _over(seen_ms)},
        ),
        Figure(
            name="data_checkpoint_save_ms",
            value=statistics.median(saved_ms),
            unit="ms",
            limit=None,
            median_of=len(saved_ms),
            details={"state_bytes": 4096, "fsync": False, **spread(saved_ms)},
        ),
    ]


async def _changes(node: DataNode, watcher: asyncio.subprocess.Process, runs: int) -> list[float]:
    assert watcher.stdout is not None
    seen_ms = []
    for number in range(CHANGES * runs):
        reason = f"change-{number}"
        await asyncio.sleep(PAUSE_S)
        changed_s = time.monotonic()
        node.journal.add("component:state", "core/vm", state="degraded", reason=reason)
        async with asyncio.timeout(_START_S):
            while True:
                line = (await watcher.stdout.readline()).decode().split()
                if not line:
                    raise MeasurementError("the watching process ended")
                if reason in line[1:]:
                    break
        seen_ms.append((float(line[0]) - changed_s) * 1000)
    return seen_ms[5:]  # the first ones open connections


async def _checkpoints(node: DataNode, runs: int) -> list[float]:
    body: Plain = {"component": "vm", "version": 1, "state": b"x" * 4096}
    return await _times_ms(lambda: node.call("checkpoint.save", body), CHECKPOINTS * runs)


async def _measure_cache(server: RedisServer, runs: int) -> list[Figure]:
    node = CacheNode("a", host=server.socket)
    async with caches_running(node):
        await node.wait_listening()
        await node.call("set", key="local", value="v" * 100, ttl_s=3600)
        # What an earlier process of the node left in Redis is not in this one's memory.
        store = node.service._store
        await node.call("set", key="redis", value="v" * 100, ttl_s=3600)
        store._local.delete("n:redis")
        times_ms = {
            key: await _times_ms(lambda key=key: node.call("get", key=key), GETS * runs)
            for key in ("local", "redis")
        }
    return [
        Figure(
            name=f"data_cache_hit_{key}_ms",
            value=statistics.median(found),
            unit="ms",
            limit=None,
            median_of=len(found),
            details={"value_bytes": 100, **spread(found)},
        )
        for key, found in times_ms.items()
    ]


async def _times_ms(work: Callable[[], Awaitable[object]], count: int) -> list[float]:
    found = []
    for _ in range(count):
        started_s = time.perf_counter()
        await work()
        found.append((time.perf_counter() - started_s) * 1000)
    return found


def _over(values_ms: list[float]) -> int:
    return sum(value > HEALTH_LIMIT_MS for value in values_ms)


@contextmanager
def _postgres() -> Iterator[PostgresDatabase]:
    programs = postgres_programs()
    if programs is None:
        raise MeasurementError("PostgreSQL's programs are not installed")
    server = PostgresServer(programs)
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE bench")
        yield PostgresDatabase(server, "bench")
    finally:
        server.remove()


@contextmanager
def _redis() -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        raise MeasurementError("redis-server is not installed")
    server = RedisServer(program)
    try:
        server.start()
        yield server
    finally:
        server.remove()


BENCHMARK = Benchmark(
    figures=(
        "data_health_change_ms",
        "data_checkpoint_save_ms",
        "data_cache_hit_local_ms",
        "data_cache_hit_redis_ms",
    ),
    summary="a change seen by another node, a checkpoint saved, a cached value read",
    runs=1,
    measure=measure,
)
