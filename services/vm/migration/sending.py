"""The sending of a guest: begun, watched, steered, and ended when it has to be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

from protocol.errors import NovacronError
from services.vm.migration import convergence
from services.vm.migration.convergence import Allow, Convergence, GiveUp
from services.vm.migration.model import Figures, LimitRequest, Limits
from services.vm.migration.needs import NeededDisk
from services.vm.migration.pair import Pair
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.errors import OperationUnknownError

POLL_S = 0.25
# A job that has just begun can't be ended yet.
_ABORT_AGAIN_S = 1.0
# Figures that come late are none; a line that is dead must be found meanwhile.
_READ_S = 1.0
_STEER_S = 10.0
# After the order to end it libvirt still talks to the target, as long as its keepalive lasts.
ABORT_MAX_S = 120.0
# libvirt's call has no deadline of its own; the convergence has.
_CALL_MAX_S = 30 * 86400.0


class Sending:
    """One migration's traffic.

    Args:
        pair: both sides.
        calls: this service's blocking calls.
        told: gets the figures whenever they are read.

    Attributes:
        end_reason: why it is to end; "" while it is not.
        figures: as last read.
    """

    def __init__(self, pair: Pair, calls: DeadlineCalls, told: Callable[[Figures], None]) -> None:
        request = pair.undertaking.request
        self._pair = pair
        self._calls = calls
        # Apart: a late answer must hold up neither the order to end nor the look at where it is,
        # and is no reason to be degraded.
        self._apart = DeadlineCalls(lambda: None)
        self._told = told
        self._convergence = Convergence(
            limit_ms=request.downtime_ms,
            timeout_s=request.timeout_s,
            on_timeout=request.on_timeout,
            stall_s=request.stall_s,
        )
        self._bandwidth_bytes_s = request.bandwidth_bytes_s
        self._allowed_ms = 0  # what libvirt was told
        self._was_open = pair.other.is_open()
        self._asked_s = float("-inf")
        self._is_woken = asyncio.Event()
        self.end_reason = ""
        self.figures = Figures()

    def end(self, reason: str) -> None:
        """Have it end soon, however far it is; the first reason counts."""
        self.end_reason = self.end_reason or reason
        self._is_woken.set()

    async def limit(self, request: LimitRequest) -> Limits:
        """Change the limits from now on; errors as of ``DeadlineCalls.run``."""
        if request.bandwidth_bytes_s is not None:
            work = partial(
                self._pair.sender.limit_bandwidth, self._pair.uuid, request.bandwidth_bytes_s
            )
            await self._run("limit the move of", work)
            self._bandwidth_bytes_s = request.bandwidth_bytes_s
        if request.downtime_ms is not None:
            self._convergence, _ = convergence.change_limit(self._convergence, request.downtime_ms)
            self._is_woken.set()
        return Limits(
            bandwidth_bytes_s=self._bandwidth_bytes_s, downtime_ms=self._convergence.limit_ms
        )

    async def run(self, copied: Sequence[NeededDisk]) -> NovacronError | None:
        """Send it; what libvirt said in the end, None for success.

        What that means for the guest is ``settle``'s to find out.
        """
        had = self._pair.undertaking
        self._was_open = self._pair.other.is_open()
        work = partial(self._pair.sender.migrate, had.uuid, had.route, had.request, copied)
        call = asyncio.create_task(
            self._calls.run(work, subject=had.uuid, what=f"move {had.name}", timeout_s=_CALL_MAX_S)
        )
        ended_s: float | None = None
        while not call.done():
            await self.look()
            if self.end_reason and ended_s is None:
                ended_s = time.monotonic()
            if ended_s is not None and time.monotonic() - ended_s > ABORT_MAX_S:
                call.add_done_callback(_retrieve)
                return OperationUnknownError(f"libvirt has not ended it for {ABORT_MAX_S:g} s")
            self._is_woken.clear()
            await self._wait(call)
        try:
            call.result()
        except NovacronError as exc:
            return exc
        return None

    async def look(self) -> None:
        """Read the figures, and do what they ask for."""
        if self._was_open and not self._pair.other.is_open():
            self.end(f"{self._pair.undertaking.route.node} does not answer any more")
        figures = await self._read()
        self._convergence, actions = convergence.step(self._convergence, time.monotonic(), figures)
        for action in actions:
            if isinstance(action, GiveUp):
                self.end(action.reason)
            else:
                assert isinstance(action, Allow)
        if figures is not None and self._allowed_ms != self._convergence.allowed_ms:
            await self._allow(self._convergence.allowed_ms)
        if self.end_reason:
            await self._end()

    async def follow(self) -> None:
        """One look and a pause, for a sending that this service has not begun itself."""
        await self.look()
        self._is_woken.clear()
        await self._wait(None)

    async def _end(self) -> None:
        """Close its connections, so that nothing waits for a dead line, then ask for its end."""
        if time.monotonic() - self._asked_s < _ABORT_AGAIN_S:
            return
        self._asked_s = time.monotonic()
        for what, work in (
            ("close the connections of", self._pair.sender.sever),
            ("end the move of", self._pair.sender.abort),
        ):
            with contextlib.suppress(NovacronError):  # it has not begun, or is over
                await self._run(what, partial(work, self._pair.uuid))

    async def _wait(self, call: asyncio.Task[None] | None) -> None:
        woken = asyncio.ensure_future(self._is_woken.wait())
        try:
            await asyncio.wait(
                {woken, *([call] if call else [])},
                timeout=POLL_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            woken.cancel()

    async def _read(self) -> Figures | None:
        try:
            figures = await self._apart.run(
                partial(self._pair.sender.figures, self._pair.uuid),
                subject="figures",
                what=f"ask how far {self._pair.undertaking.name} is",
                timeout_s=_READ_S,
            )
        except NovacronError:
            return None  # it has not begun, or is over; its end is told by the call itself
        if not figures.total_bytes:
            return None
        self.figures = figures
        self._told(figures)
        return figures

    async def _run(self, what: str, work: Callable[[], None]) -> None:
        text = f"{what} {self._pair.undertaking.name}"
        await self._apart.run(work, subject=what, what=text, timeout_s=_STEER_S)

    async def _allow(self, downtime_ms: int) -> None:
        with contextlib.suppress(NovacronError):  # tried again with the next figures
            work = partial(self._pair.sender.allow_downtime, self._pair.uuid, downtime_ms)
            await self._run("set the downtime of", work)
            self._allowed_ms = downtime_ms


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
