"""A security process over a real PostgreSQL, as the tests of the security level use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from protocol.records import Plain, to_wire
from services.data import migrations
from services.data.model import PostgresSettings
from services.data.postgres import connect
from services.security.audit_chain import Witness
from services.security.audit_verify import Copies, verify_stored
from services.security.keyring import derive_keyring
from services.security.model import VerifyReport, VerifyRequest
from services.security.service import SecurityService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.fixtures.memory_journal import MemoryJournal

DEADLINE_S = 20.0


def postgres_settings(database: PostgresDatabase) -> PostgresSettings:
    """What a service is given to reach a database."""
    return PostgresSettings(
        host=database.host, database=database.name, user=database.user, ssl_mode="prefer"
    )


SIGNER = derive_keyring(bytes(32)).signer


async def verify_database(
    database: PostgresDatabase,
    *,
    node_id: str = "node",
    request: VerifyRequest = VerifyRequest(),  # noqa: B008 - frozen
    witness: Witness | None = None,
    copies: Copies | None = None,
    time_s: float = 60.0,
) -> VerifyReport:
    """Verify the chain of a store that SIGNER signed."""
    with psycopg.connect(database.dsn) as connection:
        return verify_stored(
            connection,
            node_id=node_id,
            keys={SIGNER.key_id: SIGNER.public_key},
            request=request,
            witness=witness,
            copies=copies,
            time_s=time_s,
        )


def tamper(database: PostgresDatabase, statements: str) -> None:
    """Do something to the tables that their triggers refuse, as a superuser can."""
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statements.encode())


async def migrate(settings: PostgresSettings) -> None:
    """Give a database the platform's schema."""
    connection = await connect(settings, application="test")
    await migrations.migrate(connection, migrations.load())
    await connection.close()


def run(work: Coroutine[object, object, None]) -> None:
    """Run a scenario within the tests' deadline."""
    asyncio.run(asyncio.wait_for(work, 2 * DEADLINE_S))


class Node:
    """A security process over a database and a state directory, not started yet."""

    def __init__(
        self,
        state: Path,
        postgres: PostgresSettings,
        journal: MemoryJournal | None = None,
        *,
        node_id: str = "node",
    ) -> None:
        self.service = SecurityService()
        self.context = MemoryServiceContext(
            path="security",
            settings={
                "state_dir": str(state),
                "node_id": node_id,
                "postgres": to_wire(postgres),
            },
            peers=(journal or MemoryJournal()).peers(),
        )

    async def call(self, method: str, body: Plain = None, caller: str = "core/vm") -> Any:
        """Call the service as the runtime would."""
        return await self.service.calls()[method](Request(caller, method, body, DEADLINE_S))


@asynccontextmanager
async def node(
    state: Path,
    postgres: PostgresSettings,
    journal: MemoryJournal | None = None,
    *,
    node_id: str = "node",
) -> AsyncIterator[Node]:
    """A security process that is up, and down again afterwards."""
    found = Node(state, postgres, journal, node_id=node_id)
    await found.service.init(found.context)
    try:
        yield found
    finally:
        await found.service.terminate()
        assert found.context.failures == []


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - other processes' state
            await asyncio.sleep(0.01)


def rows(database: PostgresDatabase) -> list[tuple[str, str, str, str]]:
    """Action, subject, actor and outcome of all records, without the process's own."""
    with database.connect() as connection:
        found = connection.execute(
            "SELECT action, subject, actor, outcome FROM audit_log "
            "WHERE action NOT IN ('audit:opened', 'audit:checked') ORDER BY seq"
        ).fetchall()
    return [(row[0], row[1], row[2], row[3]) for row in found]


async def has_rows(database: PostgresDatabase, count: int) -> bool:
    """Whether so many records are there, without the process's own."""
    return len(rows(database)) >= count
