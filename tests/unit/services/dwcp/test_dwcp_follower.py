"""The totals of the last run: taken up late if need be, never overwritten with less."""

from __future__ import annotations

import asyncio

import pytest

from protocol.errors import RemoteCallError
from protocol.records import Plain
from services.data.checkpoint_client import DATABASE
from services.dwcp.follower import CHECKPOINT_VERSION, Follower
from services.dwcp.model import ManagerSettings, Totals
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext


class Database:
    """A database that does not answer the first ``failures`` times."""

    def __init__(self, failures: int, state: Plain = None) -> None:
        self.failures = failures
        self.state = state
        self.saved: list[Plain] = []

    async def restore(self, _request: Request) -> Plain:
        """The checkpoint."""
        if self.failures:
            self.failures -= 1
            raise RemoteCallError("not now", remote_code="data.unavailable", remote_retryable=True)
        if self.state is None:
            return None
        return {"version": CHECKPOINT_VERSION, "state": self.state, "created_s": 0.0}

    async def save(self, request: Request) -> Plain:
        """Keep a checkpoint."""
        self.saved.append(request.body["state"])
        return {"is_saved": True, "generation": len(self.saved)}


def follower_of(database: Database, *, retry_s: float = 0.0) -> Follower:
    """A follower above this database."""
    handlers = {"checkpoint.restore": database.restore, "checkpoint.save": database.save}
    context = MemoryServiceContext(path="core/dwcp/manager", peers={DATABASE: handlers})
    settings = ManagerSettings(
        run_dir="/run", incoming_dir="/incoming", transports=("transport.0",)
    )
    return Follower(context, settings, retry_s=retry_s)


def count(found: Follower, transfers: int) -> None:
    """Let the book count something."""
    found.ledger.totals = Totals(sent_transfers=transfers)


def test_totals_that_come_late_are_added_and_saved() -> None:
    """A database that is away at first costs nothing of what was counted before or since."""
    database = Database(2, {"sent_transfers": 2, "sent_bytes": 20})

    async def scenario() -> Follower:
        found = follower_of(database)
        count(found, 1)
        await found.restore()
        return found

    found = asyncio.run(scenario())

    assert found.ledger.totals == Totals(sent_transfers=3, sent_bytes=20)
    assert database.saved == [{"sent_transfers": 3, "sent_bytes": 20}]


def test_nothing_is_saved_before_the_totals_are_known() -> None:
    """A save in between would overwrite the checkpoint with less than it holds."""
    database = Database(1)

    async def scenario() -> None:
        found = follower_of(database, retry_s=60.0)
        count(found, 1)
        restoring = asyncio.ensure_future(found.restore())
        await found.wait_restored()
        await found.save(at_once=True)
        restoring.cancel()

    asyncio.run(scenario())

    assert database.saved == []


@pytest.mark.parametrize("state", [None, {"other": 1}, {"sent_transfers": "many"}])
def test_without_a_usable_checkpoint_counting_begins_anew(state: Plain) -> None:
    """There is none yet, or it can't be read: this run's counts are saved all the same."""
    database = Database(0, state)

    async def scenario() -> Follower:
        found = follower_of(database)
        count(found, 1)
        await found.restore()
        return found

    found = asyncio.run(scenario())

    assert found.ledger.totals == Totals(sent_transfers=1)
    assert database.saved == [{"sent_transfers": 1}]
