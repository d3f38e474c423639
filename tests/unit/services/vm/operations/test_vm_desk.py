"""Operations under way: order, ends, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.vm.errors import LibvirtLostError
from services.vm.operations.desk import REMEMBERED_MAX, UNFINISHED_MAX, Desk, Progress
from services.vm.operations.errors import (
    NoOperationError,
    OperationRefusedError,
    OperationsFullError,
)
from services.vm.operations.model import OperationQuery, OperationState, Outcome
from supervisor.testing.context import MemoryServiceContext


def run(scenario: Callable[[Desk, MemoryServiceContext], Awaitable[None]]) -> None:
    """Run a scenario on a desk of its own."""

    async def whole() -> None:
        context = MemoryServiceContext(path="core/vm")
        desk = Desk(context)
        await scenario(desk, context)
        await desk.close()

    asyncio.run(whole())


def begin(desk: Desk, work: Callable[[Progress], Awaitable[Outcome]], key: str = "u") -> int:
    """Begin an operation on one guest."""
    return desk.begin("vm.start", key, work, subject="web1", uuid=key, caller="operator/ada")


async def done(_progress: Progress) -> Outcome:
    """Work that is done at once."""
    return Outcome(note="it is done")


async def forever(_progress: Progress) -> Outcome:
    """Work without an end."""
    await asyncio.Event().wait()
    raise AssertionError


def test_one_at_a_time_for_a_guest_and_others_beside() -> None:
    """The second of a guest waits for the first; another guest's does not."""

    async def scenario(desk: Desk, _context: MemoryServiceContext) -> None:
        gate, order = asyncio.Event(), []

        async def first(_progress: Progress) -> Outcome:
            await gate.wait()
            order.append("first")
            return Outcome(note="")

        async def second(_progress: Progress) -> Outcome:
            order.append("second")
            return Outcome(note="")

        one, two = begin(desk, first), begin(desk, second)
        other = begin(desk, done, "v")
        ended = await desk.ask(OperationQuery(id=other, wait_s=5))
        waiting = await desk.ask(OperationQuery(id=two))
        assert ended.state is OperationState.DONE
        assert waiting.step == f"waiting for operation {one} (vm.start)"
        gate.set()
        await desk.ask(OperationQuery(id=two, wait_s=5))
        assert order == ["first", "second"]

    run(scenario)


def test_every_end_is_a_record_and_an_event() -> None:
    """Done, refused, lost, cancelled: each by its state, and a lost one is unknown."""

    async def scenario(desk: Desk, context: MemoryServiceContext) -> None:
        async def refused(_progress: Progress) -> Outcome:
            raise OperationRefusedError("no")

        async def lost(_progress: Progress) -> Outcome:
            raise LibvirtLostError("gone")

        numbers = [begin(desk, work) for work in (done, refused, lost, forever)]
        await desk.ask(OperationQuery(id=numbers[2], wait_s=5))
        desk.cancel(numbers[3])
        ends = [await desk.ask(OperationQuery(id=number, wait_s=5)) for number in numbers]

        assert [end.state.value for end in ends] == ["done", "failed", "unknown", "cancelled"]
        assert ends[1].error_code == "vm.operation_refused"
        assert "may still be carried out" in ends[2].error
        states = [fields["state"] for name, fields in context.events if name == "vm:operation"]
        assert states == ["done", "failed", "unknown", "cancelled"]
        assert context.failures == []

    run(scenario)


def test_a_mistake_of_ours_ends_the_service() -> None:
    """The record says so, and the error reaches the context."""

    async def scenario(desk: Desk, context: MemoryServiceContext) -> None:
        async def broken(_progress: Progress) -> Outcome:
            raise KeyError("x")

        end = await desk.ask(OperationQuery(id=begin(desk, broken), wait_s=5))
        assert (end.state, "KeyError" in end.error) == (OperationState.FAILED, True)
        assert [type(error) for error in context.failures] == [KeyError]

    run(scenario)


def test_a_question_waits_for_news() -> None:
    """Another step or a hundredth of progress ends the wait; less does not."""

    async def scenario(desk: Desk, _context: MemoryServiceContext) -> None:
        gate = asyncio.Event()

        async def work(progress: Progress) -> Outcome:
            progress.step("copying")
            progress.at(0.004)
            await gate.wait()
            progress.at(0.5)
            return await forever(progress)

        number = begin(desk, work)
        first = await desk.ask(OperationQuery(id=number, wait_s=5, seen=""))
        still = await desk.ask(
            OperationQuery(id=number, wait_s=0.01, seen="copying", seen_progress=0.0)
        )
        gate.set()
        moved = await desk.ask(
            OperationQuery(id=number, wait_s=5, seen="copying", seen_progress=0.0)
        )
        assert (first.step, still.progress, moved.progress) == ("copying", 0.004, 0.5)

    run(scenario)


def test_operations_are_bounded_and_the_oldest_forgotten() -> None:
    """Too many at once are refused; ended ones are remembered up to a number."""

    async def scenario(desk: Desk, _context: MemoryServiceContext) -> None:
        for _ in range(REMEMBERED_MAX + 10):
            await desk.ask(OperationQuery(id=begin(desk, done), wait_s=5))
            await asyncio.sleep(0)
        assert len(desk.list().operations) <= REMEMBERED_MAX
        with pytest.raises(NoOperationError):
            await desk.ask(OperationQuery(id=1))
        with pytest.raises(NoOperationError):
            desk.cancel(1)
        for number in range(UNFINISHED_MAX):
            begin(desk, forever, str(number))
        with pytest.raises(OperationsFullError):
            begin(desk, forever)

    run(scenario)
