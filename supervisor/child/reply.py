"""The future that a call waits for."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from protocol.envelope import Envelope


class Reply(asyncio.Future[Envelope]):
    """A future whose task goes on in the very turn of the loop that brings the reply.

    The loop runs the callbacks of a finished future in its next turn, which costs a call another
    look at all descriptors. ``arrive`` runs the first callback, the waiting task's, at once. It is
    for callbacks of the loop itself: no task may be running when it is called. Everything else,
    such as cancelling and failing, is a future's.
    """

    _first: tuple[Callable[[Reply], object], contextvars.Context] | None = None

    def add_done_callback(
        self, callback: Callable[[Reply], object], /, *, context: contextvars.Context | None = None
    ) -> None:
        """As in Future; the first callback is the one that ``arrive`` runs."""
        if self._first is None and context is not None and not self.done():
            self._first = (callback, context)
        else:
            super().add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callable[[Reply], object], /) -> int:
        """As in Future."""
        self._fall_back()
        return super().remove_done_callback(callback)

    def arrive(self, reply: Envelope) -> None:
        """Finish with a reply and let the waiting task go on, before this returns."""
        first, self._first = self._first, None
        self.set_result(reply)
        if first is not None:
            callback, context = first
            context.run(callback, self)

    def set_exception(self, exception: type | BaseException, /) -> None:
        """As in Future."""
        self._fall_back()
        super().set_exception(exception)

    def cancel(self, msg: Any | None = None) -> bool:  # Any: as in Future
        """As in Future."""
        self._fall_back()
        return super().cancel(msg=msg)

    def _fall_back(self) -> None:
        if self._first is not None:
            callback, context = self._first
            self._first = None
            super().add_done_callback(callback, context=context)
