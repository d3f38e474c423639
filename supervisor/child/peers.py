"""Calls to other processes from an asyncio loop: one connection per process, many calls on it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import zmq

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import CallTimeoutError, PeerUnavailableError, RemoteProtocolError
from protocol.records import Plain
from protocol.transports import zeromq
from protocol.transports.curve import KeyPair, published_key
from supervisor.child import logs
from supervisor.child.asyncio_socket import AsyncSocket


class Peers:
    """The processes that this one calls.

    Args:
        loop: the loop that runs the calls.
        context: the process's ZeroMQ context.
        run: the run directory.
        keys: the process's keys.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: zeromq.Context, run: Path, keys: KeyPair
    ) -> None:
        self._loop = loop
        self._context = context
        self._run = run
        self._keys = keys
        self._ids = itertools.count(1)
        self._connections: dict[str, tuple[bytes, AsyncSocket]] = {}
        self._pending: dict[int, asyncio.Future[Envelope]] = {}

    async def call(self, path: str, method: str, body: Plain, timeout_s: float) -> Plain:
        """See ServiceContext.call."""
        connection = self._connection(path)
        number = next(self._ids)
        correlation = logs.correlation_id.get()
        request = Envelope(Kind.CALL, number, method, int(timeout_s * 1000), correlation, body)
        reply: asyncio.Future[Envelope] = self._loop.create_future()
        self._pending[number] = reply
        timer = self._loop.call_later(timeout_s, _expire, reply, path, method, timeout_s)
        try:
            if not connection.send([envelope.encode(request)]):
                raise PeerUnavailableError(f"the queue to {path} is full", path=path)
            return zeromq.reply_body(await reply, path)
        finally:
            timer.cancel()
            del self._pending[number]

    def cast(self, path: str, method: str, body: Plain) -> bool:
        """See ServiceContext.cast.

        Raises:
            PeerUnavailableError: the process is not running.
        """
        message = Envelope(Kind.CAST, 0, method, 0, logs.correlation_id.get(), body)
        return self._connection(path).send([envelope.encode(message)])

    def close(self) -> None:
        """Close all connections."""
        for _key, connection in self._connections.values():
            connection.close(linger_ms=50)
        self._connections.clear()

    def _connection(self, path: str) -> AsyncSocket:
        # A process that was stopped withdraws its key; one of a new tree has another one. Reading
        # 40 bytes costs 10 µs, a call to a process that is gone costs its whole deadline.
        key = published_key(self._run, path)
        known = self._connections.get(path)
        if known is not None:
            if known[0] == key:
                return known[1]
            known[1].close()
        socket = zeromq.client_socket(self._context, self._run, path, self._keys)
        connection = AsyncSocket(self._loop, socket, self._take)
        self._connections[path] = (key, connection)
        return connection

    def _take(self, frames: list[zmq.Frame]) -> None:
        try:
            reply = envelope.decode(frames[-1].bytes)
        except RemoteProtocolError:
            return  # the call that it might have answered runs into its deadline
        waiting = self._pending.get(reply.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)


def _expire(reply: asyncio.Future[Envelope], path: str, method: str, timeout_s: float) -> None:
    if not reply.done():
        reply.set_exception(
            CallTimeoutError(
                f"{path} did not answer {method} within {timeout_s:g} s", path=path, method=method
            )
        )
