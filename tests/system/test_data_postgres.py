"""Connections and migrations against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import psycopg
import pytest

from services.data import migrations
from services.data.errors import (
    DatabaseLostError,
    DatabaseMissingError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    MigrationChangedError,
    MigrationFailedError,
    SchemaNewerError,
)
from services.data.migrations import Migration
from services.data.model import PostgresSettings
from services.data.postgres import Connection, Database, connect, connect_with_retry
from tests.fixtures.fix_postgres import PostgresDatabase, PostgresServer

pytestmark = pytest.mark.postgres

STEPS = (
    Migration(1, "one", "CREATE TABLE one (a int); INSERT INTO one VALUES (1)"),
    Migration(2, "two", "ALTER TABLE one ADD b int"),
)


def _settings(database: PostgresDatabase) -> PostgresSettings:
    return PostgresSettings(host=database.host, database=database.name, retry_initial_s=0.01)


async def _nothing(_connection: Connection) -> None:
    return


async def _unheard(_reason: str, _pause_s: float) -> None:
    return


def _migrate(database: PostgresDatabase, steps: tuple[Migration, ...]) -> int:
    async def work() -> int:
        connection = await connect(_settings(database), application="test")
        async with connection:
            return await migrations.migrate(connection, steps)

    return asyncio.run(work())


def test_refused_password_is_critical_at_once(postgres_database: PostgresDatabase) -> None:
    """No second attempt, the server's sentence, advice, and not the password."""
    settings = replace(_settings(postgres_database), user="locked", password="wrong-one")
    reported: list[str] = []

    async def report(reason: str, _pause_s: float) -> None:
        reported.append(reason)

    with pytest.raises(DatabaseRefusedError) as caught:
        asyncio.run(
            connect_with_retry(settings, application="t", prepare=_nothing, on_failure=report)
        )

    assert 'password authentication failed for user "locked"' in str(caught.value)
    assert "check database.postgres.user" in str(caught.value)
    assert "wrong-one" not in str(caught.value)
    assert reported == []


def test_right_password_connects(postgres_database: PostgresDatabase) -> None:
    """Over the same socket, by SCRAM."""
    settings = replace(_settings(postgres_database), user="locked", password="right")

    async def work() -> object:
        async with await connect(settings, application="who is it") as connection:
            cursor = await connection.execute(
                "SELECT current_user, current_setting('application_name')"
            )
            return await cursor.fetchone()

    assert asyncio.run(work()) == ("locked", "who is it")


@pytest.mark.parametrize(
    ("change", "error"),
    [({"database": "nowhere"}, DatabaseMissingError), ({"user": "nobody"}, DatabaseRefusedError)],
)
def test_unknown_names_are_critical(
    postgres_database: PostgresDatabase, change: dict[str, str], error: type[Exception]
) -> None:
    """A database or a role that does not exist does not appear by waiting."""
    settings = PostgresSettings(
        **{"host": postgres_database.host, "database": postgres_database.name, **change}  # type: ignore[arg-type]  # one dict of several types
    )

    with pytest.raises(error, match="does not exist"):
        asyncio.run(connect(settings, application="t"))


def test_absent_server_takes_all_attempts_and_is_critical_then() -> None:
    """Five attempts, pauses of 2, 4, 8 and 16 seconds, each reported."""
    settings = PostgresSettings(host="/tmp/nc-no-such-directory")
    pauses: list[float] = []
    reported: list[tuple[str, float]] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def report(reason: str, pause_s: float) -> None:
        reported.append((reason, pause_s))

    with pytest.raises(DatabaseLostError, match=r"after 5 attempts: .*No such file"):
        asyncio.run(
            connect_with_retry(
                settings, application="t", prepare=_nothing, on_failure=report, sleep=sleep
            )
        )

    assert pauses == [2.0, 4.0, 8.0, 16.0]
    assert [pause_s for _, pause_s in reported] == pauses
    assert "No such file" in reported[0][0]


def test_missing_database_is_created_where_the_settings_say_so(
    postgres_server: PostgresServer,
) -> None:
    """Only then; and nobody is asked twice."""
    settings = PostgresSettings(
        host=postgres_server.socket_dir, database='made "here"', create_database=True
    )

    async def work() -> str:
        connection = await connect_with_retry(
            settings, application="t", prepare=_nothing, on_failure=_unheard
        )
        async with connection:
            return connection.info.dbname

    try:
        assert asyncio.run(work()) == 'made "here"'
        assert asyncio.run(work()) == 'made "here"'
    finally:
        with psycopg.connect(postgres_server.dsn(), autocommit=True) as admin:
            admin.execute('DROP DATABASE IF EXISTS "made ""here"""')


