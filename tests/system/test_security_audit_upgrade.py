"""The audit log of an older schema: converted in place, and every record still verifies."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from services.data import migrations
from services.data.connecting import connect
from services.security.audit import AuditRecord
from services.security.audit_rows import as_date
from services.security.audit_store import PostgresAuditStore
from services.security.audit_verify import verify_stored
from services.security.model import Finding, VerifyReport, VerifyRequest
from tests.fixtures.audit_chains import EVENT, KEYS, SIGNER, chain_1, events
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import postgres_settings, run, tamper

pytestmark = [pytest.mark.postgres, pytest.mark.process]
BEFORE = 7
_INSERT = (
    "INSERT INTO audit_log VALUES (%s, to_timestamp(%s), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, "
    "%s, %s)"
)


async def migrate_to(database: PostgresDatabase, version: int | None) -> None:
    """Bring a database to a version of the schema, or to the newest."""
    connection = await connect(postgres_settings(database), application="test")
    await migrations.migrate(connection, migrations.load()[:version])
    await connection.close()


def insert(database: PostgresDatabase, records: list[AuditRecord]) -> None:
    """Write records as the older program did."""
    with database.connect() as connection:
        for record in records:
            event = record.event
            connection.execute(
                _INSERT,
                [
                    record.seq, event.time_us / 1e6, record.node_id, event.actor, event.action,
                    event.subject, event.outcome, Jsonb(event.fields), event.boot_id,
                    event.journal_seq, record.prev_hash, record.hash, record.signature,
                    record.key_id,
                ],
            )  # fmt: skip


def verify(database: PostgresDatabase) -> VerifyReport:
    """The chain of the node of the chains' fixture."""
    with psycopg.connect(database.dsn) as connection:
        return verify_stored(connection, node_id="node", keys=KEYS, request=VerifyRequest())


def test_old_records_are_kept_and_gone_on_from(postgres_database: PostgresDatabase) -> None:
    """Records of version 1 survive the conversion with their signatures; new ones follow them."""
    database = postgres_database

    async def scenario() -> None:
        await migrate_to(database, BEFORE)
        old = chain_1(5)
        insert(database, old)

        await migrate_to(database, None)
        store = PostgresAuditStore(
            lambda: connect(postgres_settings(database), application="test"),
            node_id="node",
            signer=SIGNER,
        )
        before = verify(database)
        appended = await store.append([*events(2, first=4), *events(3, first=6)])
        report = verify(database)
        read = await store.page(first=1, last=None, limit=100)
        recorded = await store.recorded_to("boot")
        await store.close()

        assert (before.records, before.first_bad) == (5, None)
        assert (report.records, report.first_bad) == (8, None)
        assert [record.seq for record in appended.records] == [4, 5, 6, 7, 8]  # two were there
        assert [record.version for record in read] == [1] * 5 + [2] * 3
        assert [record.event for record in read[:5]] == [record.event for record in old]
        assert recorded == 8
        with database.connect() as connection:
            found = connection.execute("SELECT DISTINCT day FROM audit_log ORDER BY 1").fetchall()
        assert found[0][0] == as_date(EVENT.time_us // 86_400_000_000)

    run(scenario())


def test_tampering_with_old_records_is_found_after_the_conversion(
    postgres_database: PostgresDatabase,
) -> None:
    """The conversion neither mends nor hides anything."""
    database = postgres_database

    async def scenario() -> None:
        await migrate_to(database, BEFORE)
        insert(database, chain_1(5))
        with database.connect() as connection:
            connection.execute("UPDATE audit_log SET actor = 'x' WHERE seq = 3")
            connection.execute("UPDATE audit_log SET time = 'infinity' WHERE seq = 1")

        await migrate_to(database, None)
        first = verify(database).first_bad
        tamper(database, "DELETE FROM audit_log WHERE seq = 1")
        then = verify(database).first_bad

        assert first is not None
        assert (first.seq, first.kind) == (1, Finding.EDITED)
        assert then is not None
        assert then.seq == 2

    run(scenario())


def test_an_empty_log_is_converted(postgres_database: PostgresDatabase) -> None:
    """A database without records gets the new tables."""

    async def scenario() -> None:
        await migrate_to(postgres_database, BEFORE)
        await migrate_to(postgres_database, None)

        assert verify(postgres_database).records == 0

    run(scenario())
