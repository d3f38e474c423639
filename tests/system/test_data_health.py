"""The health table between nodes: real database services on one PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from protocol.errors import RemoteProtocolError
from tests.fixtures.data_nodes import DataNode, running, wait_until
from tests.fixtures.fix_postgres import PostgresDatabase

pytestmark = pytest.mark.postgres
Work = Callable[[DataNode, DataNode], Awaitable[None]]


def run_two(database: PostgresDatabase, work: Work, **settings: object) -> tuple[DataNode, ...]:
    """Start the nodes a and b, do the work, stop them."""

    async def main() -> tuple[DataNode, ...]:
        nodes = DataNode(database, "a", **settings), DataNode(database, "b", **settings)
        async with running(*nodes):
            await work(*nodes)
        assert [node.context.failures for node in nodes] == [[], []]
        return nodes

    return asyncio.run(main())


def test_a_node_sees_what_changes_in_another_without_asking_again(
    postgres_database: PostgresDatabase,
) -> None:
    """A watch that waits returns with the change; the journal hears of it once."""

    async def work(a: DataNode, b: DataNode) -> None:
        a.journal.add("init:complete")
        b.journal.add("init:complete")
        await b.wait_standings(a="ready", b="ready")
        mark = (await b.call("health.watch"))["mark"]
        waiting = asyncio.create_task(b.call("health.watch", {"mark": mark, "wait_s": 20}))
        await asyncio.sleep(0)
        a.journal.add("component:state", "core/vm", state="degraded", reason="no KVM")

        page = await asyncio.wait_for(waiting, 10)

        (seen,) = (item for item in page["nodes"] if item["node"]["node_id"] == "a")
        assert (seen["standing"], page["is_current"], page["own_id"]) == ("unwell", True, "b")
        assert [(c["component"], c["reason"]) for c in seen["unwell"]] == [("core/vm", "no KVM")]
        assert page["mark"] != mark

    _a, b = run_two(postgres_database, work)

    changes = [(e["node_id"], e["was"], e["state"]) for e in b.events("node:changed")]
    assert changes[-1] == ("a", "ready", "unwell")
    assert changes.count(changes[-1]) == 1
    assert all(node_id == "a" for node_id, _was, _state in changes)


def test_node_that_is_gone_becomes_unknown_and_never_stays_healthy(
    postgres_database: PostgresDatabase,
) -> None:
    """Nobody writes that a lease has run out; who watches is woken by it all the same."""

    async def work(a: DataNode, b: DataNode) -> None:
        a.journal.add("init:complete")
        b.journal.add("init:complete")
        await b.wait_standings(a="ready", b="ready")
        await a.service.terminate()  # no record says that the node stops: it is just gone
        mark = (await b.call("health.watch"))["mark"]

        page = await asyncio.wait_for(b.call("health.watch", {"mark": mark, "wait_s": 20}), 10)

        seen = {item["node"]["node_id"]: item for item in page["nodes"]}
        assert (seen["a"]["standing"], seen["b"]["standing"]) == ("unknown", "ready")
        assert seen["a"]["node"]["state"] == "ready"
        assert 0 <= seen["a"]["standing_s"] < 5

    _a, b = run_two(postgres_database, work, lease_s=1.5)

    assert {"node_id": "a", "was": "ready", "state": "unknown"} in b.events("node:changed")


def test_node_that_comes_back_is_seen_again(postgres_database: PostgresDatabase) -> None:
    """A renewed lease that had run out is a change, with the same state as before too."""

    async def main() -> None:
        a, b = DataNode(postgres_database, "a", lease_s=1.5), DataNode(postgres_database, "b")
        async with running(b):
            async with running(a):
                a.journal.add("init:complete")
                await b.wait_standings(a="ready", b="starting")
            await b.wait_standings(a="unknown", b="starting")
            again = DataNode(postgres_database, "a", lease_s=1.5)
            again.journal = a.journal
            again.context = a.context
            async with running(again):
                await b.wait_standings(a="ready", b="starting")

    asyncio.run(main())


def test_root_that_stops_answering_costs_the_node_its_lease(
    postgres_database: PostgresDatabase,
) -> None:
    """Rows that nobody checks against the root are not renewed; the database process lives."""

    async def work(a: DataNode, b: DataNode) -> None:
        a.journal.add("init:complete")
        await b.wait_standings(a="ready", b="starting")
        a.context._peers.clear()  # the root is gone for this node
        await b.wait_standings(a="unknown", b="starting")
        await a.wait_standings(a="unknown", b="starting")

    run_two(postgres_database, work, lease_s=1.5)


@pytest.mark.parametrize("last_words", ["node:stopping", "init:failed"])
def test_end_that_was_said_is_no_loss(postgres_database: PostgresDatabase, last_words: str) -> None:
    """Stopped and failed nodes stay so after their lease."""
    expected = {"node:stopping": "stopped", "init:failed": "failed"}[last_words]

    async def main() -> None:
        a, b = DataNode(postgres_database, "a", lease_s=1.0), DataNode(postgres_database, "b")
        async with running(b):
            async with running(a):
                a.journal.add(last_words)
                said = {"node:stopping": "stopping", "init:failed": "failed"}[last_words]
                await b.wait_standings(a=said, b="starting")
            await b.wait_standings(a=expected, b="starting")
            await asyncio.sleep(1.5)
            assert await b.standings() == {"a": expected, "b": "starting"}

    asyncio.run(main())


def test_clocks_of_nodes_take_no_part(
    postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose clock is a day off writes the times of the server."""
    import services.data.health_table as table

    real = table.time.time
    monkeypatch.setattr("services.data.health_table.time.time", lambda: real() + 86_400)

    async def work(a: DataNode, b: DataNode) -> None:
        record_s = table.time.time() - 3
        a.journal.add("init:complete")
        a.journal.add("component:state", "api", state="degraded")
        a.journal.stamp(record_s)
        await b.wait_standings(a="unwell", b="starting")
        (seen, _own) = (await b.call("health.watch"))["nodes"]
        assert 0 <= seen["node"]["in_state_s"] < 10
        assert 0 < seen["node"]["lease_left_s"] <= 15
        assert 2 < seen["unwell"][0]["in_state_s"] < 13

    run_two(postgres_database, work)


