"""One open TCP stream on a selector: frames in, queued bytes out."""

from __future__ import annotations

import errno
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Protocol

from services.dwcp.errors import DwcpError, PeerLostError, StalledError
from services.dwcp.framing import FrameAssembler, Header

EventHandler = Callable[[int], None]
# One stream gives way to the others after this much, so that no peer can hold the loop.
_TURN_BYTES = 2 << 20
_DISCARD_BYTES = 64 << 10
# struct linger: on, 0 seconds; the peer gets a reset.
_LINGER_NOT = struct.pack("ii", 1, 0)


class StreamOwner(Protocol):
    """Who is told what happens on a stream."""

    def on_frame(self, stream: int, header: Header, payload: bytearray) -> None:
        """A frame is complete."""

    def on_received(self) -> None:
        """Bytes arrived."""

    def on_sent(self) -> None:
        """Bytes have been given to the kernel."""

    def on_drained(self, stream: int) -> None:
        """Everything queued has been given to the kernel."""

    def on_lost(self, stream: int, error: DwcpError) -> None:
        """The peer closed the stream or it broke; it is closed here too."""


class Stream:
    """A connected, answered stream.

    Args:
        selector: of the loop; the stream registers itself.
        sock: non-blocking; owned from here on.
        index: number within the transfer.
        transfer: its 16 bytes.
        owner: who is told.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        sock: socket.socket,
        index: int,
        transfer: bytes,
        owner: StreamOwner,
    ) -> None:
        self.index = index
        self.sock = sock
        self._selector = selector
        self._owner = owner
        self._assembler = FrameAssembler(transfer)
        self._out: deque[memoryview] = deque()
        self._paused = False
        self._discarding = False
        self._finishing = False
        self._mask = selectors.EVENT_READ
        self.is_open = True
        selector.register(sock, self._mask, self.on_event)

    @property
    def is_drained(self) -> bool:
        """Nothing waits for the kernel."""
        return not self._out

    def write(self, parts: tuple[bytes, ...]) -> None:
        """Queue bytes and send as many as the kernel takes at once."""
        if self.is_open:
            self._out.extend(memoryview(part) for part in parts if part)
            self._watch()

    def pause(self) -> None:
        """Stop reading until ``resume``; the kernel's buffer and the peer then fill up."""
        self._paused = True
        self._watch()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        self._watch()

    def discard(self) -> None:
        """From now on read only to throw away, until the peer closes.

        Closing while bytes arrive would send a reset, which can overtake and destroy our last
        frame on its way.
        """
        self._discarding = True
        self.resume()

    def finish(self) -> None:
        """Send what is queued, tell the peer that this was all, and discard what it says."""
        self._finishing = True
        self.discard()

    def abort(self) -> None:
        """Close the stream and throw away what the kernel has not yet sent."""
        if self.is_open:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self.close()

    def close(self) -> None:
        """Close the stream; more than once is fine."""
        if self.is_open:
            self.is_open = False
            self._out.clear()
            if self._mask:
                self._selector.unregister(self.sock)
            self.sock.close()

    def on_event(self, mask: int) -> None:
        """The selector found the socket ready."""
        try:
            if mask & selectors.EVENT_WRITE:
                self._send()
            if mask & selectors.EVENT_READ and self.is_open and not self._paused:
                self._receive()
        except DwcpError as exc:  # not a frame of ours
            self._lose(exc)
        except OSError as exc:
            if exc.errno == errno.ETIMEDOUT:  # TCP_USER_TIMEOUT, which is our own limit
                self._lose(StalledError("the other node does not take or confirm what is sent"))
            else:
                self._lose(PeerLostError(f"the connection broke: {exc.strerror or exc}"))

    def _send(self) -> None:
        budget = _TURN_BYTES
        while self._out and budget > 0:
            try:
                count = self.sock.send(self._out[0])
            except BlockingIOError:
                break
            budget -= count
            self._owner.on_sent()
            if count == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][count:]
        if not self._out:
            self._watch()
            if self._finishing:
                self.sock.shutdown(socket.SHUT_WR)
            self._owner.on_drained(self.index)

    def _receive(self) -> None:
        budget = _TURN_BYTES
        while budget > 0 and self.is_open and not self._paused:
            try:
                if self._discarding:
                    count = len(self.sock.recv(_DISCARD_BYTES))
                else:
                    count = self.sock.recv_into(self._assembler.space())
            except BlockingIOError:
                return
            if count == 0:
                self._lose(PeerLostError("the other node closed the connection"))
                return
            budget -= count
            if not self._discarding:
                self._owner.on_received()
                if (frame := self._assembler.advance(count)) is not None:
                    self._owner.on_frame(self.index, *frame)

    def _lose(self, error: DwcpError) -> None:
        if self.is_open:
            self.close()
            self._owner.on_lost(self.index, error)

    def _watch(self) -> None:
        if not self.is_open:
            return
        mask = selectors.EVENT_WRITE if self._out else 0
        mask |= 0 if self._paused else selectors.EVENT_READ
        if mask == self._mask:
            return
        if self._mask == 0:
            self._selector.register(self.sock, mask, self.on_event)
        elif mask == 0:
            self._selector.unregister(self.sock)
        else:
            self._selector.modify(self.sock, mask, self.on_event)
        self._mask = mask
