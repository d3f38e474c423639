"""A service's background tasks."""

from __future__ import annotations

import asyncio

from services.data.background import BackgroundTasks


def test_error_of_a_task_is_handed_on() -> None:
    """Nobody waits for the task; its error still reaches the service."""
    failures: list[BaseException] = []

    async def work() -> None:
        raise ValueError("x")

    async def main() -> None:
        tasks = BackgroundTasks(failures.append)
        tasks.start(work())
        await asyncio.sleep(0)
        await tasks.end()

    asyncio.run(main())

    assert [str(failure) for failure in failures] == ["x"]


def test_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    """The cancellation is repeated until the task is gone; ending is no failure."""
    failures: list[BaseException] = []
    swallowed = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) == 2:
                    raise

    async def main() -> None:
        tasks = BackgroundTasks(failures.append)
        tasks.start(stubborn())
        await asyncio.sleep(0)
        await tasks.end()

    asyncio.run(main())

    assert len(swallowed) == 2
    assert failures == []
