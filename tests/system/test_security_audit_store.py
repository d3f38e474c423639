"""The audit chain in a real PostgreSQL: round trips, processes at once, tampering."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
from dataclasses import replace
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.records import Plain
from services.data.model import PostgresSettings
from services.data.postgres import connect
from services.security.audit import GENESIS, AuditEvent, make_event
from services.security.audit_store import PostgresAuditStore
from services.security.audit_verify import verify_range
from services.security.errors import AuditSchemaError
from services.security.keyring import derive_keyring
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import DEADLINE_S, migrate, postgres_settings, run

pytestmark = [pytest.mark.postgres, pytest.mark.process]


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with the platform's schema."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    return postgres_database


SIGNER = derive_keyring(bytes(32)).signer
KEYS = {SIGNER.key_id: SIGNER.public_key}
EVENT = AuditEvent(
    time_us=1_700_000_000_123_457, actor="a", action="vm:started", subject="s",
    outcome="success", fields={"n": 1}, boot_id="b", journal_seq=1,
)  # fmt: skip


def store_of(postgres: PostgresSettings, node_id: str = "node") -> PostgresAuditStore:
    """A store with a connection of its own."""
    return PostgresAuditStore(
        lambda: connect(postgres, application="test"), node_id=node_id, signer=SIGNER
    )


def events(first: int, last: int, boot_id: str = "b") -> list[AuditEvent]:
    """Events with sources of their own."""
    return [replace(EVENT, journal_seq=n, boot_id=boot_id) for n in range(first, last + 1)]


def test_records_read_back_as_written(database: PostgresDatabase) -> None:
    """Every column survives the database, and the chain through them verifies."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        written = await store.append(events(1, 3))

        read = await store.page(first=1, last=None, limit=10)

        assert read == written
        assert [record.seq for record in read] == [1, 2, 3]
        assert read[0].prev_hash == GENESIS
        assert await store.head() == written[2]
        assert await store.before(3) == written[1]
        assert await store.before(1) is None
        assert await store.recorded_to("b") == 3
        assert await store.recorded_to("other") == 0
        await store.close()

    run(scenario())


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_any_fields_survive_jsonb(database: PostgresDatabase) -> None:
    """No plain value changes on its way through jsonb, so none breaks a signature."""
    with database.connect() as connection:

        @given(st.lists(st.dictionaries(st.text(), plain, max_size=4), min_size=40, max_size=40))
        @settings(
            max_examples=5, deadline=None, suppress_health_check=list(HealthCheck),
            database=None,
        )  # fmt: skip
        def survive(values: list[dict[str, Plain]]) -> None:
            made = [make_event(replace(EVENT, fields=fields)).fields for fields in values]
            texts = [json.dumps(fields) for fields in made]
            rows = connection.execute(
                "SELECT (t::jsonb)::text FROM unnest(%s::text[]) WITH ORDINALITY AS u(t, n) "
                "ORDER BY n", [texts],
            ).fetchall()  # fmt: skip
            back = [json.loads(row[0]) for row in rows]
            assert [json.dumps(f, sort_keys=True) for f in back] == [
                json.dumps(f, sort_keys=True) for f in made
            ]

        survive()


