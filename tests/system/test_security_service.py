"""The security process over a real PostgreSQL: what it records, and what a loss costs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from protocol.errors import NovacronError, RemoteProtocolError
from protocol.messages.health import HealthState
from services.security import audit_part
from services.security.audit_part import METRIC_RECORDS
from services.security.errors import AuditDisabledError, AuditRefusedError
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.fixtures.memory_journal import MemoryJournal
from tests.system.security_node import (
    Node,
    has_rows,
    migrate,
    node,
    postgres_settings,
    rows,
    run,
    tamper,
    until,
)

pytestmark = [pytest.mark.postgres, pytest.mark.process]


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with the platform's schema."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    return postgres_database


def test_lifecycle_actions_are_recorded_once(database: PostgresDatabase, tmp_path: Path) -> None:
    """One signed record per action, through a restart of the process in between."""

    async def scenario() -> None:
        journal = MemoryJournal()
        postgres = postgres_settings(database)
        journal.add("init:config-loaded", "novacron")
        journal.add("component:state", "core/vm", state="starting")
        journal.add("component:state", "core/vm", state="healthy")
        async with node(tmp_path, postgres, journal) as first:
            await until(lambda: has_rows(database, 2))
            journal.add("component:exited", "core/vm", reason="killed")
            await until(lambda: has_rows(database, 3))
            assert first.context.health.state is HealthState.STARTING  # the runtime's to change
        journal.add("operator:restart", "core", caller="operator", id="vm")
        async with node(tmp_path, postgres, journal) as second:
            await until(lambda: has_rows(database, 4))
            report = await second.call("audit.verify")

        assert report["first_bad"] is None
        assert report["records"] == 6  # two audit:opened
        assert rows(database) == [
            ("init:config-loaded", "novacron", "novacron", "success"),
            ("component:healthy", "core/vm", "novacron", "success"),
            ("component:exited", "core/vm", "novacron", "failure"),
            ("operator:restart", "vm", "operator", "success"),
        ]
        lines = (tmp_path / "security/audit.jsonl").read_text().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4, 5, 6]

    run(scenario())


def test_callers_are_recorded_as_the_runtime_names_them(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """The actor comes from the connection and not from the body."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)) as found:
            reply = await found.call(
                "audit.append", {"action": "vm:defined", "subject": "web", "fields": {"cpus": 2}}
            )
            denied = {"action": "vm:deleted", "subject": "web", "outcome": "denied"}
            await found.call("audit.append", denied, caller="operator")

        assert reply == {"seq": 2}
        assert rows(database) == [
            ("vm:defined", "web", "core/vm", "success"),
            ("vm:deleted", "web", "operator", "denied"),
        ]

    run(scenario())


REFUSED = [
    ({"action": "operator:stop", "subject": "x"}, AuditRefusedError),
    ({"action": "no action", "subject": "x"}, AuditRefusedError),
    ({"action": "vm:started", "subject": "x" * 513}, AuditRefusedError),
    ({"action": "vm:started", "subject": "x", "actor": "operator"}, RemoteProtocolError),
    ({"action": "vm:started", "subject": "x", "outcome": "maybe"}, RemoteProtocolError),
    ({"action": "vm:started"}, RemoteProtocolError),
    (None, RemoteProtocolError),
]


def test_bad_appends_are_refused(database: PostgresDatabase, tmp_path: Path) -> None:
    """What breaks the form or claims to be the journal's leaves no record."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)) as found:
            for body, error in REFUSED:
                with pytest.raises(error):
                    await found.call("audit.append", body)

        assert rows(database) == []

    run(scenario())


def test_status_tells_keys_and_counts(database: PostgresDatabase, tmp_path: Path) -> None:
    """The status names the public key, by which anybody can verify the records."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)) as found:
            await found.call("audit.append", {"action": "vm:started", "subject": "x"})
            status = await found.call("security.status")

        assert status["cipher"] == "AES-256-GCM"
        assert status["audit"]["enabled"]
        assert (status["audit"]["appended"], status["audit"]["head"]) == (2, 2)
        assert len(bytes.fromhex(status["audit"]["public_key"])) == 32
        samples = [it.value for it in found.context.samples if it.name == METRIC_RECORDS]
        assert sum(samples) == 2

    run(scenario())


