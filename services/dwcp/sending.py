"""The shell around a Sender: dials streams, reads the source on the pool."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import PurePath

from services.dwcp.compress import Compressor, Packed
from services.dwcp.dial import Dial, DialPlan
from services.dwcp.errors import BusyError, DwcpError
from services.dwcp.exchange import Action, CheckSource, Open, Pack
from services.dwcp.files import SourceFile
from services.dwcp.framing import Preamble
from services.dwcp.model import Direction, Offer, SendOrder
from services.dwcp.plan import (
    ChunkPlan,
    check_name,
    choose_chunk_bytes,
    grant_streams,
    reservation_bytes,
)
from services.dwcp.sender import Sender
from services.dwcp.session import Resources, Session
from services.dwcp.streams import Stream


class SendSession(Session):
    """Sends one file; see ``open_send_session``.

    Args:
        resources: shared with the other sessions.
        order: from the manager.
        source: the open file; closed by the session.
        offer: what the receiver is told.
    """

    def __init__(
        self, resources: Resources, order: SendOrder, source: SourceFile, offer: Offer
    ) -> None:
        settings = resources.settings
        self._order = order
        self._source = source
        self._plan = ChunkPlan(offer.size_bytes, offer.chunk_bytes)
        self._streams_max = offer.streams_max
        self._dials: dict[int, Dial] = {}
        self._compressor = Compressor(enabled=order.compression, level=order.level)
        self._sender = Sender(
            transfer=bytes.fromhex(order.transfer),
            offer=offer,
            chunks=source.chunks(self._plan),
            streams=min(order.streams, offer.streams_max),
            ahead=settings.threads,
            stall_s=settings.stall_s,
            now_s=time.monotonic(),
        )
        super().__init__(
            resources,
            self._sender,
            direction=Direction.SEND,
            file=order.file,
            peer=order.peer,
        )
        self.reserve(reservation_bytes(self._plan, offer.streams_max))

    def carry_out(self, action: Action) -> None:
        """Open, Pack and CheckSource."""
        match action:
            case Open(stream):
                self._dial(stream)
            case Pack(chunk):
                self.submit(partial(self._pack, chunk), partial(self._on_packed, chunk))
            case CheckSource():
                self.submit(self._source.check_unchanged, self._on_checked)
            case _:
                raise AssertionError(action)

    def tick(self, now_s: float) -> None:
        """Time passed."""
        for dial in tuple(self._dials.values()):
            dial.tick(now_s)
        super().tick(now_s)

    def on_drained(self, stream: int) -> None:
        """A stream takes the next chunk."""
        self._sender.drained(stream, time.monotonic())
        self.pump()

    def on_sent(self) -> None:
        """Bytes have been given to the kernel."""
        self.exchange.moved(time.monotonic())

    def on_end(self) -> None:
        """Stop dialling; close at once, except that stream 0 may still have something to say.

        After a failure nobody wants the chunks that wait in the kernel, and on a slow path they
        would be in the way of the reason.
        """
        for dial in self._dials.values():
            dial.close()
        self._dials.clear()
        for stream in self.streams.values():
            if self.exchange.error is None:
                stream.close()
            elif stream.index != 0 or stream.is_drained:
                stream.abort()
            else:
                stream.finish()

    def close_files(self) -> None:
        """Close the source."""
        self._source.close()

    def _pack(self, chunk: int) -> Packed | None:
        if self._sender.is_ended:  # nobody wants it any more
            return None
        return self._compressor.pack(self._source.read(self._plan, chunk))

    def _on_packed(self, chunk: int, packed: Packed | None) -> None:
        self._sender.packed(chunk, packed, time.monotonic())

    def _on_checked(self, _nothing: None) -> None:
        self._sender.checked(time.monotonic())

    def _dial(self, stream: int) -> None:
        settings = self.resources.settings
        plan = DialPlan(
            addresses=self._order.addresses,
            preamble=Preamble(self._sender.transfer, stream, self._streams_max),
            congestion=self._order.congestion,
            connect_s=settings.connect_s,
            stall_s=settings.stall_s,
        )
        dial = Dial(
            self.resources.selector,
            plan,
            partial(self._on_opened, stream),
            partial(self._on_open_failed, stream),
            time.monotonic,
        )
        self._dials[stream] = dial
        dial.start()

    def _on_opened(self, index: int, sock: socket.socket, congestion: str) -> None:
        self._dials.pop(index, None)
        stream = Stream(self.resources.selector, sock, index, self._sender.transfer, self)
        self.add_stream(stream, congestion)
        self._sender.opened(index, time.monotonic())
        self.pump()

    def _on_open_failed(self, index: int, error: DwcpError) -> None:
        self._dials.pop(index, None)
        self._sender.open_failed(index, error)
        self.pump()


def open_send_session(resources: Resources, order: SendOrder) -> SendSession:
    """Open the file and plan its transfer.

    Args:
        resources: of the process.
        order: from the manager.

    Raises:
        DwcpError: the file can't be sent; nothing was started.
    """
    name = check_name(PurePath(order.file).name)
    free_bytes = resources.free_bytes
    source = SourceFile(order.file)
    try:
        chunk_bytes = choose_chunk_bytes(
            source.size_bytes, streams_max=order.streams_max, buffer_bytes=free_bytes
        )
        plan = ChunkPlan(source.size_bytes, chunk_bytes)
        wanted = min(order.streams_max, max(1, plan.chunks))
        streams_max = grant_streams(plan, wanted, free_bytes=free_bytes)
        if streams_max == 0:
            raise BusyError("the memory for transfers is taken by others at the moment")
        offer = Offer(
            name=name,
            size_bytes=source.size_bytes,
            allocated_bytes=source.allocated_bytes,
            chunk_bytes=chunk_bytes,
            streams_max=streams_max,
        )
        return SendSession(resources, order, source, offer)
    except BaseException:
        source.close()
        raise
