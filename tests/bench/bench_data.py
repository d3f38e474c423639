"""A query through the pool beside the same query on a bare psycopg connection.

Single queries of both take turns, so that whatever else the machine does meets them alike. The
figure is the median over the rounds of the ratio of the two medians of a round.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import psycopg

from services.data.model import PostgresSettings
from services.data.postgres import Connection, Database
from tests.bench.figures import Benchmark, Figure, MeasurementError, spread
from tests.fixtures.fix_postgres import PostgresServer, postgres_programs

QUERIES = 200
WARM_UP_QUERIES = 200
# Bare psycopg takes at most nine tenths of what the pool takes.
LIMIT = round(1 / 0.9, 3)
_ROWS = 1000
_QUERY = "SELECT id, name, value FROM bench WHERE id = %s"

Query = Callable[[int], Awaitable[object]]


def measure(runs: int) -> Iterator[Figure]:
    """Both, in turns, against a server of the benchmark's own."""
    programs = postgres_programs()
    if programs is None:
        raise MeasurementError("PostgreSQL is not installed")
    server = PostgresServer(programs)
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(
                "CREATE TABLE bench AS SELECT g AS id, 'name ' || g AS name, random() AS value"
                f" FROM generate_series(1, {_ROWS}) g"
            )
            admin.execute("ALTER TABLE bench ADD PRIMARY KEY (id)")
            admin.execute("ANALYZE bench")
        yield asyncio.run(_compare(server, runs))
    finally:
        server.remove()


async def _compare(server: PostgresServer, runs: int) -> Figure:
    settings = PostgresSettings(host=server.socket_dir, database="postgres", pool_size=5)
    database = Database(settings, application="bench", timeout_s=10.0)
    await database.connect(prepare=_nothing, on_failure=_unheard)
    bare = await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True)

    async def through_pool(number: int) -> object:
        async with database.session("bench") as connection:
            return await (await connection.execute(_QUERY, [number])).fetchall()

    async def on_bare(number: int) -> object:
        return await (await bare.execute(_QUERY, [number])).fetchall()

    await _round_s((through_pool, on_bare), WARM_UP_QUERIES)
    ours_s, bare_s = [], []
    for _ in range(runs):
        ours, raw = await _round_s((through_pool, on_bare), QUERIES)
        ours_s.append(ours)
        bare_s.append(raw)
    await bare.close()
    await database.close()
    ratios = [ours / raw for ours, raw in zip(ours_s, bare_s, strict=True)]
    ratio = statistics.median(ratios)
    return Figure(
        name="data_query_ratio",
        value=ratio,
        unit="ratio",
        limit=LIMIT,
        median_of=runs,
        details={
            "queries_per_round": QUERIES,
            "pool_us": round(statistics.median(ours_s) * 1e6, 1),
            "bare_us": round(statistics.median(bare_s) * 1e6, 1),
            "share_of_bare_speed": round(1 / ratio, 3),
            "ratios": spread(ratios),
        },
    )


async def _round_s(queries: Sequence[Query], count: int) -> list[float]:
    """The medians of some queries, which take turns."""
    found: list[list[float]] = [[] for _ in queries]
    for number in range(count):
        for query, durations in zip(queries, found, strict=True):
            begun_s = time.perf_counter()
            await query(number % _ROWS + 1)
            durations.append(time.perf_counter() - begun_s)
    return [statistics.median(durations) for durations in found]


async def _nothing(_connection: Connection) -> None:
    return


async def _unheard(_reason: str, _pause_s: float) -> None:
    return


BENCHMARK = Benchmark(
    figures=("data_query_ratio",),
    summary="a query through the pool, beside one on a bare psycopg connection",
    runs=41,
    measure=measure,
)
