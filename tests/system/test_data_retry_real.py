"""Retries, dead connections and time limits against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest

from services.data.errors import (
    DatabaseConflictError,
    DatabaseUnavailableError,
    OutcomeUnknownError,
    StatementRefusedError,
)
from services.data.failures import FailureClass
from services.data.model import PostgresSettings
from services.data.postgres import Connection, Database
from services.data.statements import Observation
from tests.fixtures.fix_postgres import PostgresDatabase

pytestmark = pytest.mark.postgres


async def _nothing(_connection: Connection) -> None:
    return


async def _unheard(_reason: str, _pause_s: float) -> None:
    return


class Client:
    """A connected database that reconnects by itself, and what was observed of it."""

    def __init__(self, database: PostgresDatabase, timeout_s: float = 10.0, **more: object) -> None:
        settings = PostgresSettings(
            host=database.host,
            database=database.name,
            pool_size=4,
            max_idle_conns=2,
            retry_initial_s=0.02,
            retry_attempts=12,
        )
        self.seen: list[Observation] = []
        self.database = Database(
            replace(settings, **more),  # type: ignore[arg-type]  # of several types
            application="client",
            timeout_s=timeout_s,
            observe=self.seen.append,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Database]:
        """Connected, and connected again after each loss."""

        async def stay() -> None:
            while True:
                await self.database.wait_lost()
                await self.database.connect(prepare=_nothing, on_failure=_unheard)

        await self.database.connect(prepare=_nothing, on_failure=_unheard)
        task = asyncio.create_task(stay())
        try:
            yield self.database
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.database.close()

    def classes(self) -> list[FailureClass | None]:
        """The failures, in order."""
        return [seen.failure for seen in self.seen]


def _run(client: Client, work: Callable[[Database], Awaitable[None]]) -> None:
    async def main() -> None:
        async with client.running() as database:
            await work(database)

    asyncio.run(main())


def test_deadlock_is_tried_again_until_both_are_done(postgres_database: PostgresDatabase) -> None:
    """Two transactions that lock two rows in opposite order both end well."""
    with postgres_database.connect() as admin:
        admin.execute(
            "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1,0),(2,0)"
        )
        admin.execute(f'ALTER DATABASE "{postgres_database.name}" SET deadlock_timeout = 20')
    client = Client(postgres_database)

    def ordered(first: int, second: int) -> Callable[[Connection], Awaitable[None]]:
        async def work(connection: Connection) -> None:
            await connection.execute("UPDATE t SET n = n + 1 WHERE id = %s", [first])
            await asyncio.sleep(0.05)
            await connection.execute("UPDATE t SET n = n + 1 WHERE id = %s", [second])

        return work

    async def both(database: Database) -> None:
        await asyncio.gather(
            database.run("a", ordered(1, 2), is_idempotent=False),
            database.run("b", ordered(2, 1), is_idempotent=False),
        )

    _run(client, both)

    with postgres_database.connect() as admin:
        assert admin.execute("SELECT n FROM t ORDER BY id").fetchall() == [(2,), (2,)]
    assert FailureClass.CONFLICT in client.classes()
    assert [seen.is_retried for seen in client.seen if seen.failure] == [True] * (
        len(client.seen) - 2
    )


def test_serialization_failure_is_tried_again(postgres_database: PostgresDatabase) -> None:
    """Counters that several read and write serializably lose no increment."""
    with postgres_database.connect() as admin:
        admin.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (0)")
    client = Client(postgres_database)

    async def increment(connection: Connection) -> None:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        row = await (await connection.execute("SELECT n FROM t")).fetchone()
        assert row is not None
        await connection.execute("UPDATE t SET n = %s", [row[0] + 1])

    async def work(database: Database) -> None:
        for _ in range(10):
            await asyncio.gather(
                *(database.run("add", increment, is_idempotent=True) for _ in range(2))
            )

    _run(client, work)

    with postgres_database.connect() as admin:
        assert admin.execute("SELECT n FROM t").fetchone() == (20,)
    assert FailureClass.CONFLICT in client.classes()


@pytest.mark.parametrize(
    ("query", "failure"),
    [
        ("INSERT INTO t VALUES (1)", FailureClass.CONSTRAINT),
        ("SELEKT 1", FailureClass.SYNTAX),
        ("SELECT * FROM nowhere", FailureClass.SYNTAX),
        ("SELECT 1/0", FailureClass.DATA),
        ("SET ROLE locked; CREATE ROLE x", FailureClass.PERMISSION),
    ],
)
def test_what_is_wrong_in_itself_is_done_once(
    postgres_database: PostgresDatabase, query: str, failure: FailureClass
) -> None:
    """One attempt, the class in the error, and the connection is good for the next."""
    with postgres_database.connect() as admin:
        admin.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    client = Client(postgres_database)

    async def wrong(connection: Connection) -> None:
        await connection.execute(query.encode())

    async def work(database: Database) -> None:
        with pytest.raises(StatementRefusedError) as caught:
            await database.run("wrong", wrong, is_idempotent=True)
        assert caught.value.fields["failure"] == failure.value
        assert await database.run("good", _one, is_idempotent=True) == 1

    _run(client, work)

    assert client.classes() == [failure, None]


async def _one(connection: Connection) -> object:
    row = await (await connection.execute("SELECT 1")).fetchone()
    return row[0] if row else None


@pytest.mark.parametrize("is_idempotent", [True, False])
def test_connection_that_ends_in_the_work_is_replaced_if_it_may_be_done_again(
    postgres_database: PostgresDatabase, *, is_idempotent: bool
) -> None:
    """Idempotent work ends well; other work says that nothing was done, which is so."""
    with postgres_database.connect() as admin:
        admin.execute("CREATE TABLE t (id int)")
    client, attempts = Client(postgres_database), []

    async def cut(connection: Connection) -> None:
        attempts.append(connection.info.backend_pid)
        await connection.execute("INSERT INTO t VALUES (1)")
        if len(attempts) == 1:
            with postgres_database.connect() as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", attempts)
        await connection.execute("SELECT 1")

    async def work(database: Database) -> None:
        if is_idempotent:
            await database.run("cut", cut, is_idempotent=True)
        else:
            with pytest.raises(DatabaseUnavailableError):
                await database.run("cut", cut, is_idempotent=False)

    _run(client, work)

    with postgres_database.connect() as admin:
        found = admin.execute("SELECT count(*) FROM t").fetchone()
    assert found == (1 if is_idempotent else 0,)
    assert len(attempts) == (2 if is_idempotent else 1)


def test_connection_that_ends_during_commit_is_reported_as_unknown_and_not_repeated(
    postgres_database: PostgresDatabase,
) -> None:
    """The server dies while it checks what is deferred to the COMMIT: once, and never again."""
    with postgres_database.connect() as admin:
        admin.execute(
            "CREATE TABLE t (id int);"
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(20); RETURN NULL; END';"
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    client, attempts = Client(postgres_database), []

    async def insert(connection: Connection) -> None:
        attempts.append(connection.info.backend_pid)
        await connection.execute("INSERT INTO t VALUES (1)")

        def end() -> None:
            with postgres_database.connect() as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", attempts)

        threading.Timer(0.3, end).start()

    async def work(database: Database) -> None:
        with pytest.raises(OutcomeUnknownError, match="lost during COMMIT"):
            await database.run("insert", insert, is_idempotent=True)

    _run(client, work)

    assert len(attempts) == 1


def test_lock_timeout_is_tried_again_and_then_a_conflict(
    postgres_database: PostgresDatabase,
) -> None:
    """The server ends the wait; when the lock stays the caller gets a retryable error."""
    with postgres_database.connect() as admin, postgres_database.connect() as other:
        admin.execute("CREATE TABLE t (id int)")
        client = Client(postgres_database, lock_timeout_s=0.05)
        with other.transaction():
            other.execute("LOCK TABLE t")

            async def read(connection: Connection) -> None:
                await connection.execute("SELECT * FROM t")

            async def work(database: Database) -> None:
                with pytest.raises(DatabaseConflictError):
                    await database.run("read", read, is_idempotent=True)
                assert database.is_connected

            _run(client, work)

    assert client.classes() == [FailureClass.LOCKED] * 5


def test_server_ends_what_takes_too_long(postgres_database: PostgresDatabase) -> None:
    """Each connection of the pool carries the limits; a slow statement is not tried again."""
    client = Client(postgres_database, statement_timeout_s=0.1, idle_in_transaction_timeout_s=7.0)

    async def slow(connection: Connection) -> None:
        await connection.execute("SELECT pg_sleep(5)")

    async def work(database: Database) -> None:
        with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
            await database.run("slow", slow, is_idempotent=True)
        async with database.session() as connection:
            cursor = await connection.execute(
                "SELECT current_setting('idle_in_transaction_session_timeout'),"
                " current_setting('lock_timeout')"
            )
            assert await cursor.fetchone() == ("7s", "10s")

    _run(client, work)

    assert client.classes()[0] is FailureClass.SLOW


def test_restarted_server_never_shows_through_a_dead_connection(
    postgres_database: PostgresDatabase,
) -> None:
    """After an orderly restart, a kill, and a killed backend each piece of work is done."""
    server = postgres_database.server
    client = Client(postgres_database)

    async def work(database: Database) -> None:
        for harm in (server.stop, server.kill):
            await asyncio.gather(
                *(database.run("before", _one, is_idempotent=True) for _ in range(3))
            )
            await asyncio.to_thread(harm)
            await asyncio.to_thread(server.start)
            for _ in range(5):
                assert await database.run("after", _one, is_idempotent=True) == 1

    _run(client, work)


def test_ended_backends_are_noticed_before_they_are_handed_out(
    postgres_database: PostgresDatabase,
) -> None:
    """Sessions, which never try again, meet no dead connection though all idle ones were ended."""
    client = Client(postgres_database)

    async def work(database: Database) -> None:
        for _ in range(5):
            async with database.session("first") as connection:
                await connection.execute("SELECT 1")
                watcher = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                cursor = await connection.execute(watcher + " AND query NOT LIKE 'SELECT pid%'")
                pids = [pid for (pid,) in await cursor.fetchall()]
                own = connection.info.backend_pid
            pooled = [pid for pid in [own, *pids] if pid != _watch_pid(database)]
            with postgres_database.connect() as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(p, 5000) FROM unnest(%s::int[]) p", [pooled]
                )
            async with database.session("second") as connection:
                await connection.execute("SELECT 1")

    _run(client, work)

    assert set(client.classes()) == {None}


def _watch_pid(database: Database) -> int:
    assert database._watch is not None
    return database._watch.info.backend_pid


def test_server_that_hangs_ends_the_session_in_time(postgres_database: PostgresDatabase) -> None:
    """A stopped backend answers nothing: the caller hears of it, and others work on."""
    client = Client(postgres_database, timeout_s=0.5)

    async def work(database: Database) -> None:
        async with database.session() as connection:
            pid = connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseUnavailableError, match=r"no answer in 0\.5 s"):
                async with database.session() as connection:
                    await connection.execute("SELECT 1")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await database.run("after", _one, is_idempotent=True, timeout_s=5.0) == 1

    _run(client, work)


def test_silent_cut_of_the_link_is_found_by_asking(
    postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that swallows everything without a word: the connection answers nothing, and goes."""
    with closing(_Relay(f"{postgres_database.host}/.s.PGSQL.5432")) as relay:
        client = Client(
            postgres_database, host="127.0.0.1", port=relay.port, ssl_mode="disable",
            connect_timeout_s=0.5,
        )  # fmt: skip

        async def work(database: Database) -> None:
            assert await database.run("before", _one, is_idempotent=True) == 1
            relay.cut()
            # As if all had been silent for long.
            monkeypatch.setattr("services.data.pool.SILENCE_MAX_S", 0.0)
            async with database.session("after") as connection:
                await connection.execute("SELECT 1")

        _run(client, work)

    assert client.classes()[-1] is None


class _Relay:
    """Passes bytes from a port to a Unix socket; ``cut`` has all present links swallow them."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[dict[str, bool]] = []
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for link in self._links:
            link["is_open"] = False

    def close(self) -> None:
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            link = {"is_open": True}
            self._links.append(link)
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                args = (source, sink, link)
                threading.Thread(target=self._pump, args=args, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, link: dict[str, bool]) -> None:
        try:
            while data := source.recv(65536):
                if link["is_open"]:
                    sink.sendall(data)
            if link["is_open"]:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


def test_database_that_is_gone_is_told_after_the_limit(postgres_database: PostgresDatabase) -> None:
    """Work waits for the server for as long as it may, and says that nothing was done."""
    client = Client(postgres_database)

    async def main() -> None:
        with pytest.raises(DatabaseUnavailableError, match=r"was not within 0\.2 s"):
            await client.database.run("work", _one, is_idempotent=True, timeout_s=0.2)

    asyncio.run(main())
