"""The node's one DWCP port: accept, read the preamble, hand the stream to its transport."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from services.dwcp import handoff
from services.dwcp.errors import (
    PeerNotNovacronError,
    PeerProtocolError,
    PortInUseError,
    VersionMismatchError,
)
from services.dwcp.framing import PREAMBLE, Preamble, Verdict, pack_answer, unpack_preamble
from services.dwcp.sockets import format_address

# One large transfer opens all of its streams within a moment.
_BACKLOG = 1024
# Connections that have not yet said what they are; the next ones are closed at once.
PENDING_MAX = 512
# Out of descriptors or memory: trying again at once would only spin.
_ACCEPT_PAUSE_S = 0.2
# Names the socket of a transport, given its id.
SocketOf = Callable[[str], Path]
# Says which transports to try for a stream, in order; a verdict refuses it.
Choose = Callable[[Preamble], list[str] | Verdict]
# Is told which transport took a stream.
Given = Callable[[Preamble, str], None]


class Listener:
    """Owns the listening socket.

    Args:
        choose: decides where a stream goes.
        given: is told where it went.
        socket_of: names a transport's socket.
        preamble_s: a connection must have said what it is within this time.
        log: the manager's.
    """

    def __init__(
        self,
        choose: Choose,
        given: Given,
        socket_of: SocketOf,
        *,
        preamble_s: float,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._choose = choose
        self._given = given
        self._socket_of = socket_of
        self._preamble_s = preamble_s
        self._log = log
        self._sock: socket.socket | None = None
        self._channels: dict[str, socket.socket] = {}
        self._greetings: set[asyncio.Task[None]] = set()
        self.address = ""

    def open(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            PortInUseError: the address can't be used; the message says why.
        """
        flags = socket.AI_PASSIVE | socket.AI_NUMERICSERV
        try:
            # Of text, Python makes bytes by a codec whose import takes 3 ms.
            name = host.encode() if host.isascii() else host
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
            family, kind, _protocol, _name, address = found[0]
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as exc:
            raise PortInUseError(f"can't listen on {host}:{port}: {exc.strerror}") from exc
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError as exc:
            sock.close()
            raise PortInUseError(f"can't listen on {host}:{port}: {exc.strerror}") from exc
        self._sock = sock
        self.address = format_address(sock.getsockname())

    async def serve(self) -> None:
        """Accept until cancelled."""
        assert self._sock is not None
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError as exc:
                self._log.warning("accept_failed", reason=exc.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            if len(self._greetings) >= PENDING_MAX:
                sock.close()
                continue
            task = asyncio.create_task(self._greet(sock, format_address(address)))
            self._greetings.add(task)
            task.add_done_callback(self._greetings.discard)

    async def close(self) -> None:
        """Close everything; streams that were handed over live on."""
        for task in tuple(self._greetings):
            task.cancel()
        await asyncio.gather(*self._greetings, return_exceptions=True)
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def _greet(self, sock: socket.socket, peer: str) -> None:
        with sock:
            try:
                async with asyncio.timeout(self._preamble_s):
                    data = await _receive_preamble(sock)
                preamble = unpack_preamble(data)
            except (OSError, TimeoutError, PeerNotNovacronError) as exc:
                self._log.info("stream_refused", peer=peer, reason=str(exc) or "no preamble")
                return
            except (VersionMismatchError, PeerProtocolError) as exc:
                self._log.info("stream_refused", peer=peer, reason=exc.message)
                is_version = isinstance(exc, VersionMismatchError)
                _answer(sock, Verdict.VERSION if is_version else Verdict.MALFORMED)
                return
            chosen = self._choose(preamble)
            verdict = chosen if isinstance(chosen, Verdict) else Verdict.BUSY
            if isinstance(chosen, list):
                for transport in chosen:
                    if self._give(transport, data, peer, sock):
                        self._given(preamble, transport)
                        return
            self._log.info("stream_refused", peer=peer, reason=verdict.name)
            _answer(sock, verdict)

    def _give(self, transport: str, data: bytes, peer: str, sock: socket.socket) -> bool:
        # A channel breaks when its transport dies; the second attempt connects anew.
        return any(self._give_once(transport, data, peer, sock) for _attempt in range(2))

    def _give_once(self, transport: str, data: bytes, peer: str, sock: socket.socket) -> bool:
        channel = self._channels.get(transport)
        try:
            if channel is None:
                channel = handoff.connect(self._socket_of(transport))
                self._channels[transport] = channel
            handoff.give(channel, data, peer, sock)
        except OSError:
            if (broken := self._channels.pop(transport, None)) is not None:
                broken.close()
            return False
        return True


async def _receive_preamble(sock: socket.socket) -> bytes:
    # Never a byte more than the preamble: what follows is the transport's to read.
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < PREAMBLE.size:
        part = await loop.sock_recv(sock, PREAMBLE.size - len(data))
        if not part:
            raise ConnectionAbortedError("closed before it said what it is")
        data += part
    return data


def _answer(sock: socket.socket, verdict: Verdict) -> None:
    with contextlib.suppress(OSError):
        sock.send(pack_answer(verdict))
