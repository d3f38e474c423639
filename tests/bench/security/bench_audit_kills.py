"""kill -9 of the security process and of PostgreSQL under audit load, a thousand times.

What counts is what is lost: records that were acknowledged, or durably in the spool, and are not
in the chain afterwards; and gaps in the chain. Fewer kills are made where they take too long; the
figures say how many there were.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.bench.figures import Benchmark, Figure, MeasurementError, note
from tests.fixtures.audit_kills import KillBench
from tests.fixtures.fix_postgres import PostgresDatabase, PostgresServer, postgres_programs

KILLS = 1000
TIME_MAX_S = 600.0
_NAME = "kills"


def measure(runs: int) -> Iterator[Figure]:
    """One series of kills, whatever the number of runs."""
    programs = postgres_programs()
    if programs is None:
        raise MeasurementError("PostgreSQL's programs are not installed")
    server = PostgresServer(programs)
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {_NAME}".encode())
        with tempfile.TemporaryDirectory(prefix="novacron-bench-") as directory:
            yield from _measure(PostgresDatabase(server, _NAME), Path(directory))
    finally:
        server.remove()
    assert runs >= 1


def _measure(database: PostgresDatabase, state: Path) -> Iterator[Figure]:
    started_s = time.monotonic()

    def go_on(kills: int) -> bool:
        if kills % 50 == 0:
            note(f"  {kills} rounds in {time.monotonic() - started_s:.0f} s")
        return kills < KILLS and time.monotonic() - started_s < TIME_MAX_S

    found = KillBench(database, state, seed=4).run(go_on)
    assert found.report is not None
    report = found.report
    gaps = int(report.first_bad is not None) + report.head - report.records
    details = {
        "kills": dict(found.kills),
        "acknowledged": found.acknowledged,
        "spooled": found.spooled,
        "records": report.records,
        "seconds": round(time.monotonic() - started_s),
    }
    for name, value in (
        ("audit_kills_lost", len(found.lost)),
        ("audit_kills_doubled", len(found.doubled)),
        ("audit_kills_gaps", gaps),
    ):
        yield Figure(name=name, value=value, unit="records", limit=0.0, details=details)


BENCHMARK = Benchmark(
    figures=("audit_kills_lost", "audit_kills_doubled", "audit_kills_gaps"),
    summary=f"{KILLS} kills of the security process and of PostgreSQL under audit load",
    runs=1,
    measure=measure,
)
