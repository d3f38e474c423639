"""The process ``data/database`` against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.messages.health import HealthState
from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Verdict,
)
from protocol.records import Plain
from services.data import migrations
from services.data.database_service import DatabaseService
from services.data.errors import (
    CheckpointDamagedError,
    CheckpointOwnerError,
    CheckpointTooLargeError,
    DatabaseLostError,
    DatabaseUnavailableError,
)
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.fixtures.memory_journal import MemoryJournal

pytestmark = pytest.mark.postgres
WAIT_S = 10.0


class Node:
    """A running database service, the journal it follows, and its context."""

    def __init__(self, database: PostgresDatabase, journal: MemoryJournal, **postgres: Any) -> None:
        self.database = database
        self.journal = journal
        settings: dict[str, Plain] = {
            "node_id": "n1",
            "environment": "embedded",
            "roles": ["backend"],
            "operation_timeout_s": 5.0,
            "postgres": {
                "host": database.host,
                "database": database.name,
                "pool_size": 3,
                "max_idle_conns": 1,
                "retry_initial_s": 0.01,
                **postgres,
            },
        }
        self.context = MemoryServiceContext(
            path="data/database", settings=settings, peers=journal.peers()
        )
        self.service = DatabaseService()

    async def call(self, method: str, body: Plain = None, caller: str = "core/vm") -> Any:
        """Call the service as another process."""
        return await self.service.calls()[method](Request(caller, method, body, 5.0))

    async def wait_components(self, expected: dict[str, str]) -> None:
        """Wait until the health table has these states."""

        async def is_there() -> bool:
            rows = await self.call("health.components")
            return {row["component"]: row["state"] for row in rows} == expected

        await wait_until(is_there)


async def wait_until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition that may not be answerable yet."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                if await condition():
                    return
            except DatabaseUnavailableError:
                pass
            await asyncio.sleep(0.01)


def run(
    database: PostgresDatabase, work: Callable[[Node], Awaitable[None]], **postgres: Any
) -> Node:
    """Start a service, do the work, stop the service."""

    async def main() -> Node:
        node = Node(database, MemoryJournal(), **postgres)
        await node.service.init(node.context)
        try:
            await work(node)
        finally:
            await node.service.terminate()
        return node

    return asyncio.run(main())


def test_comes_up_migrated_and_healthy(postgres_database: PostgresDatabase) -> None:
    """An empty database gets its schema; the probe and the status say so."""

    async def work(node: Node) -> None:
        assert node.context.health.state is HealthState.HEALTHY
        assert (await node.service.check()).state is HealthState.HEALTHY
        assert (await node.call("database.status"))["is_connected"]

    node = run(postgres_database, work)

    assert node.context.events[0][0] == "database:connected"
    assert node.context.events[0][1]["migrations"] == len(migrations.load())
    assert node.context.failures == []


def test_start_with_nothing_to_migrate_is_quick(postgres_database: PostgresDatabase) -> None:
    """Connecting, checking the schema and getting ready take some milliseconds."""

    async def nothing(_node: Node) -> None:
        return

    run(postgres_database, nothing)
    durations = []
    for _ in range(5):
        node = run(postgres_database, nothing)
        durations.append(float(node.context.events[0][1]["duration_s"]))

    assert min(durations) < 0.06


def test_each_change_of_a_component_reaches_the_table(postgres_database: PostgresDatabase) -> None:
    """Insert, update, and the fields as the journal has them."""

    async def work(node: Node) -> None:
        journal = node.journal
        journal.add("init:databases-connected", phase=3)
        journal.add("component:state", "api", state="starting", phase=6, level="api", pid=1)
        journal.add("component:state", "core/vm", state="healthy", phase=4, level="core", pid=2)
        await node.wait_components({"api": "starting", "core/vm": "healthy"})
        journal.add("component:state", "api", state="degraded", reason="slow", restarts=2, pid=3)
        await node.wait_components({"api": "degraded", "core/vm": "healthy"})

        row = (await node.call("health.components", {"node_id": "n1"}))[0]

        assert (row["reason"], row["restarts"], row["pid"]) == ("slow", 2, 3)

    run(postgres_database, work)


def test_node_row_follows_the_boot(postgres_database: PostgresDatabase) -> None:
    """Starting, ready; other nodes read it with the version and the roles."""

    async def work(node: Node) -> None:
        node.journal.add("init:config-loaded", phase=1)
        node.journal.add("init:complete")

        async def is_ready() -> bool:
            return [row["state"] for row in await node.call("health.nodes")] == ["ready"]

        await wait_until(is_ready)
        row = (await node.call("health.nodes"))[0]
        assert (row["node_id"], row["boot_id"], row["phase"]) == ("n1", "boot-1", 6)
        assert (row["environment"], row["roles"]) == ("embedded", ["backend"])
        assert abs(row["since_s"] - time.time()) < 60
        assert 0 < row["lease_left_s"] <= 15

    run(postgres_database, work)


def test_journal_read_twice_changes_nothing(postgres_database: PostgresDatabase) -> None:
    """A restarted service reads from the start; a later state is not replaced by an earlier one."""
    query = "SELECT component, state, seq, updated_at FROM component_health ORDER BY 1"

    async def work() -> None:
        journal = MemoryJournal()
        journal.add("component:state", "api", state="starting")
        journal.add("component:state", "api", state="healthy")
        for _ in range(2):
            node = Node(postgres_database, journal)
            await node.service.init(node.context)
            await node.wait_components({"api": "healthy"})
            await node.service.terminate()
            with postgres_database.connect() as connection:
                rows.append(connection.execute(query).fetchall())

    rows: list[object] = []
    asyncio.run(work())

    assert rows[0] == rows[1]


def test_new_boot_replaces_the_rows_of_the_earlier_one(
    postgres_database: PostgresDatabase,
) -> None:
    """Lower numbers of a new boot count, and a component that is gone disappears."""

    async def work(node: Node) -> None:
        for _ in range(5):
            node.journal.add("component:state", "api", state="healthy")
        node.journal.add("component:state", "old", state="healthy")
        await node.wait_components({"api": "healthy", "old": "healthy"})
        node.journal.reboot("boot-2")
        node.journal.add("component:state", "api", state="starting")
        await node.wait_components({"api": "starting"})

    run(postgres_database, work)


def test_lost_records_are_made_up_for_by_the_whole_status(
    postgres_database: PostgresDatabase,
) -> None:
    """What the journal no longer holds comes from the root's status."""
    component = ComponentStatus(
        path="core/vm", id="vm", level="core", phase=4, failure="critical", kind="service",
        state=HealthState.DEGRADED, reason="no KVM",
    )  # fmt: skip
    platform = PlatformStatus(
        name="n", version="1", node_id="n1", environment="e", roles=(), pid=1, state_dir="/s",
        started_s=0.0, uptime_s=1.0,
    )  # fmt: skip

    async def work(node: Node) -> None:
        node.journal.status = NodeStatus(
            schema=SCHEMA, verdict=Verdict.READY, reason="", platform=platform,
            phase=PhaseStatus(number=6, name="health", complete=True), components=(component,),
        )  # fmt: skip
        node.journal.add("component:state", "core/vm", state="starting")
        node.journal.forget()
        node.journal.add("init:complete")

        await node.wait_components({"core/vm": "degraded"})

    run(postgres_database, work)


