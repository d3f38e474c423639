"""The proof that what no policy allows is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from protocol.errors import PeerUnavailableError, RemoteCallError
from protocol.messages.health import HealthState
from protocol.records import Plain
from services.data.model import PostgresSettings
from services.security import guard_part
from services.security.guard_part import FORBIDDEN_METHOD, PROBED_PROCESS, REFUSED, GuardPart
from services.security.model import SecuritySettings
from services.security.parts import Level
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext


class Peer:
    """The process that is called."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls = 0

    async def answer(self, _request: Request) -> Plain:
        """Refuse, or not."""
        self.calls += 1
        if self.error is not None:
            raise self.error
        return {}


def part_of(peer: Peer, *, has_policy: bool = True) -> GuardPart:
    """A part that calls a peer."""
    settings = SecuritySettings(
        state_dir="/nowhere",
        node_id="n",
        postgres=PostgresSettings(host="/nowhere"),
        has_policy=has_policy,
    )
    context = MemoryServiceContext(
        path="security", settings={}, peers={PROBED_PROCESS: {FORBIDDEN_METHOD: peer.answer}}
    )
    level = Level(
        context=context,
        settings=settings,
        directory=Path("/nowhere"),
        on_change=lambda: None,
        start=lambda work, name: asyncio.create_task(work, name=name),
    )
    return GuardPart(level)


def refusal(code: str) -> RemoteCallError:
    """An error of the other process."""
    return RemoteCallError("no", remote_code=code)


def test_a_refused_call_is_proof_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refusal is recorded, so one does for some minutes."""
    peer = Peer(refusal(REFUSED))
    part = part_of(peer)

    async def scenario() -> None:
        assert (await part.check()).state is HealthState.HEALTHY
        assert (await part.check()).state is HealthState.HEALTHY
        assert peer.calls == 1
        monkeypatch.setattr(guard_part, "PERIOD_S", 0.0)
        await part.check()
        assert peer.calls == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [None, refusal("protocol.unknown_method")])
def test_a_call_that_is_let_through_is_unhealthy(error: Exception | None) -> None:
    """Also when it only fails because there is no such method."""
    part = part_of(Peer(error))

    health = asyncio.run(part.check())

    assert health.state is HealthState.UNHEALTHY
    assert "did not refuse" in health.reason
    assert part.health() == health


def test_without_an_answer_nothing_is_proven() -> None:
    """It is tried again with the next check."""
    peer = Peer(PeerUnavailableError("gone"))
    part = part_of(peer)

    async def scenario() -> None:
        assert (await part.check()).state is HealthState.HEALTHY
        peer.error = None
        assert (await part.check()).state is HealthState.UNHEALTHY

    asyncio.run(scenario())


def test_without_a_policy_there_is_nothing_to_try() -> None:
    """A tree without one refuses nothing of the kind."""
    peer = Peer(None)

    assert asyncio.run(part_of(peer, has_policy=False).check()).state is HealthState.HEALTHY
    assert peer.calls == 0
