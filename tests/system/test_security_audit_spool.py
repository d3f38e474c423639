"""Records of privileged calls: from the spool into the chain of a real PostgreSQL, each once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from services.security import audit_spool
from supervisor.guard.spool import Note
from supervisor.guard.spool_writer import SpoolWriter
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.fixtures.memory_journal import MemoryJournal
from tests.system.security_node import migrate, node, postgres_settings, rows, run, until

pytestmark = [pytest.mark.postgres, pytest.mark.process]


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with the platform's schema."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    return postgres_database


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of a state directory."""
    directory = tmp_path / "security/spool"
    directory.mkdir(mode=0o700, parents=True)
    directory.parent.chmod(0o700)
    return directory


def note(number: int, outcome: str = "requested") -> Note:
    """A privileged call."""
    return Note(
        time_us=1_700_000_000_000_000 + number, actor="operator/alice", action="start",
        subject=f"core/{number}", outcome=outcome, fields={"correlation": str(number)},
    )  # fmt: skip


def files(spool: Path) -> list[str]:
    """What is in the spool."""
    return sorted(path.name for path in spool.iterdir())


def test_what_is_spooled_is_chained_and_deleted(
    database: PostgresDatabase, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records from before and during the life of the process are chained, in order, once."""
    monkeypatch.setattr(audit_spool, "PERIOD_S", 0.1)

    async def scenario() -> None:
        journal = MemoryJournal()
        writer = SpoolWriter(spool, "core/vm")
        writer.write([note(1), note(2)], durably=True)
        async with node(tmp_path, postgres_settings(database), journal) as found:
            await until(lambda: _has(database, 2))
            writer.write([note(3, "success")], durably=False)
            await until(lambda: _has(database, 3))
            kept = files(spool)
            journal.add("operator:start", "core", caller="operator/alice", id="vm")
            writer.close()
            await until(lambda: _is_empty(spool))
            report = await found.call("audit.verify")

        assert len(kept) == 1  # while its writer holds it
        assert report["first_bad"] is None
        assert rows(database) == [
            ("call:start", "core/1", "operator/alice", "requested"),
            ("call:start", "core/2", "operator/alice", "requested"),
            ("call:start", "core/3", "operator/alice", "success"),
        ]  # and no second one from the journal

    run(scenario())


def test_a_restart_in_the_middle_chains_nothing_twice(
    database: PostgresDatabase, tmp_path: Path, spool: Path
) -> None:
    """What was chained and not deleted is known by its source."""

    async def scenario() -> None:
        writer = SpoolWriter(spool, "core/vm")
        writer.write([note(n) for n in range(1, 6)], durably=True)
        async with node(tmp_path, postgres_settings(database)):
            await until(lambda: _has(database, 5))
        writer.write([note(6)], durably=True)
        writer.close()
        async with node(tmp_path, postgres_settings(database)) as again:
            await until(lambda: _is_empty(spool))
            report = await again.call("audit.verify")

        assert [row[1] for row in rows(database)] == [f"core/{n}" for n in range(1, 7)]
        assert report["first_bad"] is None

    run(scenario())


def test_a_torn_record_is_told_and_those_before_it_are_chained(
    database: PostgresDatabase, tmp_path: Path, spool: Path
) -> None:
    """A process that died in the middle of a record costs that record, which nobody relied on."""

    async def scenario() -> None:
        writer = SpoolWriter(spool, "core/vm")
        writer.write([note(1), note(2)], durably=True)
        writer.close()
        path = next(spool.iterdir())  # noqa: ASYNC240 - a local directory
        path.write_bytes(path.read_bytes()[:-5])
        async with node(tmp_path, postgres_settings(database)):
            await until(lambda: _is_empty(spool))
            await until(lambda: _has(database, 2))

        assert [row[:2] for row in rows(database)] == [
            ("call:start", "core/1"),
            ("audit:spool-torn", "security"),
        ]

    run(scenario())


def test_damaged_and_foreign_files_are_kept_and_told(
    database: PostgresDatabase, tmp_path: Path, spool: Path
) -> None:
    """What is damaged in its middle, not ours, or no spool is told once and never deleted."""

    async def scenario() -> None:
        writer = SpoolWriter(spool, "core/vm")
        writer.write([note(n) for n in (1, 2, 3)], durably=True)
        writer.close()
        path = next(spool.iterdir())  # noqa: ASYNC240 - a local directory
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        (spool / "something").write_text("else")
        (spool / f"core-{'0' * 16}.spool").symlink_to("/etc/passwd")
        async with node(tmp_path, postgres_settings(database)):
            await until(lambda: _has(database, 4))

        found = [row[0] for row in rows(database)]
        assert sorted(found) == [
            "audit:spool-damaged", "audit:spool-foreign", "audit:spool-foreign", "call:start",
        ]  # fmt: skip
        assert len(files(spool)) == 3

    run(scenario())


def test_without_the_database_the_spool_goes_to_the_waiting_file(
    database: PostgresDatabase, tmp_path: Path, spool: Path
) -> None:
    """Spooled records are safe and leave the spool while the database is away."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)):
            database.server.stop()
            try:
                writer = SpoolWriter(spool, "core/vm")
                writer.write([note(1)], durably=True)
                writer.close()
                await until(lambda: _is_empty(spool))
                waiting = (tmp_path / "security/audit.waiting.jsonl").read_text()
            finally:
                database.server.start()
            await until(lambda: _has(database, 1))

        assert json.loads(waiting)["subject"] == "core/1"

    run(scenario())


def test_a_spool_that_nobody_empties_is_told(
    database: PostgresDatabase, tmp_path: Path, spool: Path
) -> None:
    """The health says so long before privileged calls are refused; what is read does not count."""

    async def scenario() -> None:
        now_s = 0.0
        writer = SpoolWriter(spool, "core/vm")
        async with node(tmp_path, postgres_settings(database)) as found:
            reader = found.service._audit._spool_reader
            assert reader is not None
            gauge = audit_spool.SpoolGauge(reader, lambda: now_s)
            writer.write([note(1)], durably=False)
            await until(lambda: _has(database, 1))
            await until(lambda: _nothing_waits(reader))
            now_s = audit_spool.STUCK_S
            read = gauge.trouble()
        writer.write([note(2)], durably=False)  # nobody is there any more
        first = gauge.trouble()
        now_s += audit_spool.STUCK_S
        later = gauge.trouble()

        assert (read, first) == ("", "")
        assert "does not shrink" in later
        writer.close()

    run(scenario())


async def _nothing_waits(reader: audit_spool.SpoolReader) -> bool:
    return reader.waiting_bytes() == 0


def test_the_trouble_degrades_the_health(
    database: PostgresDatabase, tmp_path: Path, spool: Path
) -> None:
    """A trouble of the log is the process's health until it is over."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)) as found:
            log = found.service._audit._log
            assert log is not None
            log.set_trouble("spool", "the audit spool does not shrink")
            degraded = found.context.health
            log.set_trouble("spool", "")

            assert degraded.state is HealthState.DEGRADED
            assert found.context.health.state is HealthState.HEALTHY

    assert spool.is_dir()
    run(scenario())


async def _has(database: PostgresDatabase, count: int) -> bool:
    return len(rows(database)) >= count


async def _is_empty(spool: Path) -> bool:
    return not files(spool)
