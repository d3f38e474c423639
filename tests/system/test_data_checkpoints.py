"""Checkpoints in a real PostgreSQL: two generations, and no way to a half-used one."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.records import Plain
from services.data.errors import CheckpointDamagedError, CheckpointForeignError
from tests.fixtures.data_nodes import DataNode, running
from tests.fixtures.fix_postgres import PostgresDatabase

pytestmark = pytest.mark.postgres

TORN = "UPDATE checkpoints SET state = substring(state FROM 1 FOR 5)"
NEWEST = " WHERE generation = (SELECT max(generation) FROM checkpoints)"


def run(database: PostgresDatabase, work: Callable[[DataNode], Awaitable[None]]) -> DataNode:
    """Start a database service, do the work, stop it."""

    async def main() -> DataNode:
        node = DataNode(database, "n1")
        async with running(node):
            await work(node)
        assert node.context.failures == []
        return node

    return asyncio.run(main())


async def save(node: DataNode, state: Plain, **more: Plain) -> Any:
    """Save for the component vm."""
    return await node.call("checkpoint.save", {**SAVE, "state": state, **more})


async def restore(node: DataNode) -> Any:
    """Restore for the component vm."""
    return await node.call("checkpoint.restore", {"component": "vm"})


SAVE: dict[str, Plain] = {"component": "vm", "version": 1}


def execute(database: PostgresDatabase, query: str) -> list[tuple[object, ...]]:
    """Do something to the database behind the service's back."""
    with database.connect() as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def generations(database: PostgresDatabase) -> list[object]:
    """What is kept."""
    found = execute(database, "SELECT generation FROM checkpoints ORDER BY 1")
    return [row[0] for row in found]


def test_the_last_two_generations_are_kept(postgres_database: PostgresDatabase) -> None:
    """Numbers go on; older ones are gone."""

    async def work(node: DataNode) -> None:
        for number in range(1, 5):
            assert await save(node, number) == {"is_saved": True, "generation": number}
        found = await restore(node)
        assert (found["state"], found["generation"]) == (4, 4)
        assert "refused" not in found

    run(postgres_database, work)

    assert generations(postgres_database) == [3, 4]


def test_damaged_newest_falls_back_loudly(postgres_database: PostgresDatabase) -> None:
    """The one before, with an event, and the answer says which was refused and why."""

    async def work(node: DataNode) -> None:
        await save(node, "before")
        await save(node, "newest")
        execute(postgres_database, TORN + NEWEST)

        found = await restore(node)

        assert (found["state"], found["generation"]) == ("before", 1)
        (refused,) = found["refused"]
        assert (refused["generation"], refused["code"]) == (2, "data.checkpoint_damaged")
        assert "SHA-256" in refused["reason"]

    node = run(postgres_database, work)

    (event,) = node.events("checkpoint:refused")
    assert (event["checkpoint_of"], event["generation"], event["used"]) == ("vm", 2, 1)
    assert any(
        s.name == "novacron_database_checkpoints_refused_total" for s in node.context.samples
    )


def test_good_one_is_kept_until_there_is_another_good_one(
    postgres_database: PostgresDatabase,
) -> None:
    """Saving after a fall back does not leave a damaged and a single good one."""

    async def work(node: DataNode) -> None:
        await save(node, "good")
        await save(node, "torn")
        execute(postgres_database, TORN + NEWEST)
        await restore(node)
        await save(node, "third")
        assert generations(postgres_database) == [1, 2, 3]
        execute(postgres_database, TORN + NEWEST)
        found = await restore(node)
        assert (found["state"], [r["generation"] for r in found["refused"]]) == ("good", [3, 2])
        await save(node, "fourth")
        await save(node, "fifth")
        assert generations(postgres_database) == [4, 5]

    run(postgres_database, work)


def test_all_damaged_is_an_error_that_names_each(postgres_database: PostgresDatabase) -> None:
    """Nothing is handed out, and nothing is taken for a first start."""

    async def work(node: DataNode) -> None:
        await save(node, 1)
        await save(node, 2)
        execute(postgres_database, TORN)
        with pytest.raises(CheckpointDamagedError, match=r"generation 2: .*generation 1: "):
            await restore(node)

    node = run(postgres_database, work)

    assert [(e["generation"], e["used"]) for e in node.events("checkpoint:refused")] == [
        (2, 0),
        (1, 0),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("node_id = 'n1'", "it is of node 'n2', not 'n1'"),
        ("node_id = 'n1', version = 9", "it is of node 'n2', not 'n1'"),
        ("node_id = 'n1', format = 'envelope-7'", "format is 'envelope-7'"),
    ],
)
def test_foreign_record_is_refused(
    postgres_database: PostgresDatabase, change: str, reason: str
) -> None:
    """A row that came here from another node, by a copied database or by hand."""

    async def main() -> None:
        there, here = DataNode(postgres_database, "n2"), DataNode(postgres_database, "n1")
        async with running(there, here):
            await save(there, "theirs")
            execute(postgres_database, f"UPDATE checkpoints SET {change}")
            with pytest.raises(CheckpointForeignError, match=reason):
                await restore(here)

    asyncio.run(main())


