"""ZeroMQ sockets as NovaCron sets them up, and a blocking client for command lines and loops.

A process has one ROUTER for what others ask of it and one DEALER for each process that it asks.
Nothing queues without bound: a full queue refuses, and the sender is told.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import zmq

from protocol import envelope, names
from protocol.codec import MESSAGE_BYTES_MAX
from protocol.envelope import Envelope, Kind
from protocol.errors import (
    CallTimeoutError,
    NovacronError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.records import Plain
from protocol.transports.curve import ZAP_DOMAIN, KeyPair, published_key

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

# Messages that may wait in one direction of one connection. A process that is this far behind is
# hung, and what it was to receive is answered by deadlines.
QUEUE_MESSAGES_MAX = 1000
# Replies that a caller has not taken, beyond what the kernel holds: at a megabyte each, a caller
# who asks and never listens must not cost a gigabyte.
REPLIES_MAX = 256
_HANDSHAKE_MS = 10_000
# A peer's socket appears within milliseconds of its start; look for it often, then less.
_RECONNECT_FIRST_MS = 5
_RECONNECT_MAX_MS = 250
# Plain integers: combining pyzmq's enums costs as much as a send, and every message comes by here.
_NOW = int(zmq.DONTWAIT)
_NOW_AND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)


class EndpointTakenError(NovacronError):
    """Another process has bound the endpoint and still runs: two would take each other's calls."""

    code = "protocol.endpoint_taken"


def server_socket(context: Context, run: Path, path: str, keys: KeyPair) -> Socket:
    """Bind the ROUTER of a process; only clients that ZAP admits are heard.

    Args:
        context: a context with a ZapServer.
        run: the run directory.
        path: the process that binds.
        keys: its key pair.

    """
    socket = _socket(context, zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, REPLIES_MAX)
    # A peer that says nothing costs a descriptor, and there are only so many.
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.bind(names.endpoint(run, path))
    # Group members may connect; what they may do there is decided by their key.
    names.socket_path(run, path).chmod(0o660)
    return socket


def claim(run: Path, path: str) -> int:
    """Hold an endpoint while the descriptor that this returns is open; before binding it.

    libzmq removes whatever socket lies where it binds, so without this a second process would
    take the place of the first, and both would believe that they serve.

    Raises:
        EndpointTakenError: another process serves it and still runs.
    """
    target = names.socket_path(run, path).with_suffix(".lock")
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EndpointTakenError(
            f"another process serves {path} in {run}; it has to end first", path=path
        ) from None
    return descriptor


def client_socket(context: Context, run: Path, path: str, keys: KeyPair) -> Socket:
    """Connect a DEALER to a process.

    Raises:
        PeerUnavailableError: the process has published no key.
        AccessDeniedError: the run directory may not be read.
    """
    server_key = published_key(run, path)
    socket = _socket(context, zmq.DEALER)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_FIRST_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
    socket.connect(names.endpoint(run, path))
    return socket


def _socket(context: Context, kind: int) -> Socket:
    # Options by setsockopt and not as attributes: those walk through so many objects that each
    # process of the tree would copy another megabyte of what it shares with the others.
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES_MAX)
    socket.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES_MAX)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    return socket


def descriptor(socket: Socket) -> int:
    """The descriptor that becomes readable when something about the socket may have changed."""
    return int(socket.get(zmq.FD))


def is_readable(socket: Socket) -> bool:
    """Whether a message is waiting. Asking also makes the descriptor speak up again."""
    return int(socket.get(zmq.EVENTS)) & _READABLE != 0


def take(socket: Socket) -> bytes | None:
    """Take one message of a DEALER that is most likely there; None when it is not.

    Our messages to a DEALER have one frame. Each frame of any other is taken as a message, and
    then refused by who decodes it.
    """
    try:
        return socket.recv(_NOW)
    except zmq.Again:
        return None


def take_from(socket: Socket) -> tuple[bytes, str, bytes] | None:
    """Take one message of a ROUTER that is most likely there; None when it is not.

    Returns:
        The address to reply to, the key of the connection in hexadecimal, the payload. Whose
        key it is, and whether it counts, is for the guard to say.
    """
    try:
        identity = socket.recv(_NOW)
    except zmq.Again:
        return None
    frame = socket.recv(_NOW, copy=False)
    while frame.more:  # ours have two frames; the last one counts in any other
        frame = socket.recv(_NOW, copy=False)
    return identity, str(frame.get("User-Id")), frame.bytes


