"""One side of one transfer with its sockets, files and memory: the shell around an exchange.

A session lives until its exchange has ended, its streams are closed and none of its jobs runs on
the pool any more; only then may its files be closed, for a job could write to a descriptor that
meanwhile belongs to another file.
"""

from __future__ import annotations

import selectors
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.dwcp.errors import DwcpError
from services.dwcp.exchange import Action, End, Exchange, Write
from services.dwcp.framing import Header
from services.dwcp.model import (
    Direction,
    TransferState,
    TransferStatus,
    TransportSettings,
)
from services.dwcp.pool import Pool
from services.dwcp.rate import RateMeter
from services.dwcp.sockets import read_info
from services.dwcp.streams import Stream

R = TypeVar("R")
# However slow the path: no peer may hold a session that has ended for longer.
LINGER_S_MAX = 30.0


@dataclass(slots=True)
class Resources:
    """What the sessions of one transport process share.

    Attributes:
        selector: of the loop.
        pool: for what blocks or computes.
        settings: of the process.
        transport: its id.
        free_bytes: of ``settings.buffer_bytes`` that no session has reserved.
        disk_claims: bytes that accepted transfers will still write, by session.
    """

    selector: selectors.BaseSelector
    pool: Pool
    settings: TransportSettings
    transport: str
    free_bytes: int
    disk_claims: dict[int, int] = field(default_factory=dict)


