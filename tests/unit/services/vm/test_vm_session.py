"""Requests to libvirt end by their deadline, whatever libvirt does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from services.threads import start_thread
from services.vm.connection import Answered, CallTimedOut, Lost
from services.vm.errors import DomainNotFoundError, LibvirtLostError, LibvirtTimeoutError
from services.vm.inbox import Inbox
from services.vm.session import REQUESTS_MAX, AsyncSession

TIMEOUT_S = 0.05


class GatedSession:
    """A blocking session whose answers wait until the gate opens."""

    def __init__(self, answer: Callable[[], object]) -> None:
        self.gate = threading.Event()
        self.asked = 0
        self._answer = answer

    def hypervisor(self) -> object:
        """Answer once the gate is open."""
        self.asked += 1
        assert self.gate.wait(5.0)
        return self._answer()


def refuse(error: Exception) -> Callable[[], object]:
    """An answer that raises."""

    def answer() -> object:
        raise error

    return answer


def test_an_overdue_request_is_told_refuses_others_and_is_told_again_when_it_ends() -> None:
    """One thread hangs, none is added, and the late answer makes the session usable again."""

    async def scenario() -> None:
        inbox, blocking = Inbox(), GatedSession(lambda: ("QEMU", "9.0.0"))
        session = AsyncSession(blocking, 3, inbox, TIMEOUT_S)

        with pytest.raises(LibvirtTimeoutError, match="its version within"):
            await session.hypervisor()
        with pytest.raises(LibvirtTimeoutError, match="owes 1 answers"):
            await session.hypervisor()

        assert blocking.asked == 1
        assert isinstance(await inbox.get(), CallTimedOut)
        blocking.gate.set()
        assert await inbox.get() == Answered(3)
        assert await session.hypervisor() == ("QEMU", "9.0.0")

    asyncio.run(scenario())


def test_no_more_requests_run_at_once_than_the_limit() -> None:
    """The requests up to the limit run; the next one waits and fails by its own deadline."""

    async def scenario() -> None:
        inbox, blocking = Inbox(), GatedSession(lambda: ("QEMU", "9.0.0"))
        session = AsyncSession(blocking, 1, inbox, TIMEOUT_S)

        asked = [session.hypervisor() for _ in range(REQUESTS_MAX + 1)]
        results = await asyncio.gather(*asked, return_exceptions=True)

        assert blocking.asked == REQUESTS_MAX
        assert all(isinstance(result, LibvirtTimeoutError) for result in results)
        blocking.gate.set()

    asyncio.run(scenario())


def test_a_broken_connection_is_told_and_raised() -> None:
    """The request's caller and the connection machine both learn of it."""

    async def scenario() -> None:
        inbox, blocking = Inbox(), GatedSession(refuse(LibvirtLostError("closed")))
        blocking.gate.set()

        with pytest.raises(LibvirtLostError, match="closed"):
            await AsyncSession(blocking, 2, inbox, 5.0).hypervisor()

        assert await inbox.get() == Lost(2, "closed")

    asyncio.run(scenario())


def test_another_error_is_the_caller_s_alone() -> None:
    """A missing domain says nothing about the connection."""

    async def scenario() -> None:
        inbox, blocking = Inbox(), GatedSession(refuse(DomainNotFoundError("none")))
        blocking.gate.set()

        with pytest.raises(DomainNotFoundError):
            await AsyncSession(blocking, 2, inbox, 5.0).hypervisor()

        assert inbox._queue.empty()

    asyncio.run(scenario())


def test_a_result_that_comes_after_the_loop_is_closed_is_dropped() -> None:
    """A thread that outlives its loop ends quietly."""
    gate, ended = threading.Event(), threading.Event()

    def work() -> None:
        assert gate.wait(5.0)
        ended.set()

    async def scenario() -> None:
        start_thread(work, "late")

    asyncio.run(scenario())
    gate.set()

    assert ended.wait(5.0)
