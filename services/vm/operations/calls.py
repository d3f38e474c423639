"""Blocking calls of operations: each in a thread, within its deadline, its lateness remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from services.threads import start_thread, wait_done
from services.vm.operations.errors import OperationUnknownError

T = TypeVar("T")


class DeadlineCalls:
    """Runs blocking calls and knows which of them owe an answer.

    A guest that owes one gets no further calls: they would queue behind it in libvirt, and gather
    threads. Others are served.

    Args:
        changed: called when the first call becomes late, and when none is late any more.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._late: dict[object, tuple[str, str]] = {}

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" when all answers came."""
        if not self._late:
            return ""
        _, words = next(iter(self._late.values()))
        more = f", and {len(self._late) - 1} more" if len(self._late) > 1 else ""
        return f"{words}{more}"

    async def run(self, work: Callable[[], T], *, subject: str, what: str, timeout_s: float) -> T:
        """Run ``work`` and return what it returns.

        Args:
            work: blocks as long as it likes.
            subject: guest or image that it is about.
            what: for messages, such as ``start web1``.
            timeout_s: its deadline.

        Raises:
            OperationUnknownError: no answer within the deadline, or an earlier one is still owed.
        """
        for owed, words in self._late.values():
            if owed == subject:
                raise OperationUnknownError(f"{words}, so {what} was not tried")
        future = start_thread(work, f"operation: {what}"[:60])
        future.add_done_callback(_retrieve)  # whoever waits may be cancelled
        if not await wait_done(future, timeout_s):
            words = f"libvirt has not answered to '{what}' within {timeout_s:g} s"
            self._late[future] = (subject, words)
            future.add_done_callback(self._answered)
            if len(self._late) == 1:
                self._changed()
            raise OperationUnknownError(words)
        return future.result()

    async def abandon(self, work: Callable[[], object], timeout_s: float = 1.0) -> None:
        """Run ``work`` on the way out, waiting no longer than ``timeout_s``."""
        future = start_thread(work, "operations-close")
        future.add_done_callback(_retrieve)
        await wait_done(future, timeout_s)

    def _answered(self, future: asyncio.Future[T]) -> None:
        del self._late[future]
        if not self._late:
            self._changed()


def _retrieve(future: asyncio.Future[T]) -> None:
    if not future.cancelled():
        future.exception()  # an error that nobody waits for is not asyncio's to report
