"""A small HTTP server for probes and scrapes: GET and HEAD, one request per connection.

It shares the service's event loop, so ``/health/live`` answers exactly as long as the loop turns.
Everything about a connection is bounded: the bytes of its request, the time until the request is
complete, the time to answer, and the number of connections. When that number is reached, the
connection that has waited longest for its own request is closed, or else the one that has waited
longest for its answer. So neither clients that open connections and say nothing, nor probes that
hang behind a dead database, keep out a liveness probe, whose request and answer are a packet each.

A full HTTP library was looked at: bodies, header values and kept connections are what it is for,
and there are none here.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

import structlog

REQUEST_BYTES_MAX = 8192
REQUEST_TIMEOUT_S = 5.0
# Above the readiness probe's own limit of five seconds.
ANSWER_TIMEOUT_S = 8.0
WRITE_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 64

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status code, media type and body of one answer."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[], Awaitable[HttpAnswer]]


def json_answer(status: int, value: object) -> HttpAnswer:
    """An answer whose body is JSON."""
    return HttpAnswer(status, JSON_TYPE, json.dumps(value).encode() + b"\n")


def problem_answer(status: int, detail: str) -> HttpAnswer:
    """An error as RFC 9457 has it."""
    value = {"status": status, "title": HTTPStatus(status).phrase, "detail": detail}
    return HttpAnswer(status, PROBLEM_TYPE, json.dumps(value).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """What a server has done: requests answered, refused as malformed, and connections evicted."""

    connections: int
    answered: int
    refused: int
    evicted: int


class HttpServer:
    """Answers GET and HEAD for a fixed table of pages.

    Args:
        pages: what each path answers.
        log: for pages that fail.
        connections_max: see the module.
        request_timeout_s: from the connection until its request is complete.
    """

    def __init__(
        self,
        pages: Mapping[str, Page],
        log: structlog.typing.FilteringBoundLogger,
        *,
        connections_max: int = CONNECTIONS_MAX,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._pages = dict(pages)
        self._log = log
        self._connections_max = connections_max
        self._request_timeout_s = request_timeout_s
        self._server: asyncio.Server | None = None
        # All connections, and those whose request is not complete; the oldest first.
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._waiting: dict[asyncio.Task[None], None] = {}
        self._answered = self._refused = self._evicted = 0

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a listening socket, which now belongs to the server."""
        self._server = await asyncio.start_server(
            self._accept, sock=listener, limit=REQUEST_BYTES_MAX
        )

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        if self._server is None or not self._server.sockets:
            return 0
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop accepting and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(tuple(self._open), timeout=1.0)

    def statistics(self) -> HttpStatistics:
        """What the server has done so far."""
        return HttpStatistics(len(self._open), self._answered, self._refused, self._evicted)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._connections_max:
            self._evict()
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._open[task] = writer
        self._waiting[task] = None
        task.add_done_callback(self._forget)

    def _evict(self) -> None:
        """Close the connection that has waited longest for its request, or for its answer."""
        task = next(iter(self._waiting or self._open))
        self._waiting.pop(task, None)
        self._open.pop(task).transport.abort()
        task.cancel()
        self._evicted += 1

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task, None)
        self._waiting.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("http_connection_crashed", exc_info=error)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await self._read(reader)
            task = asyncio.current_task()
            if task is not None:
                self._waiting.pop(task, None)
            if request is None:
                return
            method, answer = await self._answer(request)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                writer.write(render(answer, with_body=method != "HEAD"))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            return  # the client is gone or does not read
        finally:
            # All was sent by now, or the client does not read and must not keep the buffer.
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        """The request with its headers; None when there is none to answer."""
        try:
            async with asyncio.timeout(self._request_timeout_s):
                return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return b""
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            return None

    async def _answer(self, request: bytes) -> tuple[str, HttpAnswer]:
        parsed = parse_request(request)
        if parsed is None:
            self._refused += 1
            return "GET", problem_answer(400, "not an HTTP/1 request within the limits")
        method, path = parsed
        self._answered += 1
        page = self._pages.get(path)
        if page is None:
            return method, problem_answer(404, f"known paths: {', '.join(sorted(self._pages))}")
        if method not in ("GET", "HEAD"):
            return method, problem_answer(405, "only GET and HEAD")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return method, await page()
        except TimeoutError:
            return method, problem_answer(503, f"no answer within {ANSWER_TIMEOUT_S} s")


def parse_request(request: bytes) -> tuple[str, str] | None:
    """Method and path of a request head, without the query; None when it is not HTTP/1.

    Source: RFC 9112 section 3; an absolute-form target is reduced to its path.
    """
    line, _, _ = request.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not parts[0].isalpha():
        return None
    target = parts[1].decode("latin-1").partition("?")[0]
    if target.lower().startswith("http://"):
        _, slash, path = target[7:].partition("/")
        target = slash + path
    if not target.startswith("/"):
        return None
    return parts[0].decode("latin-1"), target


def render(answer: HttpAnswer, *, with_body: bool) -> bytes:
    """The bytes of an answer; the connection ends after it."""
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + answer.body if with_body else head
