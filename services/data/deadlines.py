"""Deadlines for many short pieces of work, with one timer for all of them.

``asyncio.timeout`` makes a timer each time, which is a twentieth of a quick query. Here the tasks
that are at work are looked through every ``PERIOD_S``; that is how late a deadline may come.
"""

from __future__ import annotations

import asyncio

PERIOD_S = 0.05
# A cancellation may get lost: asyncio.wait_for of Python 3.11 swallows one that comes together
# with its result. One that does not is followed by psycopg's cleaning up, 10 s at most.
AGAIN_S = 11.0


class Deadline:
    """The deadline of one piece of work of one task.

    Attributes:
        cancelled: how often the task was cancelled because of it.
    """

    __slots__ = ("_cancelling", "at_s", "cancelled", "task")

    def __init__(self, task: asyncio.Task[object], at_s: float) -> None:
        self.task = task
        self.at_s = at_s
        self.cancelled = 0
        self._cancelling = task.cancelling()

    def is_cause_of(self, error: BaseException | None) -> bool:
        """Take back the cancellation; True when it is why the work ended, and nobody else's.

        Call it once, when the work has ended. Source: asyncio.Timeout.__aexit__.
        """
        if not self.cancelled:
            return False
        left = self.task.cancelling()
        for _ in range(self.cancelled):
            left = self.task.uncancel()
        return left <= self._cancelling and isinstance(error, asyncio.CancelledError)


class Deadlines:
    """The tasks that have a deadline, on one event loop."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, limit_s: float) -> Deadline:
        """Give the current task a deadline, in so many seconds."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "only a task can be cancelled"
        deadline = Deadline(task, loop.time() + limit_s)
        self._running.add(deadline)
        if self._timer is None:
            self._timer = loop.call_later(PERIOD_S, self._look, loop)
        return deadline

    def end(self, deadline: Deadline) -> None:
        """Its work has ended, one way or the other."""
        self._running.discard(deadline)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for deadline in [found for found in self._running if found.at_s <= now_s]:
            deadline.at_s = now_s + AGAIN_S
            deadline.cancelled += 1
            deadline.task.cancel()
        # Without work there is no timer, and an idle process stays asleep.
        self._timer = loop.call_later(PERIOD_S, self._look, loop) if self._running else None
