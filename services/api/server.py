"""The outermost layer of the gateway, and the listening server around it.

uvicorn is used for its protocol and its orderly shutdown. Its own main loop is left out: it wakes
ten times a second to look at a flag and to format the date, in a process that is to sleep while
nobody asks. Its signal handlers are left out too; the supervisor says when to stop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocol.messages.metrics import MetricKind, MetricSample
from services.api.problem import crash_response
from services.api.protocol import ApiProtocol, ApiServerState
from services.api.tls import HANDSHAKE_TIMEOUT_S
from supervisor.child.logs import correlation_id

CORRELATION_HEADER = "x-correlation-id"
HEAD_BYTES_MAX = 16 * 1024
KEEP_ALIVE_S = 5
SHUTDOWN_TIMEOUT_S = 3
# Counts are handed on at most this often, so that a flood of requests is no flood of samples.
COUNT_PERIOD_S = 5.0

_CORRELATION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
_TOO_MANY = 429


class Boundary:
    """What every request passes first and every answer last.

    Gives each request its correlation id (the client's, if it sent a sound one), answers HEAD like
    GET without the body, adds the headers that every answer has, counts and times, and answers
    500 for what nobody else has caught.

    Args:
        app: the rest of the gateway.
        log: for faults, and for each request at debug level.
        measure: takes samples.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        log: structlog.typing.FilteringBoundLogger,
        measure: Callable[[MetricSample], None],
    ) -> None:
        self._app = app
        self._log = log
        self._measure = measure
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._flush: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # no lifespan, no websockets
        started_s = time.perf_counter()
        correlation_id.set(correlation_of(scope))
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        status = 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *_headers()]}
            await send(message)

        try:
            await self._app(inner, receive, finish)
        # The gateway outlives whatever one request meets.
        except Exception:  # noqa: BLE001
            self._log.exception("request_crashed", method=scope["method"], path=scope["path"])
            if not status:
                await crash_response(scope["path"])(inner, receive, finish)
        self._count(scope["method"], _route(inner), status, time.perf_counter() - started_s)

    def flush(self) -> None:
        """Hand the counts on."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        counts, self._counts = self._counts, Counter()
        for (method, route, status), count in counts.items():
            labels = {"method": method, "route": route, "status": str(status)}
            self._measure(
                MetricSample(MetricKind.COUNTER, "novacron_api_requests_total", count, labels)
            )

    def _count(self, method: str, route: str, status: int, took_s: float) -> None:
        known = method if method in _METHODS else "other"
        self._counts[known, route, status] += 1
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(COUNT_PERIOD_S, self.flush)
        if status != _TOO_MANY:
            labels = {"route": route}
            self._measure(
                MetricSample(MetricKind.HISTOGRAM, "novacron_api_request_seconds", took_s, labels)
            )
        self._log.debug("request", method=method, route=route, status=status, took_s=took_s)


class ApiServer:
    """Serves one ASGI application on one listening socket, in the running loop.

    Args:
        app: usually a Boundary.
        state: limits and counters of the connections.
        tls: what connections are encrypted with; None for plain HTTP.
    """

    def __init__(
        self,
        app: ASGIApp,
        state: ApiServerState | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._state = state or ApiServerState()
        self._tls = tls
        config = uvicorn.Config(
            app,
            http=ApiProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )
        # What it says below this level is about single clients, and counted here.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server = uvicorn.Server(config)
        self._server.server_state = self._state
        self._listener: socket.socket | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a listening socket, which now belongs to the server."""
        config = self._server.config
        config.load()
        config.ssl = self._tls  # for the scheme that requests are told
        self._server.lifespan = config.lifespan_class(config)
        self._listener = listener
        # What uvicorn's own start does, with a deadline for handshakes.
        server = await asyncio.get_running_loop().create_server(
            self._new_protocol,
            sock=listener,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if self._tls else None,
            backlog=config.backlog,
        )
        self._server.servers = [server]

    def _new_protocol(self) -> ApiProtocol:
        state = self._server.lifespan.state
        return ApiProtocol(config=self._server.config, server_state=self._state, app_state=state)

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before start."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    def statistics(self) -> dict[str, int]:
        """Connections and requests so far."""
        state = self._state
        return {
            "connections": len(state.connections),
            "requests": state.total_requests,
            "refused": state.refused,
            "evicted": state.evicted,
            "timed_out": state.timed_out,
        }

    async def close(self) -> None:
        """Stop accepting, let running requests finish for a while, then end them."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await self._server.shutdown(sockets=[listener])


def correlation_of(scope: Scope) -> str:
    """The request's correlation id: what the client calls it, or a new one.

    A client's own is taken only if it is short and harmless in a log.
    """
    name = CORRELATION_HEADER.encode()
    given = next((value for key, value in scope["headers"] if key == name), b"")
    text = given.decode("latin-1")
    return text if _CORRELATION.fullmatch(text) else secrets.token_hex(8)


def _headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"date", formatdate(usegmt=True).encode()),
        (CORRELATION_HEADER.encode(), correlation_id.get().encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _route(scope: Scope) -> str:
    """The template of the endpoint's path; never the path itself, which the client chooses."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "none"
