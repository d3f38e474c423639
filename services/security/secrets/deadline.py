"""Providers' blocking calls, in daemon threads with a deadline.

A library's own time limits bound each read and not the whole: a server that sends a byte now and
then holds a call for ever. So the call is left behind when its time is over; its thread ends with
the process, or when the server does. A provider that is left behind too often is not called again
until one of the threads comes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

from services.security.secrets.errors import ProviderUnavailableError
from services.threads import start_thread, wait_done

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
        self._thread_name = f"secrets-{provider}"
        self._places = threading.BoundedSemaphore(LEFT_BEHIND_MAX)

    def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """Run blocking work and wait for it at most so long.

        Raises:
            ProviderUnavailableError: it took longer.
            SecretError: what the work raises.
        """
        done: futures.Future[T] = futures.Future()
        placed = self._placed(work)

        def fill() -> None:
            try:
                done.set_result(placed())
            except BaseException as exc:  # noqa: BLE001 - handed to the caller, whatever it is
                done.set_exception(exc)

        threading.Thread(target=fill, name=self._thread_name, daemon=True).start()
        try:
            return done.result(timeout_s)
        except TimeoutError:
            if done.done():
                raise  # the work's own
            raise self._late(timeout_s) from None

    async def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """The same for a loop, which goes on meanwhile."""
        future = start_thread(self._placed(work), self._thread_name)
        try:
            if not await wait_done(future, timeout_s):
                raise self._late(timeout_s)
            return future.result()
        finally:
            future.cancel()  # what comes after the deadline is nobody's

    def _placed(self, work: Callable[[], T]) -> Callable[[], T]:
        """The work with one of the provider's places, which it gives back in the end."""
        if not self._places.acquire(blocking=False):
            raise ProviderUnavailableError(
                f"{self._provider} holds {LEFT_BEHIND_MAX} earlier calls without an answer"
            )

        def run() -> T:
            try:
                return work()
            finally:
                self._places.release()

        return run

    def _late(self, timeout_s: float) -> ProviderUnavailableError:
        return ProviderUnavailableError(f"{self._provider} did not answer in {timeout_s:g} s")