class Session(ABC):
    """Base of SendSession and ReceiveSession.

    Args:
        resources: shared with the other sessions.
        exchange: this side of the transfer.
        direction: which side that is.
        file, peer: for the status.
    """

    def __init__(
        self,
        resources: Resources,
        exchange: Exchange,
        *,
        direction: Direction,
        file: str,
        peer: str,
    ) -> None:
        self.resources = resources
        self.exchange = exchange
        self.direction = direction
        self.file = file
        self.peer = peer
        self.streams: dict[int, Stream] = {}
        self.congestion = ""
        self._jobs = 0
        self._reserved_bytes = 0
        self._streams_most = 0
        self._rtt_s: float | None = None
        self._started_s = time.time()
        self._ended_s: float | None = None
        self._lingers_since_s: float | None = None
        self._released = False
        self._rate = RateMeter(time.monotonic())

    @property
    def key(self) -> tuple[bytes, Direction]:
        """Identifies the session within its process."""
        return self.exchange.transfer, self.direction

    @property
    def is_over(self) -> bool:
        """Everything has been given back."""
        return self._released and self._jobs == 0

    def pump(self) -> None:
        """Carry out what the exchange has ordered."""
        actions = self.exchange.actions
        while actions:
            match actions.popleft():
                case Write(stream, parts):
                    if (found := self.streams.get(stream)) is not None:
                        found.write(parts)
                case End():
                    self._read_rtt()
                    self._ended_s = time.time()
                    self._lingers_since_s = time.monotonic()
                    self.on_end()
                case action:
                    self.carry_out(action)

    def tick(self, now_s: float) -> None:
        """Time passed; called several times per second."""
        self.exchange.tick(now_s)
        self._rate.step(now_s, self.exchange.done_bytes)
        self._read_rtt()
        self.pump()
        if self._lingers_since_s is not None and self._has_lingered(self._lingers_since_s, now_s):
            self.close_streams()
        self._release_if_done()

    def add_stream(self, stream: Stream, congestion: str) -> None:
        """Take in an open stream."""
        self.streams[stream.index] = stream
        self._streams_most = max(self._streams_most, len(self.streams))
        if stream.index == 0:
            self.congestion = congestion

    def on_frame(self, stream: int, header: Header, payload: bytearray) -> None:
        """A frame arrived."""
        self.exchange.frame(stream, header, payload, time.monotonic())
        self.pump()

    def on_received(self) -> None:
        """Bytes arrived."""
        self.exchange.moved(time.monotonic())

    def on_lost(self, stream: int, error: DwcpError) -> None:
        """A stream broke or was closed by the peer."""
        self.exchange.lost(stream, error, time.monotonic())
        self.pump()
        if self.exchange.is_ended and stream == 0:
            self.close_streams()

    def fail(self, error: DwcpError) -> None:
        """End the transfer for a reason on this side."""
        self.exchange.fail(error)
        self.pump()

    def abandon(self) -> None:
        """Close everything now; the process ends."""
        self.close_streams()
        self._release_if_done()

    def status(self) -> TransferStatus:
        """How the transfer stands."""
        exchange = self.exchange
        ended = exchange.is_ended
        elapsed_s = max(1e-6, (self._ended_s or time.time()) - self._started_s)
        rate = exchange.done_bytes / elapsed_s if ended else self._rate.rate_bytes_s
        left = exchange.size_bytes - exchange.done_bytes
        return TransferStatus(
            transfer=exchange.transfer.hex(),
            direction=self.direction,
            state=exchange.state,
            file=self.file,
            peer=self.peer,
            transport=self.resources.transport,
            size_bytes=exchange.size_bytes,
            done_bytes=exchange.done_bytes,
            data_bytes=exchange.data_bytes,
            wire_bytes=exchange.wire_bytes,
            rate_bytes_s=rate,
            eta_s=left / rate if rate and exchange.state is TransferState.MOVING else None,
            streams=self._streams_most if ended else sum(s.is_open for s in self.streams.values()),
            congestion=self.congestion,
            rtt_s=self._rtt_s,
            started_s=self._started_s,
            ended_s=self._ended_s,
            error=exchange.error.code if exchange.error is not None else "",
            message=exchange.error.message if exchange.error is not None else "",
        )

    def submit(self, work: Callable[[], R], done: Callable[[R], None]) -> None:
        """Run work of this session on the pool; what it raises fails the transfer."""
        self._jobs += 1

        def finish(result: R) -> None:
            self._jobs -= 1
            done(result)
            self.pump()
            self._release_if_done()

        def fail(error: DwcpError) -> None:
            self._jobs -= 1
            self.fail(error)
            self._release_if_done()

        self.resources.pool.submit(work, finish, fail)

    def reserve(self, size_bytes: int) -> None:
        """Take memory for chunks; given back at the end."""
        assert self._reserved_bytes == 0
        assert size_bytes <= self.resources.free_bytes
        self._reserved_bytes = size_bytes
        self.resources.free_bytes -= size_bytes

    def close_streams(self) -> None:
        """Close all streams."""
        for stream in self.streams.values():
            stream.close()

    @abstractmethod
    def carry_out(self, action: Action) -> None:
        """Carry out an action that belongs to one direction."""

    @abstractmethod
    def on_sent(self) -> None:
        """Bytes have been given to the kernel."""

    @abstractmethod
    def on_drained(self, stream: int) -> None:
        """All that was queued on a stream is with the kernel."""

    @abstractmethod
    def on_end(self) -> None:
        """The exchange has ended: see that the last frame still gets out."""

    @abstractmethod
    def close_files(self) -> None:
        """Close what was opened, once; nothing else of the session runs on the pool then."""

    def _has_lingered(self, since_s: float, now_s: float) -> bool:
        # The last frame may stand behind a chunk on a slow path.
        if now_s >= since_s + LINGER_S_MAX:
            return True
        return now_s >= max(since_s, self.exchange.moved_s) + self.resources.settings.stall_s

    def _read_rtt(self) -> None:
        if (first := self.streams.get(0)) is not None and first.is_open:
            self._rtt_s = read_info(first.sock).rtt_s or self._rtt_s

    def _release_if_done(self) -> None:
        if self._released or self._jobs or not self.exchange.is_ended:
            return
        if any(stream.is_open for stream in self.streams.values()):
            return
        self._released = True
        self.resources.free_bytes += self._reserved_bytes
        self.resources.disk_claims.pop(id(self), None)
        self.submit(self.close_files, lambda _nothing: None)
