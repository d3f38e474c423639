"""Calls to other processes from an asyncio loop: one connection per process, many calls on it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from protocol import envelope
from protocol.dataclass import dataclass
from protocol.envelope import Envelope, Kind
from protocol.errors import CallTimeoutError, PeerUnavailableError, RemoteProtocolError
from protocol.records import Plain
from protocol.transports import zeromq
from protocol.transports.curve import KeyPair, published_key
from supervisor.child import logs
from supervisor.child.asyncio_socket import AsyncSocket
from supervisor.child.deadlines import Deadlines
from supervisor.child.reply import Reply
from supervisor.guard.own_keys import OwnKeys

# How long a peer's key is believed without looking; reading it takes three system calls.
_KEY_TRUST_S = 1.0
# What was said last may still be on its way.
_LINGER_MS = 50


@dataclass(slots=True)
class _Connection:
    """A connection; it is replaced together with the keys of either side.

    Attributes:
        key: of the process that is called.
        own: the keys that it was made with.
        checked_s: when ``key`` was looked at.
        calls: that wait for their replies on it.
        is_suspect: a call was not answered, so the next one makes another connection: the other
            side may have refused the keys, which nobody tells us.
        is_replaced: it ends with its last call.
    """

    key: bytes
    own: KeyPair
    checked_s: float
    socket: AsyncSocket
    calls: int = 0
    is_suspect: bool = False
    is_replaced: bool = False


class Peers:
    """The processes that this one calls.

    Args:
        loop: the loop that runs the calls.
        context: the process's ZeroMQ context.
        run: the run directory.
        keys: the process's keys.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: zeromq.Context, run: Path, keys: OwnKeys
    ) -> None:
        self._loop = loop
        self._context = context
        self._run = run
        self._keys = keys
        self._ids = itertools.count(1)
        self._connections: dict[str, _Connection] = {}
        self._pending: dict[int, Reply] = {}
        self._deadlines: Deadlines[int] = Deadlines(loop, self._expire)

    async def call(self, path: str, method: str, body: Plain, timeout_s: float) -> Plain:
        """See ServiceContext.call."""
        connection = self._connection(path)
        number = next(self._ids)
        correlation = logs.correlation_id.get()
        request = Envelope(Kind.CALL, number, method, int(timeout_s * 1000), correlation, body)
        if not connection.socket.send([envelope.encode(request)]):
            raise PeerUnavailableError(f"the queue to {path} is full", path=path)
        reply = self._pending[number] = Reply(loop=self._loop)
        self._deadlines.add(number, timeout_s)
        connection.calls += 1
        try:
            return zeromq.reply_body(await reply, path)
        except TimeoutError:
            connection.is_suspect = True
            raise CallTimeoutError(
                f"{path} did not answer {method} within {timeout_s:g} s", path=path, method=method
            ) from None
        finally:
            self._deadlines.discard(number)
            del self._pending[number]
            connection.calls -= 1
            if connection.is_replaced and not connection.calls:
                connection.socket.close(linger_ms=_LINGER_MS)

    def cast(self, path: str, method: str, body: Plain) -> bool:
        """See ServiceContext.cast.

        Raises:
            PeerUnavailableError: the process is not running.
        """
        message = Envelope(Kind.CAST, 0, method, 0, logs.correlation_id.get(), body)
        return self._connection(path).socket.send([envelope.encode(message)])

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.socket.close(linger_ms=_LINGER_MS)
        self._connections.clear()

    def _connection(self, path: str) -> _Connection:
        connection = self._connections.get(path)
        now_s = self._loop.time()
        own = self._keys.current()
        if connection is not None and connection.own is own and not connection.is_suspect:
            if now_s - connection.checked_s < _KEY_TRUST_S:
                return connection
            # A process that was stopped withdraws its key, and a call to it would only run into
            # its deadline; one of a new tree has another key.
            if published_key(self._run, path) == connection.key:
                connection.checked_s = now_s
                return connection
        key = published_key(self._run, path)
        if connection is not None:
            self._replace(connection)
        socket = zeromq.client_socket(self._context, self._run, path, own)
        link = AsyncSocket(self._loop, socket, lambda: self._take(socket))
        connection = self._connections[path] = _Connection(key, own, now_s, link)
        return connection

    def _replace(self, connection: _Connection) -> None:
        """End a connection, once what was asked on it is answered."""
        connection.is_replaced = True
        if not connection.calls:
            connection.socket.close(linger_ms=_LINGER_MS)

    def _take(self, socket: zeromq.Socket) -> bool:
        payload = zeromq.take(socket)
        if payload is None:
            return False
        try:
            reply = envelope.decode(payload)
        except RemoteProtocolError:
            return True  # the call that it might have answered runs into its deadline
        waiting = self._pending.get(reply.id)
        if waiting is not None and not waiting.done():
            waiting.arrive(reply)
        return True

    def _expire(self, number: int) -> None:
        reply = self._pending[number]
        if not reply.done():
            reply.set_exception(TimeoutError())