def test_changes_during_the_loss_of_the_server_are_seen_afterwards(
    postgres_database: PostgresDatabase,
) -> None:
    """While nothing can be heard the view says so; the next connection reads everything."""

    async def work(a: DataNode, b: DataNode) -> None:
        a.journal.add("init:complete")
        await b.wait_standings(a="ready", b="starting")
        await asyncio.to_thread(postgres_database.server.kill)

        async def is_not_current() -> bool:
            return not (await b.call("health.watch"))["is_current"]

        await wait_until(is_not_current)
        a.journal.add("component:state", "api", state="unhealthy", reason="gone")
        await asyncio.to_thread(postgres_database.server.start)
        await b.wait_standings(a="unwell", b="starting")
        assert (await b.call("health.watch"))["is_current"]

    run_two(postgres_database, work)


def test_listener_whose_connection_is_cut_listens_again(
    postgres_database: PostgresDatabase,
) -> None:
    """What was changed behind its back, without a notification, is read at once."""

    async def work(a: DataNode, b: DataNode) -> None:
        a.journal.add("init:complete")
        await b.wait_standings(a="ready", b="starting")
        with postgres_database.connect() as connection:
            connection.execute("ALTER TABLE component_health DISABLE TRIGGER USER")
            a.journal.add("component:state", "api", state="degraded")

            async def is_written() -> bool:
                return bool(await a.call("health.components"))

            await wait_until(is_written)
            assert (await b.standings())["a"] == "ready"
            ended = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'novacron b data/database health'"
            ).fetchone()
            assert ended == (1,)
            await b.wait_standings(a="unwell", b="starting")

    # Leases so long that nothing else makes b read the table within the test.
    run_two(postgres_database, work, lease_s=600)


