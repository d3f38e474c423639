"""The tasks that a service runs beside its calls, with nobody waiting for their result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

# A cancellation that was swallowed is repeated; so often that only a hung task outlasts it.
_CANCEL_ROUNDS_MAX = 20
_CANCEL_ROUND_S = 0.1


class BackgroundTasks:
    """Starts tasks, hands on the error that ends one, and ends them all.

    Args:
        fail: told the error of a task that ended by one.
    """

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` until it ends or ``end`` is called."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def end(self) -> None:
        """Cancel all tasks and wait until they are gone, for two seconds at most.

        Cancelling once is not enough: Python 3.11's ``asyncio.wait_for`` swallows a cancellation
        that arrives together with its result, and libraries use it.
        """
        for _ in range(_CANCEL_ROUNDS_MAX):
            if not self._tasks:
                return
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_CANCEL_ROUND_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
