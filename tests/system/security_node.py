"""A security process over a real PostgreSQL, as the tests of the security level use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from protocol.records import Plain, to_wire
from services.data import migrations
from services.data.model import PostgresSettings
from services.data.postgres import connect
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
        self, state: Path, postgres: PostgresSettings, journal: MemoryJournal | None = None
    ) -> None:
        self.service = SecurityService()
        self.context = MemoryServiceContext(
            path="security",
            settings={
                "state_dir": str(state),
                "node_id": "node",
                "postgres": to_wire(postgres),
            },
            peers=(journal or MemoryJournal()).peers(),
        )

    async def call(self, method: str, body: Plain = None, caller: str = "core/vm") -> Any:
        """Call the service as the runtime would."""
        return await self.service.calls()[method](Request(caller, method, body, DEADLINE_S))


@asynccontextmanager
async def node(
    state: Path, postgres: PostgresSettings, journal: MemoryJournal | None = None
) -> AsyncIterator[Node]:
    """A security process that is up, and down again afterwards."""
    found = Node(state, postgres, journal)
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