def test_a_check_proves_cipher_and_log(
    database: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check appends when one is due, and finds a newest record that was changed."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)) as found:
            assert (await found.service.check()).state is HealthState.HEALTHY
            monkeypatch.setattr(audit_part, "CHECK_APPEND_PERIOD_S", 0.0)
            assert (await found.service.check()).state is HealthState.HEALTHY
            monkeypatch.undo()
            with database.connect() as connection:
                count = connection.execute("SELECT count(*) FROM audit_log").fetchone()
            tamper(database, "UPDATE audit_log SET actor = 'x' WHERE seq = 2")

            health = await found.service.check()

            assert count == (2,)
            assert health.state is HealthState.UNHEALTHY
            assert health.reason == "audit record 2: its content was changed after it was written"

    run(scenario())


def test_a_lost_database_costs_no_record(database: PostgresDatabase, tmp_path: Path) -> None:
    """Without the database the process is unhealthy and keeps events; with it all are chained."""

    async def scenario() -> None:
        journal = MemoryJournal()
        async with node(tmp_path, postgres_settings(database), journal) as found:
            database.server.stop()
            try:
                reply = await found.call("audit.append", {"action": "vm:started", "subject": "x"})
                journal.add("component:state", "data", state="unhealthy", reason="gone")
                waiting = tmp_path / "security/audit.waiting.jsonl"
                await until(lambda: _holds(waiting, "component:unhealthy"))
                unhealthy = found.context.health
                checked = await found.service.check()
                with pytest.raises(NovacronError) as error:
                    await found.call("audit.verify")
            finally:
                database.server.start()
            await until(lambda: has_rows(database, 2))
            await until(lambda: _is_healthy(found))
            report = await found.call("audit.verify")

        assert reply == {"seq": None}
        assert unhealthy.state is checked.state is HealthState.UNHEALTHY
        assert "audit database" in unhealthy.reason
        assert error.value.retryable
        assert (report["first_bad"], report["records"]) == (None, 3)
        assert waiting.read_bytes() == b""
        assert [row[0] for row in rows(database)] == ["vm:started", "component:unhealthy"]

    run(scenario())


async def _holds(path: Path, text: str) -> bool:
    return text in path.read_text()  # noqa: ASYNC240 - a few lines


async def _is_healthy(found: Node) -> bool:
    return found.context.health.state is HealthState.HEALTHY


def test_a_restart_without_database_keeps_what_waited(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """Events of a process that ended while the database was away are chained by the next one."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)) as first:
            database.server.stop()
            try:
                body = {"action": "vm:started", "subject": "x"}
                assert await first.call("audit.append", body) == {"seq": None}
                await first.service.terminate()
            finally:
                database.server.start()
        async with node(tmp_path, postgres_settings(database)) as second:
            report = await second.call("audit.verify")

        assert report["first_bad"] is None
        assert [row[0] for row in rows(database)] == ["vm:started"]

    run(scenario())


def test_lost_journal_records_are_recorded(database: PostgresDatabase, tmp_path: Path) -> None:
    """Records that the journal dropped before they were read leave a record of their number."""

    async def scenario() -> None:
        journal = MemoryJournal()
        for _ in range(7):
            journal.add("vm:started")
        journal.forget()
        journal.add("init:complete", "novacron")
        async with node(tmp_path, postgres_settings(database), journal) as found:
            await until(lambda: has_rows(database, 2))
            status = await found.call("security.status")

        assert status["audit"]["lost"] == 7
        assert rows(database)[0][:2] == ("audit:journal-lost", "security")

    run(scenario())


def test_a_cut_database_is_told_at_start_and_in_verification(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """Removed newest records, which leave a whole chain, are told by the node's own file."""

    async def scenario() -> None:
        postgres = postgres_settings(database)
        async with node(tmp_path, postgres) as found:
            await found.call("audit.append", {"action": "vm:started", "subject": "x"})
            tamper(database, "DELETE FROM audit_log WHERE seq = 2")
            report = await found.call("audit.verify")
        async with node(tmp_path, postgres) as again:
            health = again.context.health
            assert (await again.service.check()).state is HealthState.DEGRADED

        assert report["first_bad"]["seq"] == 2
        assert found.context.events[-1][0] == "audit:bad-record"
        assert health.state is HealthState.DEGRADED
        assert "cut or restored" in health.reason
        assert rows(database) == [("audit:mismatch", "security", "security", "failure")]

    run(scenario())


def test_a_record_that_the_file_lacks_is_copied(database: PostgresDatabase, tmp_path: Path) -> None:
    """A crash between database and file is mended at the next start."""

    async def scenario() -> None:
        postgres = postgres_settings(database)
        async with node(tmp_path, postgres) as found:
            await found.call("audit.append", {"action": "vm:started", "subject": "x"})
        copy = tmp_path / "security/audit.jsonl"
        copy.write_bytes(copy.read_bytes()[:-40])  # half of the newest line is missing
        async with node(tmp_path, postgres) as again:
            health = again.context.health

        seqs = [json.loads(line)["seq"] for line in copy.read_text().splitlines()]
        assert seqs == [1, 2, 3]
        assert health.state is HealthState.STARTING

    run(scenario())


def test_without_audit_there_is_no_log_and_nobody_is_told_otherwise(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """Where the audit is switched off keys and cipher work, and an append is an error."""

    async def scenario() -> None:
        found = Node(tmp_path, postgres_settings(database))
        found.context._settings["audit_enabled"] = False
        await found.service.init(found.context)

        with pytest.raises(AuditDisabledError):
            await found.call("audit.append", {"action": "vm:started", "subject": "x"})
        status = await found.call("security.status")
        health = await found.service.check()
        await found.service.terminate()

        assert not status["audit"]["enabled"]
        assert health.state is HealthState.HEALTHY
        assert not (tmp_path / "security/audit.jsonl").exists()

    run(scenario())