def test_ordered_stop_of_the_node_is_in_the_table(postgres_database: PostgresDatabase) -> None:
    """Other nodes see it as stopped; a restart of the service alone is not that."""

    async def stopping(node: Node) -> None:
        node.journal.add("component:state", "api", state="healthy", pid=5)
        node.journal.add("node:stopping")

        async def is_known() -> bool:
            return [row["state"] for row in await node.call("health.nodes")] == ["stopping"]

        await wait_until(is_known)

    run(postgres_database, stopping)

    with postgres_database.connect() as connection:
        assert connection.execute("SELECT state FROM node").fetchall() == [("stopped",)]
        rows = connection.execute("SELECT state, pid FROM component_health").fetchall()
        assert rows == [("stopped", None)]


def test_checkpoint_comes_back_as_it_was_saved(postgres_database: PostgresDatabase) -> None:
    """The last one of each component, with its version; null without one."""

    async def work(node: Node) -> None:
        state = {"vms": ["a", "b"], "raw": b"\x00\x01", "deep": {"x": None}}
        assert await node.call("checkpoint.restore", {"component": "vm"}) is None
        save = {"component": "core/vm", "version": 1, "state": "first"}
        assert await node.call("checkpoint.save", save) == {"is_saved": True, "generation": 1}
        await node.call("checkpoint.save", {**save, "version": 2, "state": state})

        found = await node.call("checkpoint.restore", {"component": "vm"})

        assert (found["version"], found["state"]) == (2, state)
        assert abs(found["created_s"] - time.time()) < 60

    run(postgres_database, work)


