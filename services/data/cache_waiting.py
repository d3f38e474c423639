"""Callers of one process who wait for a value that another one loads."""

from __future__ import annotations

import asyncio
import time

from services.data.cache_loads import LOADS_MAX
from services.data.cache_records import GetReply


class Waiting:
    """Wakes who waits for a key, and remembers where there is nothing to be had yet.

    Attributes:
        changes: grows with each ``wake``.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._events: dict[str, asyncio.Event] = {}
        self._busy: dict[str, tuple[float, GetReply]] = {}

    async def wait(self, name: str, timeout_s: float) -> None:
        """Return when the key is woken, or after ``timeout_s``, which wakes all who wait for it."""
        event = self._events.setdefault(name, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            if self._events.get(name) is event:
                del self._events[name]
                event.set()

    def wake(self, name: str) -> None:
        """The key has changed, or nobody loads it any more."""
        self.changes += 1
        self._busy.pop(name, None)
        if (event := self._events.pop(name, None)) is not None:
            event.set()

    def note_busy(self, name: str, busy_s: float, reply: GetReply) -> None:
        """Somebody loads the key; until he is done, or for ``busy_s``, this is the answer."""
        now_s = time.monotonic()
        if len(self._busy) >= LOADS_MAX:
            self._busy = {k: known for k, known in self._busy.items() if known[0] > now_s}
        if len(self._busy) < LOADS_MAX:
            self._busy[name] = now_s + busy_s, reply

    def busy(self, name: str) -> tuple[GetReply, float] | None:
        """The answer while somebody loads, and for how long it holds; None to look oneself."""
        until_s, reply = self._busy.get(name, (0.0, None))
        left_s = until_s - time.monotonic()
        return (reply, left_s) if reply is not None and left_s > 0 else None
