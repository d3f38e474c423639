"""Serial consoles of guests, carried over calls: what the guest prints is read, what is typed sent.

A console belongs to who opened it, holds a bounded amount of output, and is closed when nobody has
read from it for a while. libvirt's stream does not block; its callback comes in libvirt's thread
and hands over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import libvirt

from services.vm.libvirt_adapter import translated
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.driver import Driver, Guest
from services.vm.operations.errors import OperationRefusedError
from services.vm.operations.model import ConsoleOutput, ConsoleTurn

T = TypeVar("T")

CONSOLES_MAX = 16
# A screenful is 4 KiB; a guest that prints faster than anybody reads loses the oldest.
OUTPUT_BYTES_MAX = 256 << 10
INPUT_BYTES_MAX = 64 << 10
# A reader asks again at once; one that has not for this long is gone.
IDLE_S = 60.0
_CHUNK_BYTES = 16 << 10
_WOULD_BLOCK = -2
_SEND_PAUSE_S = 0.02
_SEND_TIMEOUT_S = 10.0


class Stream:
    """A guest's console as libvirt carries it. Adapter; ``close`` and ``send`` may block.

    Args:
        driver: of the guest.
        uuid: the guest's.
        arrived: told in libvirt's thread what the guest printed.
        ended: told there, once, why there will be no more.
    """

    def __init__(
        self,
        driver: Driver,
        uuid: str,
        arrived: Callable[[bytes], None],
        ended: Callable[[str], None],
    ) -> None:
        self._arrived = arrived
        self._ended = ended
        connection = driver.connection()

        def work(domain: Any) -> Any:  # Any: libvirt's objects
            stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
            domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
            return stream

        self._stream = driver.act(uuid, "open its console", work)
        events = (
            libvirt.VIR_STREAM_EVENT_READABLE
            | libvirt.VIR_STREAM_EVENT_HANGUP
            | libvirt.VIR_STREAM_EVENT_ERROR
        )
        with translated("follow its console"):
            self._stream.eventAddCallback(events, self._happened, None)

    def send(self, data: bytes) -> int:
        """Send what was typed; how much of it was taken, 0 when the guest does not read."""
        with translated("type into its console"):
            taken = int(self._stream.send(data))
        return 0 if taken == _WOULD_BLOCK else taken

    def close(self) -> None:
        """End it; the guest's side stays."""
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.eventRemoveCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.abort()

    def _happened(self, _stream: Any, _events: int, _opaque: Any) -> None:  # Any: libvirt's objects
        try:
            while isinstance(data := self._stream.recv(_CHUNK_BYTES), bytes):
                if not data:
                    self._end("the guest's console was closed")
                    return
                self._arrived(data)
        except libvirt.libvirtError as exc:
            self._end(str(exc.get_error_message() or exc))

    def _end(self, reason: str) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.eventRemoveCallback()
        self._ended(reason)


class Console:
    """One open console and what it holds; belongs to the loop."""

    def __init__(self, number: int, guest: Guest, caller: str, output_max: int) -> None:
        self.number = number
        self.guest = guest
        self.caller = caller
        self.stream: Stream | None = None
        self.read_s = time.monotonic()
        self._output = bytearray()
        self._output_max = output_max
        self._dropped = 0
        self._ended = ""
        self._news = asyncio.Event()

    def arrived(self, data: bytes) -> None:
        """The guest printed something."""
        self._output += data
        excess = len(self._output) - self._output_max
        if excess > 0:
            del self._output[:excess]
            self._dropped += excess
        self._news.set()

    def end(self, reason: str) -> None:
        """There will be no more."""
        self._ended = self._ended or reason
        self._news.set()

    async def read(self, wait_s: float) -> ConsoleOutput:
        """What came since the last read; waits for something."""
        self.read_s = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        self._news.clear()
        self.read_s = time.monotonic()
        data, dropped = bytes(self._output), self._dropped
        self._output.clear()
        self._dropped = 0
        if self._ended:
            self._news.set()
        return ConsoleOutput(id=self.number, data=data, dropped_bytes=dropped, ended=self._ended)