def receive(socket: Socket) -> bytes | None:
    """Take one message of a DEALER without waiting; None when there is none."""
    # Where nothing is as likely as something, asking costs half of the exception that says no.
    return take(socket) if is_readable(socket) else None


def receive_from(socket: Socket) -> tuple[bytes, str, bytes] | None:
    """As ``take_from``, where there may well be no message."""
    return take_from(socket) if is_readable(socket) else None


def send(socket: Socket, frames: Sequence[bytes]) -> bool:
    """Send one message without waiting; False when the queue is full or the peer has gone."""
    try:
        for frame in frames[:-1]:
            socket.send(frame, _NOW_AND_MORE)
        socket.send(frames[-1], _NOW)
    except zmq.ZMQError as exc:
        if exc.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            raise
        return False
    return True


def reply_body(reply: Envelope, path: str) -> Plain:
    """The body of a reply; a failure is raised.

    Raises:
        RemoteCallError: the envelope is a failure.
    """
    if reply.kind is Kind.REPLY:
        return reply.body
    message = reply.body if isinstance(reply.body, str) else "failed"
    raise RemoteCallError(f"{path}: {message}", remote_code=reply.name)


class KeySource(Protocol):
    """Where a caller's keys come from, since they last for minutes."""

    def current(self) -> KeyPair:
        """The pair to call with now; another object once it is another one."""

    def forget(self) -> None:
        """No answer came: the pair may be one of a tree that has ended."""


class FixedKeys:
    """Keys that do not change.

    Args:
        pair: of the caller.
    """

    def __init__(self, pair: KeyPair) -> None:
        self._pair = pair

    def current(self) -> KeyPair:
        """The pair."""
        return self._pair

    def forget(self) -> None:
        """Nothing changes."""


class SyncClient:
    """Calls other processes and waits for their replies; one thread, one call at a time.

    Args:
        run: the run directory.
        keys: the caller's; a person's are protocol.transports.person.PersonKeys.
    """

    def __init__(self, run: Path, *, keys: KeySource) -> None:
        self._run = run
        self._source = keys
        self._keys = keys.current()
        self._context: Context = zmq.Context(io_threads=1)
        self._sockets: dict[str, Socket] = {}
        self._ids = itertools.count(1)

    def call(
        self,
        path: str,
        method: str,
        body: Plain = None,
        *,
        timeout_s: float = 5.0,
        correlation: str = "",
    ) -> Plain:
        """Call a method of a process.

        Raises:
            PeerUnavailableError: the process is not running.
            AccessDeniedError: this user may not speak to the node.
            CallTimeoutError: no reply within ``timeout_s``.
            RemoteCallError: the method failed.
        """
        if not names.socket_path(self._run, path).exists():
            raise PeerUnavailableError(f"{path} is not running", path=path)
        if (keys := self._source.current()) is not self._keys:
            self._keys = keys
            self._disconnect()
        socket = self._sockets.get(path)
        if socket is None:
            socket = self._sockets[path] = client_socket(self._context, self._run, path, self._keys)
        number = next(self._ids)
        timeout_ms = int(timeout_s * 1000)
        request = Envelope(Kind.CALL, number, method, timeout_ms, correlation, body)
        socket.send(envelope.encode(request), zmq.DONTWAIT)
        return reply_body(self._wait_reply(socket, number, path, method, timeout_s), path)

    def _wait_reply(
        self, socket: Socket, number: int, path: str, method: str, timeout_s: float
    ) -> Envelope:
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if not socket.poll(int(left_s * 1000) + 1):
                continue
            try:
                reply = envelope.decode(socket.recv(zmq.DONTWAIT))
            except RemoteProtocolError:
                continue
            if reply.id == number and reply.kind in (Kind.REPLY, Kind.FAILURE):
                return reply
        # The connection may belong to a process that has gone; the next call makes a new one.
        self._sockets.pop(path).close()
        self._source.forget()
        raise CallTimeoutError(
            f"{path} did not answer {method} within {timeout_s:g} s", path=path, method=method
        )

    def close(self) -> None:
        """Close every connection; replies under way are dropped."""
        self._disconnect()
        self._context.term()

    def _disconnect(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()