def test_node_removed_from_the_table_is_gone(postgres_database: PostgresDatabase) -> None:
    """An operator deletes the row of a host that is no more."""

    async def work(a: DataNode, b: DataNode) -> None:
        await b.wait_standings(a="starting", b="starting")
        await a.service.terminate()
        with postgres_database.connect() as connection:
            connection.execute("DELETE FROM node WHERE node_id = 'a'")
        await b.wait_standings(b="starting")

    _a, b = run_two(postgres_database, work)

    assert {"node_id": "a", "was": "starting", "state": ""} in b.events("node:changed")


def test_notification_that_is_not_ours_does_no_harm(postgres_database: PostgresDatabase) -> None:
    """Anybody with access to the database can notify anything."""

    async def work(a: DataNode, b: DataNode) -> None:
        with postgres_database.connect() as connection:
            for payload in ("", "[]", "{", '{"node_id": 7}', '{"node_id": "nobody"}'):
                connection.execute("SELECT pg_notify('novacron_health', %s)", [payload])
        a.journal.add("init:complete")
        await b.wait_standings(a="ready", b="starting")

    run_two(postgres_database, work)


def test_watch_limits_hold(postgres_database: PostgresDatabase) -> None:
    """A wait without end or below nothing is refused."""

    async def work(a: DataNode, b: DataNode) -> None:
        await a.wait_standings(a="starting", b="starting")
        await b.wait_standings(a="starting", b="starting")
        for wait_s in (-1, 61):
            with pytest.raises(RemoteProtocolError):
                await a.call("health.watch", {"wait_s": wait_s})

    run_two(postgres_database, work)


def test_two_hosts_with_one_name_are_noticed(postgres_database: PostgresDatabase) -> None:
    """Each of them says so, once."""

    async def main() -> None:
        nodes = [DataNode(postgres_database, "a", lease_s=0.3) for _ in range(2)]
        for number, node in enumerate(nodes):
            node.journal.boot_id = f"boot-{number}"
        async with running(*nodes):

            async def both_know() -> bool:
                return all(node.events("node:duplicate") for node in nodes)

            await wait_until(both_know)
        assert nodes[0].events("node:duplicate")[0] == {"node_id": "a"}

    asyncio.run(main())


def test_restarted_node_is_no_duplicate(postgres_database: PostgresDatabase) -> None:
    """Its earlier boot's row is replaced by the first write."""

    async def main() -> None:
        for number in range(2):
            node = DataNode(postgres_database, "a", lease_s=0.3)
            node.journal.boot_id = f"boot-{number}"
            async with running(node):
                await node.wait_standings(a="starting")
                await asyncio.sleep(1)
            assert node.events("node:duplicate") == []

    asyncio.run(main())


def test_text_that_postgresql_does_not_take_costs_nothing(
    postgres_database: PostgresDatabase,
) -> None:
    """A reason comes from anywhere, and one with a NUL must not end the database's process."""

    async def work(a: DataNode, b: DataNode) -> None:
        a.journal.add("init:complete")
        a.journal.add("component:state", "api", state="degraded", reason="a\x00b")
        await b.wait_standings(a="unwell", b="starting")
        ((row,),) = [await a.call("health.components")]
        assert row["reason"] == "a\\x00b"

    run_two(postgres_database, work)


def test_gauge_counts_nodes_by_standing(postgres_database: PostgresDatabase) -> None:
    """All standings are there, those without a node as 0."""

    async def work(a: DataNode, b: DataNode) -> None:
        a.journal.add("init:complete")
        await b.wait_standings(a="ready", b="starting")
        b.journal.add("vm:started", "core/vm")

        async def is_counted() -> bool:
            found = {
                sample.labels["standing"]: sample.value
                for sample in b.context.samples
                if sample.name == "novacron_nodes"
            }
            return found.get("ready") == 1 and found["unknown"] == 0

        await wait_until(is_counted)

    run_two(postgres_database, work)
