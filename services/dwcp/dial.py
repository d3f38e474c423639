"""Opening one stream to a peer: connect, say which stream it is, hear the answer. Never blocks."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass

from services.dwcp.errors import (
    ConnectionRefusedByPeerError,
    DwcpError,
    PeerBusyError,
    PeerNotNovacronError,
    PeerProtocolError,
    StalledError,
)
from services.dwcp.framing import ANSWER, MAGIC, Preamble, Verdict, pack_preamble, unpack_answer
from services.dwcp.model import Address
from services.dwcp.sockets import prepare_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """Whom to call and how.

    Attributes:
        addresses: tried in order, each for ``connect_s``.
        preamble: which stream this is.
        congestion: TCP congestion control to ask for.
        connect_s: for one TCP connection.
        stall_s: for the answer, and the stream's own limit later.
    """

    addresses: tuple[Address, ...]
    preamble: Preamble
    congestion: str
    connect_s: float
    stall_s: float


class Dial:
    """One attempt to open a stream; ends by calling ``opened`` or ``failed``, once.

    Args:
        selector: of the loop.
        plan: whom to call.
        opened: takes over the socket; the text is the congestion control in use.
        failed: is told why not.
        clock: monotonic time.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        plan: DialPlan,
        opened: Callable[[socket.socket, str], None],
        failed: Callable[[DwcpError], None],
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._selector = selector
        self._plan = plan
        self._opened = opened
        self._failed = failed
        self._left = list(plan.addresses)
        self._reason = "no address"
        self._sock: socket.socket | None = None
        self._connected = False
        self._answer = b""
        self._deadline_s = 0.0
        self._congestion = ""

    def start(self) -> None:
        """Begin with the first address that lets us."""
        while self._left:
            address = self._left.pop(0)
            try:
                self._connect(address)
            except OSError as exc:
                self._reason = exc.strerror or str(exc)
                self.close()
            else:
                return
        self._failed(ConnectionRefusedByPeerError(f"can't connect: {self._reason}"))

    def tick(self, now_s: float) -> None:
        """Time passed."""
        if self._sock is None or now_s < self._deadline_s:
            return
        self.close()
        if self._connected:
            self._failed(StalledError(f"the peer gave no answer for {self._plan.stall_s:g} s"))
        else:
            self._reason = f"no connection within {self._plan.connect_s:g} s"
            self.start()

    def close(self) -> None:
        """Give up silently; more than once is fine."""
        if self._sock is not None:
            self._selector.unregister(self._sock)
            self._sock.close()
            self._sock = None

    def _connect(self, address: Address) -> None:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._selector.register(sock, selectors.EVENT_WRITE, self._on_event)
        self._sock = sock
        self._deadline_s = self._clock() + self._plan.connect_s
        self._congestion = prepare_stream(
            sock, congestion=self._plan.congestion, stall_s=self._plan.stall_s
        )
        code = sock.connect_ex((address.host, address.port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))

    def _on_event(self, _mask: int) -> None:
        assert self._sock is not None
        try:
            if self._connected:
                self._read_answer(self._sock)
            else:
                self._greet(self._sock)
        except DwcpError as exc:
            self.close()
            self._failed(exc)

    def _greet(self, sock: socket.socket) -> None:
        try:
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            sock.send(pack_preamble(self._plan.preamble))  # an empty buffer takes 32 bytes
        except OSError as exc:
            self._reason = exc.strerror or str(exc)
            self.close()
            self.start()
            return
        self._connected = True
        self._deadline_s = self._clock() + self._plan.stall_s
        self._selector.modify(sock, selectors.EVENT_READ, self._on_event)

    def _read_answer(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(ANSWER.size - len(self._answer))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise PeerNotNovacronError("the peer closed the connection instead of answering")
        self._answer += data
        if len(self._answer) < ANSWER.size:
            if self._answer[: len(MAGIC)] != MAGIC[: len(self._answer)]:
                raise PeerNotNovacronError("what answers there does not speak DWCP")
            return
        match unpack_answer(self._answer):
            case Verdict.OK:
                self._selector.unregister(sock)
                self._sock = None
                self._opened(sock, self._congestion)
            case Verdict.BUSY:
                raise PeerBusyError("the other node takes no further transfer at the moment")
            case verdict:
                raise PeerProtocolError(f"the peer refused the stream: {verdict.name}")
