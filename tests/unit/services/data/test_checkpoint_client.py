"""A service's checkpoint from its own side: what is restored, and when something is saved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.errors import RemoteCallError
from protocol.records import Plain
from services.data.checkpoint_client import DATABASE, CheckpointClient, Outcome
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

OLD = {"version": 1, "state": {"a": 1}, "created_s": 5.0, "generation": 3}


class Database:
    """What the database process does with checkpoints, and an error to raise instead."""

    def __init__(self, found: Plain = None) -> None:
        self.found = found
        self.error: RemoteCallError | None = None
        self.saved: list[Any] = []
        self.newest = 0 if found is None else found["generation"]

    async def restore(self, _request: Request) -> Plain:
        """As checkpoint.restore."""
        if self.error is not None:
            raise self.error
        return self.found

    async def save(self, request: Request) -> Plain:
        """As checkpoint.save."""
        if self.error is not None:
            raise self.error
        after = request.body.get("after")
        if after is not None and after != self.newest:
            return {"is_saved": False, "generation": self.newest}
        self.newest += 1
        self.saved.append(request.body["state"])
        return {"is_saved": True, "generation": self.newest}


class Bench:
    """A client above a database, with a clock to turn."""

    def __init__(self, database: Database, **options: Any) -> None:
        self.now_s = 100.0
        handlers = {"checkpoint.restore": database.restore, "checkpoint.save": database.save}
        self.context = MemoryServiceContext(path="core/vm", peers={DATABASE: handlers})
        self.client = CheckpointClient(
            self.context, **{"version": 1, "clock": lambda: self.now_s, **options}
        )


def run(database: Database, work: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    """Do the work on a fresh client."""

    async def main() -> None:
        await work(Bench(database, **options))

    asyncio.run(main())


async def saved(bench: Bench) -> None:
    """Let the loop turn until everything is saved."""
    for _ in range(100):
        if bench.client.is_saved:
            return
        await asyncio.sleep(0)
    raise AssertionError("not saved")


def refused(code: str, *, retryable: bool = False) -> RemoteCallError:
    """What a call ends with that the database refuses."""
    return RemoteCallError("no", remote_code=code, remote_retryable=retryable)


def test_state_is_restored_and_not_saved_again_unchanged() -> None:
    """Only what is another state than the stored one costs a write."""
    database = Database(OLD)

    async def work(bench: Bench) -> None:
        found = await bench.client.restore()
        assert (found.outcome, found.state, found.created_s) == (Outcome.RESTORED, {"a": 1}, 5.0)
        await bench.client.offer({"a": 1})
        assert database.saved == []
        await bench.client.offer({"a": 2})

    run(database, work)

    assert database.saved == [{"a": 2}]


def test_first_start_is_told_from_a_database_that_is_away() -> None:
    """The one may be saved over, the other not."""
    database = Database()

    async def work(bench: Bench) -> None:
        database.error = refused("data.database_unavailable", retryable=True)
        assert (await bench.client.restore()).outcome is Outcome.UNAVAILABLE
        database.error = None
        await bench.client.offer("early")
        assert database.saved == []
        assert (await bench.client.restore()).outcome is Outcome.NONE
        assert await bench.client.flush()

    run(database, work)

    assert database.saved == ["early"]


@pytest.mark.parametrize("code", ["data.checkpoint_damaged", "data.checkpoint_foreign"])
def test_refused_state_is_not_saved_over_unless_told(code: str) -> None:
    """Somebody may still be able to read it."""
    database = Database(OLD)

    async def work(bench: Bench) -> None:
        database.error = refused(code)
        found = await bench.client.restore()
        assert (found.outcome, found.reason) == (Outcome.REFUSED, "no")
        database.error = None
        await bench.client.offer("new")
        assert database.saved == []
        bench.client.start_over()
        await bench.client.offer("new")

    run(database, work)

    assert database.saved == ["new"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"version": 0}, "newer program (version 1, ours is 0)"),
        ({"version": 2}, "version 1 can't be read any more"),
        ({"version": 2, "migrate": lambda _version, state: state["b"]}, "'b'"),
    ],
)
def test_version_that_can_not_be_read_is_refused(options: dict[str, Any], reason: str) -> None:
    """A newer one, one without a way to ours, one that does not fit."""

    async def work(bench: Bench) -> None:
        found = await bench.client.restore()
        assert (found.outcome, found.state) == (Outcome.REFUSED, None)
        assert reason in found.reason

    run(Database(OLD), work, **options)


def test_earlier_version_is_migrated_and_saved_in_ours() -> None:
    """The next save writes the new format although nothing else changed."""
    database = Database(OLD)

    def upgrade(version: int, state: Plain) -> Plain:
        return {"b": state["a"] + version}

    async def work(bench: Bench) -> None:
        found = await bench.client.restore()
        assert (found.state, found.saved_version) == ({"b": 2}, 1)
        await bench.client.offer(found.state)

    run(database, work, version=2, migrate=upgrade)

    assert database.saved == [{"b": 2}]


def test_older_generation_is_said_to_be_one() -> None:
    """With the reason why the newest was not used."""
    refusal = {"generation": 4, "code": "data.checkpoint_damaged", "reason": "its SHA-256 is bad"}
    database = Database({**OLD, "refused": [refusal]})
    database.newest = 4

    async def work(bench: Bench) -> None:
        found = await bench.client.restore()
        assert found.is_older
        assert found.reason == "generation 4: its SHA-256 is bad"
        await bench.client.offer(found.state)

    run(database, work)

    assert database.saved == [{"a": 1}]


def test_saves_keep_their_distance() -> None:
    """What comes too early is not lost: it is saved with the next or by flush."""
    database = Database()

    async def work(bench: Bench) -> None:
        await bench.client.restore()
        await bench.client.offer(1)
        await bench.client.offer(2)
        assert database.saved == [1]
        assert not bench.client.is_saved
        bench.now_s += 1.0
        await bench.client.offer(3)
        await bench.client.offer(4)
        assert await bench.client.flush()

    run(database, work, period_s=1.0)

    assert database.saved == [1, 3, 4]


def test_background_saving_waits_for_its_time_and_for_the_database() -> None:
    """The last state is saved once it can be, the ones between need not."""
    database = Database()

    async def work(bench: Bench) -> None:
        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            bench.now_s += seconds
            if seconds == 5.0:
                database.error = None
            await asyncio.sleep(0)

        await bench.client.restore()
        task = asyncio.create_task(bench.client.run(sleep))
        bench.client.note(1)
        await saved(bench)
        database.error = refused("data.database_unavailable", retryable=True)
        bench.client.note(2)
        bench.client.note(3)
        await saved(bench)
        task.cancel()

    pauses: list[float] = []
    run(database, work, period_s=1.0, retry_s=5.0)

    assert database.saved == [1, 3]
    assert pauses == [0.0, 1.0, 5.0]


def test_save_of_a_dead_process_is_overtaken() -> None:
    """It came between restoring and our first save; ours is the later one."""
    database = Database(OLD)

    async def work(bench: Bench) -> None:
        await bench.client.restore()
        database.newest += 1  # it lands now
        await bench.client.offer("ours")
        assert bench.client.is_saved

    run(database, work)

    assert database.saved == ["ours"]


def test_state_that_is_too_large_is_not_sent_again_and_again() -> None:
    """The earlier checkpoint stays; the next change is tried."""
    database = Database()

    async def work(bench: Bench) -> None:
        await bench.client.restore()
        database.error = refused("data.checkpoint_too_large")
        await bench.client.offer("large")
        database.error = None
        bench.now_s += 10
        assert await bench.client.flush()
        assert database.saved == []
        await bench.client.offer("small")

    run(database, work)

    assert database.saved == ["small"]
