"""The audit chain in a real PostgreSQL: round trips, processes at once, tampering."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from threading import Barrier

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.records import Plain
from services.data.model import PostgresSettings
from services.data.postgres import connect
from services.security import audit_verify
from services.security.audit import (
    GENESIS,
    AuditEvent,
    Row,
    content_hash,
    fields_text,
    make_event,
)
from services.security.audit_chain import Witness
from services.security.audit_rows import SELECT
from services.security.audit_store import PostgresAuditStore
from services.security.errors import AuditSchemaError
from services.security.keyring import derive_keyring
from services.security.model import Finding, VerifyRequest
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import (
    DEADLINE_S,
    migrate,
    postgres_settings,
    run,
    tamper,
    verify_database,
)

pytestmark = [pytest.mark.postgres, pytest.mark.process]


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with the platform's schema."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    return postgres_database


SIGNER = derive_keyring(bytes(32)).signer
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
        written = (await store.append(events(1, 3))).records

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


def test_any_fields_survive_json(database: PostgresDatabase) -> None:
    """No text of fields changes on its way through json, so none breaks a hash."""
    with database.connect() as connection:

        @given(st.lists(st.dictionaries(st.text(), plain, max_size=4), min_size=40, max_size=40))
        @settings(
            max_examples=5, deadline=None, suppress_health_check=list(HealthCheck),
            database=None,
        )  # fmt: skip
        def survive(values: list[dict[str, Plain]]) -> None:
            made = [make_event(replace(EVENT, fields=fields)).fields for fields in values]
            texts = [fields_text(fields) for fields in made]
            rows = connection.execute(
                "SELECT (t::json)::text FROM unnest(%s::text[]) WITH ORDINALITY AS u(t, n) "
                "ORDER BY n", [texts],
            ).fetchall()  # fmt: skip
            assert [row[0] for row in rows] == texts
            assert [fields_text(json.loads(text)) for text in texts] == texts

        survive()


def test_an_event_is_chained_once(database: PostgresDatabase) -> None:
    """The same source is not recorded again, and its first record is returned."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        first = (await store.append(events(1, 3))).records

        again = (await store.append(events(2, 5))).records

        assert again[:2] == first[1:]
        assert [record.seq for record in again] == [2, 3, 4, 5]
        report = await verify_database(database)
        assert (report.records, report.first_bad) == (5, None)
        await store.close()

    run(scenario())


def test_two_nodes_have_chains_of_their_own(database: PostgresDatabase) -> None:
    """Each node numbers and verifies its own."""

    async def scenario() -> None:
        postgres = postgres_settings(database)
        one, two = store_of(postgres, "one"), store_of(postgres, "two")
        for round_ in range(3):
            await one.append(events(round_, round_, "boot-1"))
            await two.append(events(round_, round_, "boot-2"))

        for store, name in ((one, "one"), (two, "two")):
            report = await verify_database(database, node_id=name)
            assert (report.records, report.first_bad) == (3, None)
            page = await store.page(first=1, last=None, limit=10)
            assert [record.seq for record in page] == [1, 2, 3]
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
        report = await verify_database(database)
        assert (report.records, report.first_bad) == (120, None)
        page = await store.page(first=1, last=None, limit=200)
        assert [record.seq for record in page] == [*range(1, 121)]
        boots = [record.event.boot_id for record in page]
        changes = sum(a != b for a, b in itertools.pairwise(boots))
        assert changes > 1, "the processes did not run at the same time"
        await store.close()

    run(scenario())


