"""Blocking calls in threads of their own, so that a hung one never holds the loop or the exit.

A ThreadPoolExecutor was not taken: the interpreter waits for its threads at exit, and a call into
a hung library, such as libvirt's, can't be interrupted. Daemon threads end with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def start_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run ``work`` in a new daemon thread.

    Args:
        work: blocks as long as it likes.
        name: the thread's name, for stack dumps.

    Returns:
        A future of the running loop. Cancelling it forgets the result; the thread goes on.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type] # a T: there was no error

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 - handed to the caller, whatever it is
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def wait_done(future: asyncio.Future[T], timeout_s: float) -> bool:
    """Wait for a future without cancelling it; False when the deadline passed first."""
    done, _ = await asyncio.wait((future,), timeout=timeout_s)
    return bool(done)
