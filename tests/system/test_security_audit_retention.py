"""Retention of the audit log: whole days go under a signed anchor, whatever stops it half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import structlog

from services.data.connecting import connect
from services.security import audit_prune, audit_retention
from services.security.audit_checkpoint import ANCHOR
from services.security.audit_file import AUDIT_FILE_NAME, segments
from services.security.audit_log import AuditLog
from services.security.audit_offline import record_files, verify_files
from services.security.audit_reader import AuditReader
from services.security.audit_retention import Retention
from services.security.audit_statements import CHECKPOINT_FILE_NAME, read_statements
from services.security.audit_store import DAY_US, PostgresAuditStore
from services.security.errors import AuditPruneRefusedError
from services.security.model import Finding, Outcome, VerifyReport, VerifyRequest
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import SIGNER, migrate, postgres_settings, run, tamper

pytestmark = [pytest.mark.postgres, pytest.mark.process]
TODAY = 20_000
KEEP_DAYS = 3


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with the platform's schema."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    return postgres_database


class Bench:
    """A log with its retention, on a day that the test sets."""

    def __init__(self, database: PostgresDatabase, directory: Path, day: int) -> None:
        postgres = postgres_settings(database)
        self.day = day
        self.directory = directory
        self.store = PostgresAuditStore(
            lambda: connect(postgres, application="test"),
            node_id="node",
            signer=SIGNER,
            clock_us=self.clock_us,
        )
        self.log = AuditLog(
            store=self.store,
            signer=SIGNER,
            directory=directory,
            actor="security",
            log=structlog.get_logger(),
            on_change=lambda: None,
            on_appended=lambda _count: None,
        )
        self.reader = AuditReader(
            postgres, application="test reader", node_id="node", directory=directory
        )
        self.retention = Retention(
            log=self.log, reader=self.reader, signer=SIGNER, node_id="node",
            directory=directory, days=KEEP_DAYS, clock_us=self.clock_us,
        )  # fmt: skip

    def clock_us(self) -> int:
        """Noon of the day."""
        return self.day * DAY_US + DAY_US // 2

    async def record(self, count: int) -> None:
        """So many records."""
        for number in range(count):
            await self.log.record_durably("vm:started", Outcome.SUCCESS, {"n": number})

    async def verify(self) -> VerifyReport:
        """All that is there."""
        return await self.reader.verify(
            VerifyRequest(),
            keys=self.log.keys,
            witness=self.log.witness(),
            anchor=self.log.statements.anchor,
            time_s=60.0,
        )

    def verify_files(self) -> VerifyReport:
        """The files alone."""
        statements, unreadable = read_statements(self.directory / CHECKPOINT_FILE_NAME)
        assert unreadable == 0
        return verify_files(record_files(self.directory), statements, self.log.keys)


@asynccontextmanager
async def bench(
    database: PostgresDatabase, directory: Path, day: int = TODAY
) -> AsyncIterator[Bench]:
    """A log that is open and written to."""
    directory.chmod(0o700)  # noqa: ASYNC240 - a local directory
    found = Bench(database, directory, day)
    await found.log.open()
    writer = asyncio.create_task(found.log.recorder.run())
    try:
        yield found
    finally:
        await found.log.drain(5.0)
        writer.cancel()
        found.reader.close()
        await found.log.close()


async def fill(found: Bench, days: int, count: int = 4) -> None:
    """Records on so many days in a row, of which the log's own is the first."""
    for _ in range(days):
        await found.record(count)
        found.day += 1


def tables(database: PostgresDatabase) -> list[str]:
    """The days that have a table."""
    query = (
        "SELECT right(relname, 8) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid "
        "WHERE relkind = 'r'"
    )
    with database.connect() as connection:
        found = connection.execute(f"{query} ORDER BY 1".encode()).fetchall()
    return [str(row[0]) for row in found]


def test_old_days_are_dropped_and_the_rest_verifies(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """Tables, files and checkpoints of old days go; verification begins at the signed anchor."""

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 6)
            before = await found.verify()
            assert len(tables(database)) == 6

            assert await found.retention.prune() == ""

            report = await found.verify()
            filed = found.verify_files()
            assert (before.first_bad, report.first_bad, filed.first_bad) == (None, None, None)
            assert report.anchor == filed.anchor > 0
            assert report.records == report.head - report.anchor
            assert len(tables(database)) == 4  # three days, and the one of the pruning's record
            assert len(segments(tmp_path)) == 3
            statements, _ = read_statements(tmp_path / CHECKPOINT_FILE_NAME)
            assert [it.seq for it in statements if it.kind == ANCHOR] == [report.anchor]
            assert min(it.seq for it in statements) == report.anchor
            newest = await found.store.head()
            assert newest is not None
            assert newest.event.action == "audit:pruned"
            assert newest.event.fields["through_seq"] == report.anchor
            assert await found.retention.prune() == ""  # nothing more to do
            assert (await found.verify()).head == newest.seq

    run(scenario())


def test_pruning_goes_on_day_by_day_and_over_restarts(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """An anchor follows the one before, and counts on."""

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 5)
            await found.retention.prune()
            first = await found.store.anchor()
        async with bench(database, tmp_path, TODAY + 7) as found:
            await fill(found, 1)
            await found.retention.prune()
            second = await found.store.anchor()
            report = await found.verify()

        assert first is not None
        assert second is not None
        assert second.seq > first.seq
        assert second.count == second.seq
        assert second.previous == first.digest()
        assert report.first_bad is None

    run(scenario())


