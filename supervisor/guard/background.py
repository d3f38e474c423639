"""Work that waits, such as for a disk, done by one thread on behalf of a loop that must not.

The thread starts with the first piece of work and takes all that has gathered at once. The loop
learns of results by a descriptor; what takes too long is given up there, not here.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_CLOSE_TIMEOUT_S = 1.0

# Has a loop call the function whenever the descriptor is readable.
Attach = Callable[[int, Callable[[], None]], None]


class Background(Generic[_T]):
    """One thread and its queue.

    Args:
        work: called in the thread with what has gathered; must not raise.
        attach: see Attach.
        settled: called by the loop when a batch is done; ``work`` has left the results.
    """

    def __init__(
        self, work: Callable[[list[_T]], None], attach: Attach, settled: Callable[[], None]
    ) -> None:
        self._work = work
        self._settled = settled
        self._queue: queue.SimpleQueue[_T | None] = queue.SimpleQueue()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()
        attach(self._event, self.turn)

    def put(self, item: _T) -> None:
        """Hand over a piece of work; never waits."""
        self._queue.put(item)

    def turn(self) -> None:
        """Take note of finished work; never waits."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        self._settled()

    def close(self) -> None:
        """Let what has been handed over finish, for a moment."""
        self._queue.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            batch: deque[_T | None] = deque((self._queue.get(),))
            while not self._queue.empty():
                batch.append(self._queue.get())
            items = [item for item in batch if item is not None]
            if items:
                self._work(items)
                os.eventfd_write(self._event, 1)
            if len(items) < len(batch):
                return