def test_late_save_of_a_dead_process_does_not_replace_its_successors(
    postgres_database: PostgresDatabase,
) -> None:
    """Whoever says what it follows is refused when that is no longer the newest."""

    async def work(node: DataNode) -> None:
        await save(node, "old")
        assert await save(node, "of the successor", after=1) == {"is_saved": True, "generation": 2}
        late = await save(node, "of the dead one", after=1)
        assert late == {"is_saved": False, "generation": 2}
        assert (await restore(node))["state"] == "of the successor"
        assert not (await save(node, "x", after=0))["is_saved"]

    run(postgres_database, work)


def test_saves_at_the_same_time_get_a_generation_each(postgres_database: PostgresDatabase) -> None:
    """None is lost without an error, and of those after the same one a single one wins."""

    async def work(node: DataNode) -> None:
        replies = await asyncio.gather(*(save(node, number) for number in range(2)))
        assert sorted(reply["generation"] for reply in replies) == [1, 2]
        rivals = await asyncio.gather(*(save(node, number, after=2) for number in range(2)))
        assert sorted(reply["is_saved"] for reply in rivals) == [False, True]

    run(postgres_database, work)


def test_checkpoint_of_an_earlier_program_is_restored_and_replaced(
    postgres_database: PostgresDatabase,
) -> None:
    """A bare state in a table without generations survives the migration."""

    async def work(node: DataNode) -> None:
        execute(
            postgres_database,
            "INSERT INTO checkpoints (node_id, component, generation, version, format, state, "
            "sha256, created_at) SELECT 'n1', 'vm', 1, 3, 'msgpack', s, sha256(s), now() "
            "FROM (VALUES ('\\x9102'::bytea)) AS v(s)",
        )
        found = await restore(node)
        assert (found["state"], found["version"]) == ([2], 3)
        assert (await save(node, "new"))["generation"] == 2

    run(postgres_database, work)


def test_acknowledged_checkpoint_survives_kill_9_at_any_moment(
    postgres_database: PostgresDatabase,
) -> None:
    """Saver and database service die together, in the middle of a save, again and again."""
    moments = random.Random(7)
    first, acknowledged = 1, 0

    async def check(node: DataNode) -> None:
        found = await restore(node)
        number = found["state"]["number"]
        assert number in (acknowledged, acknowledged + 1)
        assert found["state"]["pad"] == ["x" * 2000] * (number % 7)

    for _ in range(6):
        last = _save_until_killed(postgres_database, first, moments.uniform(0.0, 0.05))
        acknowledged = max(acknowledged, last)
        run(postgres_database, check)
        first = acknowledged + 1


def test_acknowledged_checkpoint_survives_kill_9_of_the_server(
    postgres_database: PostgresDatabase,
) -> None:
    """The server dies under the saver; what it acknowledged is there when it is back."""
    acknowledged = _save_until_killed(
        postgres_database, 1, 0.03, before=postgres_database.server.kill
    )
    postgres_database.server.start()

    async def check(node: DataNode) -> None:
        assert (await restore(node))["state"]["number"] in (acknowledged, acknowledged + 1)

    run(postgres_database, check)


def _save_until_killed(
    database: PostgresDatabase,
    first: int,
    after_s: float,
    *,
    before: Callable[[], None] | None = None,
) -> int:
    """Let a process save from ``first`` on, kill it; the last number that it had acknowledged."""
    argv = [sys.executable, "-m", "tests.fixtures.checkpoint_saver"]
    process = subprocess.Popen(
        [*argv, database.host, database.name, str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while (text := process.stdout.readline()) and not text.startswith("saved"):
        continue
    seen = [text]
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        if before is not None:
            before()
        process.kill()
    rest, _ = process.communicate(timeout=10)
    # A line that was cut by the kill was not said.
    seen += [text for text in rest.splitlines(keepends=True) if text.endswith("\n")]
    return [int(text.split()[1]) for text in seen if text.startswith("saved")][-1]