STOPS: list[tuple[str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("anchor", lambda patch: patch.setattr(audit_prune, "set_anchor", _stop)),
    ("drop", lambda patch: patch.setattr(audit_prune, "drop", _stop)),
    ("files", lambda patch: patch.setattr(audit_retention.audit_file, "prune", _stop)),
]


class _StoppedError(Exception):
    """The process was killed here."""


def _stop(*_given: object, **_named: object) -> None:
    raise _StoppedError


@pytest.mark.parametrize(("where", "stop"), STOPS, ids=[name for name, _stop in STOPS])
def test_a_crash_half_way_loses_nothing_and_is_finished(
    database: PostgresDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    stop: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """After any step the log verifies, and the next turn does what is left."""

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 6)
            stop(monkeypatch)
            with pytest.raises(_StoppedError):
                await found.retention.prune()
            monkeypatch.undo()
            halfway = await found.verify()
        async with bench(database, tmp_path, TODAY + 6) as again:
            at_start = await again.verify()
            await again.retention.prune()
            after = await again.verify()
            filed = again.verify_files()

        assert [it.first_bad for it in (halfway, at_start, after, filed)] == [None] * 4
        assert after.anchor > 0
        assert (halfway.anchor > 0) == (where != "anchor")
        assert len(tables(database)) == 4

    run(scenario())


def test_what_does_not_verify_is_not_dropped(database: PostgresDatabase, tmp_path: Path) -> None:
    """Old records that were tampered with are evidence, and stay."""

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 6)
            tamper(database, "UPDATE audit_log SET actor = 'x' WHERE seq = 3")

            with pytest.raises(AuditPruneRefusedError, match="record 3"):
                await found.retention.prune()

            assert len(tables(database)) == 6
            assert await found.store.anchor() is None

    run(scenario())


def test_a_day_in_use_is_dropped_later(
    database: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long reader holds the pruning up, and no writer."""
    monkeypatch.setattr(audit_prune, "LOCK_TIMEOUT_MS", 100)

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 6)
            with psycopg.connect(database.dsn) as reader:
                reader.execute("SELECT count(*) FROM audit_log")  # holds its locks
                held = await found.retention.prune()
                await found.record(1)
            later = await found.retention.prune()
            report = await found.verify()

        assert "could not be dropped yet" in held
        assert later == ""
        assert report.first_bad is None
        assert len(tables(database)) == 4

    run(scenario())


def test_a_dropped_day_without_anchor_is_found(database: PostgresDatabase, tmp_path: Path) -> None:
    """A day that somebody else drops is missing: only the node's signature makes it retention."""

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 4)
            with database.connect() as connection:
                name = connection.execute(
                    "SELECT inhrelid::regclass::text FROM pg_inherits "
                    "WHERE inhparent = 'audit_log'::regclass "
                    "ORDER BY 1 LIMIT 1"
                ).fetchone()
                assert name is not None
                connection.execute(f"DROP TABLE {name[0]}".encode())

            bad = (await found.verify()).first_bad

            assert bad is not None
            assert (bad.seq, bad.kind) == (1, Finding.DELETED)

    run(scenario())


def test_a_restored_database_is_told_until_it_is_accepted(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """Records that a backup lacks are missing until a person says that this is known."""

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 1)
            tamper(database, "CREATE TABLE backup AS SELECT * FROM audit_heads")
            await found.record(3)
            last = await found.store.head()
        assert last is not None
        tamper(
            database,
            "DELETE FROM audit_log WHERE seq > (SELECT seq FROM backup);"
            "DELETE FROM audit_checkpoints WHERE seq > (SELECT seq FROM backup);"
            "DELETE FROM audit_heads; INSERT INTO audit_heads SELECT * FROM backup;",
        )
        async with bench(database, tmp_path, TODAY + 1) as again:
            told = again.log.health().reason
            before = await again.verify()
            filed = again.verify_files()
            anchor = await again.retention.accept("operator/alice", "restored")
            await again.record(2)
            after = await again.verify()
            health = again.log.health().reason
            await again.retention.prune()
            pruned = await again.verify()

        assert "cut or restored" in told
        assert before.first_bad is not None
        assert (before.first_bad.seq, before.first_bad.kind) == (6, Finding.DELETED)
        assert (filed.first_bad, filed.records) == (None, before.head)  # the files have them all
        assert (after.first_bad, after.records, after.anchor) == (None, 2, anchor)
        assert (pruned.first_bad, health) == (None, "")

    run(scenario())


def test_files_are_begun_anew_each_day(database: PostgresDatabase, tmp_path: Path) -> None:
    """A file per day, the chain going on from each to the next, and the tail found in any."""

    async def scenario() -> None:
        async with bench(database, tmp_path) as found:
            await fill(found, 3)
            filed = found.verify_files()
        current = tmp_path / AUDIT_FILE_NAME
        current.rename(tmp_path / "audit.000000000099.jsonl")  # a crash between rename and begin
        async with bench(database, tmp_path, TODAY + 3) as again:
            report = await again.verify()

        assert (filed.first_bad, filed.records) == (None, 13)
        assert report.first_bad is None
        assert len(segments(tmp_path)) == 3

    run(scenario())
