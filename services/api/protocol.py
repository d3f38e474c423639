"""uvicorn's HTTP/1.1 connection, with the bounds that it leaves to the proxy in front of it.

A request has to be complete within a deadline, and the number of connections is limited. At the
limit, the connection that has waited longest for a request is closed in favour of the new one,
so that clients which open connections and say nothing keep nobody out.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from services.api.problem import problem_response

CONNECTIONS_MAX = 512
REQUEST_TIMEOUT_S = 10.0
# Where a request's scope has the PeerCertificate of its connection.
PEER_CERTIFICATE = "novacron.peer_certificate"
_INCOMPLETE = (h11.IDLE, h11.SEND_BODY)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A client certificate that the TLS handshake has verified.

    Attributes:
        subject: as ``ssl.SSLSocket.getpeercert`` gives it.
        fingerprint: SHA-256 of the certificate, hexadecimal.
    """

    subject: tuple[tuple[tuple[str, str], ...], ...]
    fingerprint: str


class ApiServerState(ServerState):
    """What the connections of a server share.

    Args:
        connections_max: open at once.
        request_timeout_s: until a request is complete.

    Attributes:
        waiting: connections without a complete request, the one that waits longest first.
        refused: malformed requests.
        evicted: connections closed for a new one.
        timed_out: connections closed because their request took too long.
    """

    def __init__(
        self,
        *,
        connections_max: int = CONNECTIONS_MAX,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        super().__init__()
        self.connections_max = connections_max
        self.request_timeout_s = request_timeout_s
        self.waiting: dict[ApiProtocol, None] = {}
        self.refused = 0
        self.evicted = 0
        self.timed_out = 0


class ApiProtocol(H11Protocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # Any: uvicorn's own
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def state(self) -> ApiServerState:
        """What is shared with the other connections."""
        assert isinstance(self.server_state, ApiServerState)
        return self.server_state

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection in, at the cost of another one if there are too many."""
        if len(self.connections) >= self.state.connections_max:
            victim = next(iter(self.state.waiting), None)
            self.state.evicted += 1
            if victim is None:
                super().connection_made(transport)
                transport.abort()
                return
            victim.drop()
        super().connection_made(transport)
        if (certificate := _peer_certificate(transport)) is not None:
            self.app = _with_certificate(self.app, certificate)
        self._review()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the deadline."""
        super().connection_lost(exc)
        self._settle()

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and note whether they complete a request."""
        super().data_received(data)
        self._review()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one's body."""
        super().on_response_complete()
        self._review()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the form of all other errors, and close."""
        self.state.refused += 1
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # in the middle of another answer
            return
        response = problem_response(400, msg, path="", headers={"Connection": "close"})
        head = h11.Response(status_code=400, headers=response.raw_headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def drop(self) -> None:
        """Close at once."""
        self.connections.discard(self)
        self._settle()
        self.transport.abort()

    def _review(self) -> None:
        is_waiting = self.conn.their_state in _INCOMPLETE and not self.transport.is_closing()
        if not is_waiting:
            self._settle()
        elif self._deadline is None:
            self.state.waiting[self] = None
            self._deadline = self.loop.call_later(self.state.request_timeout_s, self._expire)

    def _settle(self) -> None:
        self.state.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self.state.timed_out += 1
        self.drop()


def _peer_certificate(transport: asyncio.Transport) -> PeerCertificate | None:
    tls = transport.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if not der:
        return None
    subject = tls.getpeercert().get("subject", ())
    return PeerCertificate(subject, hashlib.sha256(der).hexdigest())


def _with_certificate(app: ASGIApp, certificate: PeerCertificate) -> ASGIApp:
    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, PEER_CERTIFICATE: certificate}, receive, send)

    return tell
