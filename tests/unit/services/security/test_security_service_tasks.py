"""How the security process ends its own tasks."""

from __future__ import annotations

import asyncio

from services.security.parts import end


def test_a_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    """A cancellation that got lost on the way is repeated."""
    swallowed = 0

    async def deaf_once() -> None:
        nonlocal swallowed
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
        await asyncio.Event().wait()

    async def scenario() -> bool:
        task = asyncio.create_task(deaf_once())
        await asyncio.sleep(0)
        await end(task)
        return task.cancelled()

    assert asyncio.run(scenario())
    assert swallowed == 1


def test_a_task_that_ended_or_never_began_is_left_alone() -> None:
    """There is nothing to wait for."""

    async def scenario() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        await end(task)
        await end(None)

    asyncio.run(scenario())