EDITED, REORDERED = Finding.EDITED, Finding.REORDERED
DELETED, TRUNCATED = Finding.DELETED, Finding.TRUNCATED
FORGED, MISSING = Finding.CHECKPOINT_FORGED, Finding.CHECKPOINT_MISSING
REWRITTEN = Finding.REWRITTEN
# What a user of the database does to five records with checkpoints at 1 and 5, and what is found.
TAMPERED = [
    ("UPDATE audit_log SET subject = 'other' WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET outcome = 'nothing' WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET time = 'infinity' WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET fields = '[1]' WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET fields = '{\"n\": 1}' WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET fields = repeat('9', 5000)::json WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET signature = 'x' WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET key_id = 'x' WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET version = 1 WHERE seq = 3", 3, EDITED),
    ("UPDATE audit_log SET prev_hash = hash WHERE seq = 3", 3, EDITED),
    ("DELETE FROM audit_log WHERE seq = 3", 3, DELETED),
    ("DELETE FROM audit_log WHERE seq = 1", 1, DELETED),
    ("DELETE FROM audit_log WHERE seq < 4", 1, DELETED),
    ("DELETE FROM audit_log WHERE seq = 5", 5, TRUNCATED),
    ("DELETE FROM audit_log WHERE seq > 2", 3, TRUNCATED),
    ("DELETE FROM audit_log", 1, TRUNCATED),
    (
        ("UPDATE audit_log SET seq = -seq WHERE seq IN (2, 3);"
        "UPDATE audit_log SET seq = 5 + seq WHERE seq < 0"),
        2, REORDERED,
    ),
    (
        ("INSERT INTO audit_log SELECT version, 6, day, time, node_id, actor, action, subject,"
        " outcome, fields, boot_id, 6, hash, hash, signature, key_id FROM audit_log WHERE seq = 5"),
        6, EDITED,
    ),
    ("UPDATE audit_heads SET seq = 6", 6, TRUNCATED),
    ("UPDATE audit_heads SET count = 4", 5, REWRITTEN),
    ("UPDATE audit_heads SET signature = 'x'", 5, REWRITTEN),
    ("DELETE FROM audit_heads", 5, REWRITTEN),
    ("UPDATE audit_checkpoints SET signature = 'x' WHERE seq = 5", 2, FORGED),
    ("UPDATE audit_checkpoints SET hash = 'x' WHERE seq = 5", 2, FORGED),
    ("UPDATE audit_checkpoints SET key_id = 'x' WHERE seq = 5", 2, FORGED),
    ("DELETE FROM audit_checkpoints WHERE seq = 1", 1, MISSING),
    ("TRUNCATE audit_log", 1, TRUNCATED),
    ("TRUNCATE audit_checkpoints, audit_log; UPDATE audit_heads SET seq = 0", 1, TRUNCATED),
    (
        ("INSERT INTO audit_checkpoints SELECT node_id, 3, hash, day, time_us, 3, previous,"
        " 'anchor', key_id, signature FROM audit_heads; DELETE FROM audit_log WHERE seq < 4"),
        1, FORGED,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "seq", "kind"), TAMPERED)
def test_tampering_is_found(
    database: PostgresDatabase, statement: str, seq: int, kind: Finding
) -> None:
    """Whatever is changed, removed or moved by SQL, the first bad record is named."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        appended = await store.append(events(1, 1))
        await store.append(events(2, 5))
        last = await store.keep_head(when_due=False)
        assert last is not None
        tamper(database, statement)
        first = appended.kept[0]
        witness = Witness(checkpoints={1: first.digest(), 5: last.digest()})

        report = await verify_database(database)
        with_file = await verify_database(database, witness=witness)

        assert with_file.first_bad is not None
        assert (with_file.first_bad.seq, with_file.first_bad.kind) == (seq, kind)
        if "TRUNCATE audit_checkpoints" not in statement:
            assert report.first_bad is not None
            assert (report.first_bad.seq, report.first_bad.kind) == (seq, kind)
        await store.close()

    run(scenario())


REFUSED = [
    "UPDATE audit_log SET actor = 'x'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "UPDATE audit_checkpoints SET hash = 'x'",
    "DELETE FROM audit_checkpoints",
    "TRUNCATE audit_checkpoints",
    "SELECT audit_drop_day(node_id, day) FROM audit_log LIMIT 1",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_the_tables_take_records_and_nothing_else(
    database: PostgresDatabase, statement: str
) -> None:
    """A trigger refuses what is not an insertion to whoever has not removed the trigger."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        await store.append(events(1, 5))
        with database.connect() as connection:
            for part in (statement, statement.replace("audit_log", _partition(connection))):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(part.encode())
        await store.close()

    run(scenario())


