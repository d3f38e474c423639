"""Deadlines on an asyncio loop: one timer for all of them.

Nearly everything that has a deadline is over long before it, so that a timer each would be made
only to be cancelled; here an item costs an entry in a map, and a timer runs only for the nearest
deadline of all.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

# Items that expire one after the other are looked at this seldom, so that a thousand of them do
# not cost a thousand looks at a thousand.
_LOOK_PERIOD_S = 0.01


class Deadlines(Generic[T]):
    """Calls a function with each item that is still there at its deadline, or slightly later.

    Args:
        loop: the loop to run on.
        expire: called once per item, which is forgotten before.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[T], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._due_s: dict[T, float] = {}
        self._look_s = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T, timeout_s: float) -> None:
        """Let an item expire after ``timeout_s``, which may be infinite."""
        due_s = self._loop.time() + timeout_s
        self._due_s[item] = due_s
        if due_s < self._look_s:
            self._look_at(due_s)

    def discard(self, item: T) -> None:
        """Let an item be; nothing happens if it is not there."""
        self._due_s.pop(item, None)

    def _look_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_s = at_s
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        now_s = self._loop.time()
        self._look_s, self._timer = math.inf, None
        for item in [item for item, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[item]
            self._expire(item)
        next_s = min(self._due_s.values(), default=math.inf)
        if next_s < self._look_s:
            self._look_at(max(next_s, now_s + _LOOK_PERIOD_S))
