"""A few threads for what blocks or computes, and a loop that hears when they are done."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.dwcp.errors import DwcpError

R = TypeVar("R")


class Pool:
    """Runs work on threads and its continuations on the loop's thread.

    Nothing bounds the queue here: every submitter waits for answers before it submits more.

    Args:
        threads: how many.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="dwcp")
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable when ``run_completed`` has something to do."""
        return self._wake

    def submit(
        self,
        work: Callable[[], R],
        done: Callable[[R], None],
        failed: Callable[[DwcpError], None],
    ) -> None:
        """Run ``work`` on a thread, then ``done`` or ``failed`` inside ``run_completed``.

        An error that is not a DwcpError is a fault of ours and rises from ``run_completed``.
        """

        def run() -> None:
            try:
                result = work()
            except DwcpError as exc:
                error = exc
                self._done.put(lambda: failed(error))
            except BaseException as exc:  # noqa: BLE001 - rises again on the loop's thread
                fault = exc
                self._done.put(lambda: _rise(fault))
            else:
                self._done.put(lambda: done(result))
            os.eventfd_write(self._wake, 1)

        self._executor.submit(run)

    def run_completed(self) -> None:
        """Run the continuations of what has been completed."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return
        while True:
            try:
                continuation = self._done.get_nowait()
            except queue.Empty:
                return
            continuation()

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        os.close(self._wake)


def _rise(fault: BaseException) -> None:
    raise fault