def test_session_fails_at_once_while_the_server_is_gone_and_works_again_after(
    postgres_database: PostgresDatabase,
) -> None:
    """The loss is noticed by itself; nothing hangs; a new connection brings it all back."""
    server = postgres_database.server

    async def work() -> tuple[str, float, object]:
        database = Database(_settings(postgres_database), application="t", timeout_s=5)
        await database.connect(prepare=_nothing, on_failure=_unheard)
        async with database.session() as connection:
            await connection.execute("CREATE TABLE kept (a int)")
        watching = asyncio.create_task(database.wait_lost())
        await asyncio.sleep(0)
        await asyncio.to_thread(server.kill)
        async with asyncio.timeout(5):
            reason = await watching
        asked = time.monotonic()
        with pytest.raises(DatabaseUnavailableError):
            async with database.session():
                pass
        failed_s = time.monotonic() - asked
        await asyncio.to_thread(server.start)
        await database.connect(prepare=_nothing, on_failure=_unheard)
        async with database.session() as connection:
            row = await (await connection.execute("SELECT count(*) FROM kept")).fetchone()
        await database.close()
        return reason, failed_s, row

    reason, failed_s, row = asyncio.run(work())

    # Which of the two comes first is the kernel's choice.
    assert "unexpected postmaster exit" in reason or "closed the connection" in reason
    assert failed_s < 0.1
    assert row == (0,)


def test_idle_watch_survives_what_the_server_sends_by_itself(
    postgres_database: PostgresDatabase,
) -> None:
    """A changed server setting makes the socket readable and is no loss."""

    async def work() -> bool:
        database = Database(_settings(postgres_database), application="t", timeout_s=5)
        await database.connect(prepare=_nothing, on_failure=_unheard)
        watching = asyncio.create_task(database.wait_lost())
        async with database.session() as connection:
            await connection.execute("ALTER SYSTEM SET timezone = 'Asia/Tokyo'")
            await connection.execute("SELECT pg_reload_conf()")
            await asyncio.sleep(0.3)
            await connection.execute("ALTER SYSTEM RESET timezone")
            await connection.execute("SELECT pg_reload_conf()")
        is_watching = not watching.done()
        watching.cancel()
        await database.close()
        return is_watching

    assert asyncio.run(work())


def test_migrations_are_applied_once_and_recorded(postgres_database: PostgresDatabase) -> None:
    """The second run finds nothing to do."""
    assert _migrate(postgres_database, STEPS) == 2
    assert _migrate(postgres_database, STEPS) == 0

    with postgres_database.connect() as connection:
        rows = connection.execute("SELECT version, name FROM schema_migrations").fetchall()
        assert rows == [(1, "one"), (2, "two")]
        assert connection.execute("SELECT a, b FROM one").fetchall() == [(1, None)]


def test_two_programs_at_once_apply_each_migration_once(
    postgres_database: PostgresDatabase,
) -> None:
    """The lock lets one go first; the other finds its work done."""

    async def one() -> int:
        async with await connect(_settings(postgres_database), application="t") as connection:
            return await migrations.migrate(connection, STEPS)

    async def both() -> list[int]:
        return list(await asyncio.gather(one(), one(), one()))

    assert sorted(asyncio.run(both())) == [0, 0, 2]


def test_failed_migration_leaves_nothing_of_itself(postgres_database: PostgresDatabase) -> None:
    """It is rolled back as a whole, named, and what came before it stays."""
    broken = Migration(3, "broken", "CREATE TABLE half (a int); SELECT 1/0")

    with pytest.raises(MigrationFailedError, match=r"0003_broken .*division by zero"):
        _migrate(postgres_database, (*STEPS, broken))

    with postgres_database.connect() as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
        assert connection.execute("SELECT max(version) FROM schema_migrations").fetchone() == (2,)


def test_newer_schema_is_refused(postgres_database: PostgresDatabase) -> None:
    """An older program leaves the database as it is."""
    _migrate(postgres_database, STEPS)

    with pytest.raises(SchemaNewerError, match=r"version 2 \(two\)"):
        _migrate(postgres_database, STEPS[:1])


def test_changed_checksum_is_refused(postgres_database: PostgresDatabase) -> None:
    """The file is not the one that was applied."""
    _migrate(postgres_database, STEPS)

    with pytest.raises(MigrationChangedError, match="0001_one"):
        _migrate(postgres_database, (replace(STEPS[0], script="SELECT 1"), STEPS[1]))


def test_our_own_schema_can_be_built(postgres_database: PostgresDatabase) -> None:
    """All the program's migrations, on an empty database."""
    steps = migrations.load()

    assert _migrate(postgres_database, steps) == len(steps)

    with postgres_database.connect() as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        tables = [name for (name,) in connection.execute(query)]
    assert {"audit_log", "checkpoints", "component_health", "node"} <= set(tables)