def test_checkpoint_limits_and_owners_hold(postgres_database: PostgresDatabase) -> None:
    """Over 256 KiB and other components' names are refused; what was saved stays."""

    async def work(node: Node) -> None:
        save = {"component": "vm", "version": 1, "state": "kept"}
        await node.call("checkpoint.save", save)
        with pytest.raises(CheckpointTooLargeError):
            await node.call("checkpoint.save", {**save, "state": b"x" * (256 * 1024)})
        with pytest.raises(CheckpointOwnerError):
            await node.call("checkpoint.save", save, caller="core/network")
        with pytest.raises(CheckpointOwnerError):
            await node.call("checkpoint.restore", {"component": "vm"}, caller="api")

        assert (await node.call("checkpoint.restore", {"component": "vm"}))["state"] == "kept"

    run(postgres_database, work)


def test_damaged_checkpoint_is_not_handed_out(postgres_database: PostgresDatabase) -> None:
    """Whoever changed the bytes in the table, the component does not get them."""

    async def work(node: Node) -> None:
        await node.call("checkpoint.save", {"component": "vm", "version": 1, "state": [1]})
        with postgres_database.connect() as connection:
            connection.execute("UPDATE checkpoints SET state = '\\x9102'")

        with pytest.raises(CheckpointDamagedError):
            await node.call("checkpoint.restore", {"component": "vm"})

    run(postgres_database, work)


def test_killed_server_that_comes_back_is_found_again(postgres_database: PostgresDatabase) -> None:
    """Unhealthy with a reason meanwhile; what the journal said in that time is written then."""
    server = postgres_database.server

    async def work(node: Node) -> None:
        node.journal.add("component:state", "api", state="starting")
        await node.wait_components({"api": "starting"})
        await asyncio.to_thread(server.kill)

        async def is_unhealthy() -> bool:
            return node.context.health.state is HealthState.UNHEALTHY

        await wait_until(is_unhealthy)
        assert "PostgreSQL" in node.context.health.reason
        with pytest.raises(DatabaseUnavailableError):
            await node.call("checkpoint.restore", {"component": "vm"})
        assert (await node.service.check()).state is HealthState.UNHEALTHY
        node.journal.add("component:state", "api", state="healthy")
        await asyncio.to_thread(server.start)
        await node.wait_components({"api": "healthy"})
        assert node.context.health.state is HealthState.HEALTHY

    # Pauses of 0.3, 0.6, 1.2 … s: restarting the server takes less than all of them.
    node = run(postgres_database, work, retry_initial_s=0.3, retry_attempts=7)

    names = [name for name, _ in node.context.events]
    assert names == ["database:connected", "database:lost", "database:recovered"]
    assert node.context.failures == []


def test_server_that_stays_away_is_critical(postgres_database: PostgresDatabase) -> None:
    """After the attempts of the settings the service fails, and says how many there were."""

    async def work(node: Node) -> None:
        await asyncio.to_thread(postgres_database.server.kill)

        async def is_failed() -> bool:
            return bool(node.context.failures)

        await wait_until(is_failed)

    node = run(postgres_database, work, retry_attempts=3)

    assert isinstance(node.context.failures[0], DatabaseLostError)
    assert "after 3 attempts" in str(node.context.failures[0])
    assert node.context.health.state is HealthState.UNHEALTHY
    failures = [s for s in node.context.samples if s.name.endswith("connect_failures_total")]
    assert len(failures) == 2