def test_an_event_is_chained_once(database: PostgresDatabase) -> None:
    """The same source is not recorded again, and its first record is returned."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        first = await store.append(events(1, 3))

        again = await store.append(events(2, 5))

        assert again[:2] == first[1:]
        assert [record.seq for record in again] == [2, 3, 4, 5]
        report = await verify_range(store, KEYS)
        assert (report.records, report.first_bad) == (5, None)
        await store.close()

    run(scenario())


def test_two_nodes_have_chains_of_their_own(database: PostgresDatabase) -> None:
    """Numbers are shared, chains are not: each node verifies its own."""

    async def scenario() -> None:
        postgres = postgres_settings(database)
        one, two = store_of(postgres, "one"), store_of(postgres, "two")
        for round_ in range(3):
            await one.append(events(round_, round_, "boot-1"))
            await two.append(events(round_, round_, "boot-2"))

        for store, seqs in ((one, [1, 3, 5]), (two, [2, 4, 6])):
            report = await verify_range(store, KEYS)
            assert (report.records, report.first_bad) == (3, None)
            page = await store.page(first=1, last=None, limit=10)
            assert [record.seq for record in page] == seqs
            await store.close()

    run(scenario())


def _append_many(postgres: PostgresSettings, boot_id: str, count: int, barrier: Barrier) -> None:
    async def work() -> None:
        store = store_of(postgres)
        await store.head()
        barrier.wait(DEADLINE_S)
        for n in range(1, count + 1):
            await store.append(events(n, n, boot_id))
        await store.close()

    asyncio.run(work())


def test_two_processes_at_once_keep_one_chain(database: PostgresDatabase) -> None:
    """The chain's head is serialised between processes: no fork, no gap, no loss."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    arguments = [(postgres_settings(database), f"boot-{n}", 60, barrier) for n in (1, 2)]
    processes = [context.Process(target=_append_many, args=args) for args in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)

    assert [process.exitcode for process in processes] == [0, 0]

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        report = await verify_range(store, KEYS)
        assert (report.records, report.first_bad) == (120, None)
        page = await store.page(first=1, last=None, limit=200)
        assert [record.seq for record in page] == [*range(1, 121)]
        boots = [record.event.boot_id for record in page]
        changes = sum(a != b for a, b in itertools.pairwise(boots))
        assert changes > 1, "the processes did not run at the same time"
        await store.close()

    run(scenario())


TAMPERED = [
    ("UPDATE audit_log SET subject = 'other' WHERE seq = 3", 3, "content was changed"),
    ("UPDATE audit_log SET outcome = 'nothing' WHERE seq = 3", 3, "content was changed"),
    ("UPDATE audit_log SET time = 'infinity' WHERE seq = 3", 3, "content was changed"),
    ("UPDATE audit_log SET fields = '[1]' WHERE seq = 3", 3, "content was changed"),
    (
        "UPDATE audit_log SET fields = to_jsonb((repeat('9', 5000))::numeric) WHERE seq = 3",
        3, "content was changed",
    ),
    ("UPDATE audit_log SET signature = '' WHERE seq = 3", 3, "signature is not by this node"),
    ("UPDATE audit_log SET key_id = 'x' WHERE seq = 3", 3, "content was changed"),
    ("UPDATE audit_log SET prev_hash = hash WHERE seq = 3", 3, "content was changed"),
    ("DELETE FROM audit_log WHERE seq = 3", 4, "removed, replaced or moved"),
    ("DELETE FROM audit_log WHERE seq = 1", 2, "removed, replaced or moved"),
    ("DELETE FROM audit_log WHERE seq < 4", 4, "removed, replaced or moved"),
    (
        ("UPDATE audit_log SET seq = -seq WHERE seq IN (2, 3);"
        "UPDATE audit_log SET seq = 5 + seq WHERE seq < 0"),
        2, "content was changed",
    ),
    ("UPDATE audit_log SET node_id = 'other' WHERE seq = 3", 4, "removed, replaced or moved"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "seq", "reason"), TAMPERED)
def test_tampering_is_found(
    database: PostgresDatabase, statement: str, seq: int, reason: str
) -> None:
    """Whatever is changed, removed or moved by SQL, the first bad record is named."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        await store.append(events(1, 5))
        with database.connect() as connection:
            connection.execute(statement)

        report = await verify_range(store, KEYS)

        assert report.first_bad is not None
        assert report.first_bad.seq == seq
        assert reason in report.first_bad.reason
        await store.close()

    run(scenario())


def test_a_missing_table_is_critical(database: PostgresDatabase) -> None:
    """Waiting does not bring a table."""

    async def scenario() -> None:
        with database.connect() as connection:
            connection.execute("ALTER TABLE audit_log RENAME TO elsewhere")
        store = store_of(postgres_settings(database))

        with pytest.raises(AuditSchemaError, match="audit_log"):
            await store.head()
        await store.close()

    run(scenario())