@pytest.fixture
def plain_owner(postgres_database: PostgresDatabase) -> Iterator[PostgresDatabase]:
    """A database whose owner is no superuser, as an external server's should be."""
    name = postgres_database.name
    with postgres_database.connect() as connection:
        connection.execute(f"CREATE ROLE plain_{name} LOGIN".encode())
        connection.execute(f"ALTER DATABASE {name} OWNER TO plain_{name}".encode())
    database = postgres_database.as_user(f"plain_{name}")
    asyncio.run(migrate(postgres_settings(database)))
    yield database
    with postgres_database.connect() as connection:
        connection.execute(f"DROP OWNED BY plain_{name} CASCADE".encode())
        connection.execute(f"ALTER DATABASE {name} OWNER TO novacron".encode())
        connection.execute(f"DROP ROLE plain_{name}".encode())


def test_the_owner_of_the_tables_needs_no_more_rights(plain_owner: PostgresDatabase) -> None:
    """An ordinary role records and is refused the rest; what it does in spite of that is found."""

    async def scenario() -> None:
        store = store_of(postgres_settings(plain_owner))
        await store.append(events(1, 5))
        await store.keep_head(when_due=False)
        with plain_owner.connect() as connection:
            for statement in REFUSED:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
            part = _partition(connection)
            connection.execute(f"GRANT UPDATE ON {part} TO CURRENT_USER".encode())
            connection.execute(f"ALTER TABLE {part} DISABLE TRIGGER USER".encode())
            connection.execute(f"UPDATE {part} SET actor = 'x' WHERE seq = 2".encode())
        bad = (await verify_database(plain_owner)).first_bad

        assert bad is not None
        assert (bad.seq, bad.kind) == (2, Finding.EDITED)
        await store.close()

    run(scenario())