class Consoles:
    """All open consoles."""

    def __init__(self, driver: Driver, calls: DeadlineCalls, *, timeout_s: float) -> None:
        self._driver = driver
        self._calls = calls
        self._timeout_s = timeout_s
        self._open: dict[int, Console] = {}
        self._next = 1
        self._watch: asyncio.Task[None] | None = None

    async def open(self, guest: Guest, caller: str) -> ConsoleOutput:
        """Open one.

        Raises:
            OperationRefusedError: the guest does not run, or too many are open.
            LibvirtRefusedError: it has no console, or somebody else has it open.
        """
        if not guest.state.is_active:
            raise OperationRefusedError(f"{guest.name} does not run; start it first")
        if len(self._open) >= CONSOLES_MAX:
            raise OperationRefusedError(f"{CONSOLES_MAX} consoles are open; close one first")
        number, self._next = self._next, self._next + 1
        console = Console(number, guest, caller, OUTPUT_BYTES_MAX)
        self._open[number] = console
        loop = asyncio.get_running_loop()

        def hand_over(to: Callable[[Any], None], what: Any) -> None:  # Any: bytes or str
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(to, what)

        work = partial(
            Stream,
            self._driver,
            guest.uuid,
            partial(hand_over, console.arrived),
            partial(hand_over, console.end),
        )
        try:
            console.stream = await self._run(guest, "open the console of", work)
        except BaseException:
            del self._open[number]
            raise
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._close_idle(), name="consoles-idle")
        return ConsoleOutput(id=number)

    async def read(self, turn: ConsoleTurn, caller: str) -> ConsoleOutput:
        """What the guest printed; after its end the console is closed."""
        console = self._mine(turn.id, caller)
        found = await console.read(turn.wait_s)
        if found.ended:
            await self._close(console)
        return found

    async def write(self, turn: ConsoleTurn, caller: str) -> ConsoleOutput:
        """Type into the guest.

        Raises:
            OperationRefusedError: the guest does not read what is typed.
        """
        console = self._mine(turn.id, caller)
        data, until_s = turn.data[:INPUT_BYTES_MAX], time.monotonic() + _SEND_TIMEOUT_S
        while data and console.stream is not None:
            work = partial(console.stream.send, data)
            taken = await self._run(console.guest, "type into the console of", work)
            data = data[taken:]
            if data and not taken:
                if time.monotonic() > until_s:
                    raise OperationRefusedError(f"{console.guest.name} does not read what is typed")
                await asyncio.sleep(_SEND_PAUSE_S)
        return ConsoleOutput(id=console.number)

    async def close(self, turn: ConsoleTurn, caller: str) -> ConsoleOutput:
        """End a console."""
        await self._close(self._mine(turn.id, caller))
        return ConsoleOutput(id=turn.id, ended="closed")

    async def close_all(self) -> None:
        """End them all."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        for console in tuple(self._open.values()):
            await self._close(console)

    def _mine(self, number: int, caller: str) -> Console:
        console = self._open.get(number)
        if console is None or console.caller != caller:
            raise OperationRefusedError(f"you have no open console {number}")
        return console

    async def _close(self, console: Console) -> None:
        self._open.pop(console.number, None)
        console.end("closed")
        if console.stream is not None:
            await self._calls.abandon(console.stream.close)

    async def _close_idle(self) -> None:
        while self._open:
            await asyncio.sleep(IDLE_S / 4)
            limit_s = time.monotonic() - IDLE_S
            for console in tuple(self._open.values()):
                if console.read_s < limit_s:
                    await self._close(console)

    async def _run(self, guest: Guest, verb: str, work: partial[T]) -> T:
        return await self._calls.run(
            work, subject=guest.uuid, what=f"{verb} {guest.name}", timeout_s=self._timeout_s
        )
