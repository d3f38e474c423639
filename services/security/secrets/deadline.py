"""Providers' blocking calls, in daemon threads with a deadline.

A library's own time limits bound each read and not the whole: a server that sends a byte now and
then holds a call for ever. So the call is left behind when its time is over; its thread ends with
the process, or when the server does. A provider that is left behind too often is not called again
until one of the threads comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from services.security.secrets.errors import ProviderUnavailableError

T = TypeVar("T")

# Each holds a socket and a stack; a healthy provider has none.
LEFT_BEHIND_MAX = 4


class Bounded:
    """Runs calls of one provider.

    Args:
        provider: its name, for errors and threads.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._places = threading.BoundedSemaphore(LEFT_BEHIND_MAX)

    def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """Run blocking work and wait for it at most so long.

        Raises:
            ProviderUnavailableError: it took longer.
            SecretError: what the work raises.
        """
        answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._start(work, lambda result, error: answers.put((result, error)))
        try:
            result, error = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise self._late(timeout_s) from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value] # a T: there was no error

    async def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """The same for a loop, which goes on meanwhile."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type] # a T: there was no error

        def answer(result: T | None, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        self._start(work, answer)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise self._late(timeout_s) from None

    def _start(
        self, work: Callable[[], T], answer: Callable[[T | None, BaseException | None], None]
    ) -> None:
        if not self._places.acquire(blocking=False):
            raise ProviderUnavailableError(
                f"{self._provider} holds {LEFT_BEHIND_MAX} earlier calls without an answer"
            )

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as exc:  # noqa: BLE001 - handed to the caller, whatever it is
                error = exc
            finally:
                self._places.release()
            answer(result, error)

        threading.Thread(target=run, name=f"secrets-{self._provider}", daemon=True).start()

    def _late(self, timeout_s: float) -> ProviderUnavailableError:
        return ProviderUnavailableError(f"{self._provider} did not answer in {timeout_s:g} s")
