"""Calls that hang, and consoles that nobody reads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.vm.model import DomainState
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.consoles import Console
from services.vm.operations.driver import Guest
from services.vm.operations.errors import OperationUnknownError

GUEST = Guest(name="web1", uuid="u", state=DomainState.RUNNING, is_persistent=True, has_saved=False)


def test_a_late_call_degrades_until_its_answer_and_others_are_served() -> None:
    """Its guest gets no further calls meanwhile; afterwards all is as before."""

    async def scenario() -> None:
        gate, answered, reasons = threading.Event(), asyncio.Event(), []

        def changed() -> None:
            reasons.append(calls.reason)
            if not calls.reason:
                answered.set()

        calls = DeadlineCalls(changed)
        with pytest.raises(OperationUnknownError, match=r"'start web1' within 0\.01 s"):
            await calls.run(gate.wait, subject="u", what="start web1", timeout_s=0.01)
        with pytest.raises(OperationUnknownError, match="stop web1 was not tried"):
            await calls.run(gate.wait, subject="u", what="stop web1", timeout_s=5)
        assert await calls.run(lambda: 7, subject="v", what="start db1", timeout_s=5) == 7

        gate.set()
        await asyncio.wait_for(answered.wait(), 5)
        assert await calls.run(lambda: 8, subject="u", what="start web1", timeout_s=5) == 8
        assert [bool(reason) for reason in reasons] == [True, False]

    asyncio.run(scenario())


def test_an_error_of_a_call_is_its_caller_s() -> None:
    """Within the deadline it is raised as it is."""

    async def scenario() -> None:
        def fail() -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            await DeadlineCalls(lambda: None).run(fail, subject="u", what="fail", timeout_s=5)

    asyncio.run(scenario())


def test_a_console_keeps_the_newest_output_and_says_what_is_lost() -> None:
    """Bounded, in order, and the end stays readable."""

    async def scenario() -> None:
        console = Console(3, GUEST, "operator/ada", 4)
        for data in (b"ab", b"cd", b"ef"):
            console.arrived(data)
        first = await console.read(5)
        nothing = await console.read(0)
        console.end("closed by the guest")
        console.end("later")
        last = [await console.read(5) for _ in range(2)]

        assert (first.data, first.dropped_bytes, first.ended) == (b"cdef", 2, "")
        assert (nothing.data, nothing.dropped_bytes) == (b"", 0)
        assert [found.ended for found in last] == ["closed by the guest"] * 2

    asyncio.run(scenario())
