"""A clock that moves when a test says so, and what is to happen on it.

Example:
    >>> clock = ManualClock()
    >>> clock.call_later(2.0, "two")
    >>> clock.call_later(1.0, "one")
    >>> clock.next_s()
    1.0
    >>> clock.move_to(5.0)
    >>> [clock.pop(), clock.pop(), clock.pop()]
    ['one', 'two', None]
"""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

T = TypeVar("T")


class ManualClock(Generic[T]):
    """Virtual monotonic time, and the things that fall due on it, first come first served.

    Args:
        now_s: where it begins.

    Attributes:
        now_s: the time.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self._due: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def move_to(self, at_s: float) -> None:
        """Let time pass.

        Raises:
            ValueError: monotonic time does not go back.
        """
        if at_s < self.now_s:
            raise ValueError(f"it is {self.now_s} s already, and not yet {at_s} s again")
        self.now_s = at_s

    def call_later(self, delay_s: float, thing: T) -> None:
        """Have a thing fall due some time from now; at one time, in the order of the calls."""
        heapq.heappush(self._due, (self.now_s + delay_s, next(self._order), thing))

    def next_s(self) -> float | None:
        """When the next thing is due; None when there is none."""
        return self._due[0][0] if self._due else None

    def pop(self) -> T | None:
        """The next thing that is due by now; None when nothing is."""
        if self._due and self._due[0][0] <= self.now_s:
            return heapq.heappop(self._due)[2]
        return None
