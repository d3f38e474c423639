"""Verification of a million audit records: in PostgreSQL, and in the files beside it.

The records are made with the node's own functions, written by COPY, and signed as a node under
load signs them: a checkpoint every thousand records.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg

from services.data import migrations
from services.data.connecting import connect
from services.data.model import PostgresSettings
from services.security import audit_rows
from services.security.audit import GENESIS, AuditEvent, AuditRecord, chain_event
from services.security.audit_checkpoint import RECORDS, Checkpoint, sign_checkpoint
from services.security.audit_lines import encode, record_map
from services.security.audit_offline import verify_files
from services.security.audit_verify import verify_stored
from services.security.keyring import derive_keyring
from services.security.model import VerifyReport, VerifyRequest
from tests.bench.figures import Benchmark, Figure, MeasurementError, note
from tests.fixtures.fix_postgres import PostgresServer, postgres_programs

COUNT = 1_000_000
LIMIT_S = 20.0
DAY = 20_000
NODE = "bench"
SIGNER = derive_keyring(bytes(32)).signer
KEYS = {SIGNER.key_id: SIGNER.public_key}
_BLOCK = 20_000


def measure(runs: int) -> Iterator[Figure]:
    """Make the records once, verify them so many times."""
    programs = postgres_programs()
    if programs is None:
        raise MeasurementError("PostgreSQL's programs are not installed")
    server = PostgresServer(programs)
    try:
        server.start()
        with tempfile.TemporaryDirectory(prefix="novacron-bench-") as directory:
            yield from _measure(server, Path(directory), runs)
    finally:
        server.remove()


def _measure(server: PostgresServer, directory: Path, runs: int) -> Iterator[Figure]:
    settings = PostgresSettings(
        host=server.socket_dir, database="postgres", user="novacron", ssl_mode="prefer"
    )
    asyncio.run(_migrate(settings))
    path = directory / "audit.jsonl"
    with psycopg.connect(server.dsn()) as connection:
        checkpoints = _fill(connection, path)
    note(
        f"  {COUNT} records in {len(checkpoints)} blocks, {path.stat().st_size >> 20} MiB as lines"
    )
    stored, filed = [], []
    for _ in range(runs):
        with psycopg.connect(server.dsn()) as connection:
            started_s = time.perf_counter()
            report = verify_stored(
                connection, node_id=NODE, keys=KEYS, request=VerifyRequest(), time_s=3600.0
            )
            stored.append(time.perf_counter() - started_s)
        _require_good(report)
        started_s = time.perf_counter()
        report = verify_files([path], checkpoints, KEYS)
        filed.append(time.perf_counter() - started_s)
        _require_good(report)
    for name, found in (("audit_verify_s", stored), ("audit_verify_file_s", filed)):
        yield Figure(
            name=name,
            value=sorted(found)[len(found) // 2],
            unit="s",
            limit=LIMIT_S,
            median_of=runs,
            details={"records": COUNT, "checkpoints": len(checkpoints), "all_s": list(found)},
        )


async def _migrate(settings: PostgresSettings) -> None:
    connection = await connect(settings, application="bench")
    await migrations.migrate(connection, migrations.load())
    await connection.close()


def _fill(connection: psycopg.Connection[tuple[object, ...]], path: Path) -> list[Checkpoint]:
    connection.execute("SELECT audit_partition(%s, %s)", [NODE, audit_rows.as_date(DAY)])
    columns = audit_rows.INSERT.partition("(")[2].partition(")")[0]
    checkpoints: list[Checkpoint] = []
    records = _records()
    copy = f"COPY audit_log ({columns}) FROM STDIN".encode()
    with path.open("wb") as lines, connection.cursor() as cursor:
        while block := list(itertools.islice(records, _BLOCK)):
            with cursor.copy(copy) as copied:
                for record in block:
                    copied.write_row(audit_rows.insert_values(record))
            lines.writelines(encode(record_map(record)) for record in block)
            for record in block[RECORDS - 1 :: RECORDS]:
                checkpoints.append(_checkpoint(record, checkpoints[-1:]))
    for checkpoint in checkpoints:
        values = audit_rows.statement_values(checkpoint)
        connection.execute(audit_rows.INSERT_CHECKPOINT.encode(), values)
    connection.execute(
        audit_rows.UPSERT_HEAD.encode(), audit_rows.statement_values(checkpoints[-1])
    )
    connection.commit()
    return checkpoints


def _records() -> Iterator[AuditRecord]:
    event = AuditEvent(
        time_us=1_700_000_000_000_000, actor="operator/alice", action="call:vm-start",
        subject="core/vm", outcome="requested", boot_id="spool:0123456789abcdef", journal_seq=1,
    )  # fmt: skip
    prev_hash = GENESIS
    for seq in range(1, COUNT + 1):
        fields = {"process": "core", "correlation": f"{seq:016x}", "vm": f"web-{seq % 100}"}
        numbered = replace(event, journal_seq=seq, time_us=event.time_us + seq, fields=fields)
        record = chain_event(numbered, seq=seq, node_id=NODE, prev_hash=prev_hash, day=DAY)
        prev_hash = record.hash
        yield record


def _checkpoint(record: AuditRecord, before: list[Checkpoint]) -> Checkpoint:
    return sign_checkpoint(
        Checkpoint(
            node_id=NODE,
            seq=record.seq,
            hash=record.hash,
            day=DAY,
            time_us=record.event.time_us,
            count=record.seq,
            previous=before[0].digest() if before else GENESIS,
        ),
        SIGNER,
    )


def _require_good(report: VerifyReport) -> None:
    if report.first_bad is not None or report.records != COUNT:
        raise MeasurementError(f"the chain does not verify: {report}")


BENCHMARK = Benchmark(
    figures=("audit_verify_s", "audit_verify_file_s"),
    summary=f"verification of {COUNT:,} audit records, in the database and in files",
    runs=3,
    measure=measure,
)