def _partition(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    query = (
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_log'::regclass"
    )
    row = connection.execute(query).fetchone()
    assert row is not None
    return str(row[0])


def test_records_written_anew_are_named_by_the_copy(database: PostgresDatabase) -> None:
    """Hashes that fit together again are found at the head, and the copy names the record."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        await store.append(events(1, 1))
        written = await store.append(events(2, 9))
        copies = {record.seq: record.hash for record in written.records}
        rewrite(database, 6)

        bad = (await verify_database(database)).first_bad
        named = (await verify_database(database, copies=lambda _first, _last: copies)).first_bad

        assert bad is not None
        assert (bad.seq, bad.kind) == (2, Finding.REWRITTEN)
        assert named is not None
        assert (named.seq, named.kind) == (6, Finding.REWRITTEN)
        await store.close()

    run(scenario())


def rewrite(database: PostgresDatabase, seq: int) -> None:
    """Change a record and write all hashes after it anew, up to the head's, as far as one can."""
    with database.connect() as connection:
        found = connection.execute(f"{SELECT}WHERE seq >= {seq - 1} ORDER BY seq".encode())
        rows = [Row._make(row) for row in found.fetchall()]
    prev_hash = rows[0].hash
    for row in rows[1:]:
        actor = "nobody" if row.seq == seq else row.actor
        changed = row._replace(actor=actor, prev_hash=prev_hash)
        prev_hash = content_hash(changed)
        tamper(
            database,
            f"UPDATE audit_log SET actor = '{actor}', prev_hash = '\\x{changed.prev_hash.hex()}',"
            f" hash = '\\x{prev_hash.hex()}' WHERE seq = {row.seq}",
        )
    tamper(database, f"UPDATE audit_heads SET hash = '\\x{prev_hash.hex()}'")


def test_a_head_that_somebody_wrote_is_not_signed_over(database: PostgresDatabase) -> None:
    """The process goes on from what it wrote, so a chain written anew breaks there."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        await store.append(events(1, 1))
        await store.append(events(2, 9))
        rewrite(database, 6)

        appended = await store.append(events(10, 11))
        after = await store.append(events(12, 12))

        assert "signature that is not by this node" in appended.distrusted
        assert after.distrusted == ""
        bad = (await verify_database(database)).first_bad
        assert bad is not None
        assert bad.seq == 10
        await store.close()

    run(scenario())


def test_a_head_that_was_set_back_is_not_gone_on_from(database: PostgresDatabase) -> None:
    """An old signed head and a cut tail leave a gap once the process goes on."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        await store.append(events(1, 5))
        tamper(database, "CREATE TABLE old AS SELECT * FROM audit_heads")
        await store.append(events(6, 9))
        tamper(
            database,
            "DELETE FROM audit_log WHERE seq > 5; DELETE FROM audit_checkpoints WHERE seq > 5;"
            "DELETE FROM audit_heads; INSERT INTO audit_heads SELECT * FROM old",
        )
        assert (await verify_database(database)).first_bad is None  # without file and process

        appended = await store.append(events(10, 10))

        assert "set back" in appended.distrusted
        bad = (await verify_database(database)).first_bad
        assert bad is not None
        assert (bad.seq, bad.kind) == (6, Finding.DELETED)
        await store.close()

    run(scenario())


def test_a_chain_written_anew_after_a_crash_is_not_signed_over(
    database: PostgresDatabase,
) -> None:
    """A new process goes on from the node's own file, not from a head that nobody signed."""

    async def scenario() -> None:
        first = store_of(postgres_settings(database))
        await first.append(events(1, 1))
        written = (await first.append(events(2, 9))).records[-1]
        await first.close()
        rewrite(database, 6)
        store = store_of(postgres_settings(database))
        store.trust(written.seq, written.hash, written.day)

        appended = await store.append(events(10, 11))

        assert "signature that is not by this node" in appended.distrusted
        assert appended.records[0].prev_hash == written.hash
        bad = (await verify_database(database)).first_bad
        assert bad is not None
        assert bad.seq == 10
        await store.close()

    run(scenario())


def test_a_range_is_verified_up_to_what_covers_it(database: PostgresDatabase) -> None:
    """A part of the chain is as good as the next signed statement says."""

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        await store.append(events(1, 3))
        await store.append(events(4, 9))
        await store.keep_head(when_due=False)
        await store.append(events(10, 12))

        part = await verify_database(database, request=VerifyRequest(first=5, last=6))
        rest = await verify_database(database, request=VerifyRequest(first=10))
        tamper(database, "UPDATE audit_log SET actor = 'x' WHERE seq = 8")
        bad = await verify_database(database, request=VerifyRequest(first=5, last=6))

        assert (part.first_bad, part.records, part.covered) == (None, 5, 9)
        assert (rest.first_bad, rest.records, rest.head) == (None, 3, 12)
        assert bad.first_bad is not None
        assert bad.first_bad.seq == 8
        await store.close()

    run(scenario())


def test_a_verification_out_of_time_says_where_to_go_on(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long chain is verified in parts whose ends meet."""
    monkeypatch.setattr(audit_verify, "CHUNK_RECORDS", 10)

    async def scenario() -> None:
        store = store_of(postgres_settings(database))
        await store.append(events(1, 45))

        count, request = 0, VerifyRequest()
        for _ in range(9):
            report = await verify_database(database, request=request, time_s=0.0)
            assert report.first_bad is None
            count += report.records
            if report.next is None:
                break
            request = VerifyRequest(first=report.next)

        assert (count, report.next) == (45, None)
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
