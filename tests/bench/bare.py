"""The same exchange as a call, with nothing of ours in it: two bare pyzmq sockets.

Over ipc and with CURVE, as all of ours, between two processes. In two kinds: both ends blocking,
and both ends on an asyncio loop that watches the socket's descriptor. The first is what a call is
compared with; the second shows how much of the difference is the loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import multiprocess
import zmq

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.records import Plain
from protocol.transports import zeromq

_NOW = int(zmq.DONTWAIT)
_NOW_AND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)
_ROUND_MS = 60_000
_LOOK_S = 1.0
_STOP_S = 10.0

Socket = zmq.Socket[bytes]
Server = Callable[[str, bytes, bytes, int], None]


class BareClient:
    """The asking end.

    Args:
        endpoint: where the other end is bound.
        server_public: the other end's key, Z85.
        body: what a call to compare with has as its body; the frames are as long.
    """

    def __init__(self, endpoint: str, server_public: bytes, body: Plain) -> None:
        self._frame = envelope.encode(Envelope(Kind.CALL, 1000, "echo", 5000, "", body))
        self._context: zmq.Context[Socket] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = _ROUND_MS
        self._socket.curve_serverkey = server_public
        self._socket.curve_publickey, self._socket.curve_secretkey = zmq.curve_keypair()
        self._socket.connect(endpoint)

    def measure_blocking(self, calls: int) -> list[float]:
        """Round trips in seconds, blocking in ``recv``."""
        frame, send, receive = self._frame, self._socket.send, self._socket.recv
        clock, found = time.perf_counter, []
        for _ in range(calls):
            begun_s = clock()
            send(frame)
            receive()
            found.append(clock() - begun_s)
        return found

    def measure_on_loop(self, calls: int) -> list[float]:
        """Round trips in seconds, waiting for a future of an asyncio loop."""
        return asyncio.run(self._measure_on_loop(calls))

    async def _measure_on_loop(self, calls: int) -> list[float]:
        loop, socket, frame = asyncio.get_running_loop(), self._socket, self._frame
        waiting: asyncio.Future[bytes] = loop.create_future()

        def drain() -> None:
            while int(socket.get(zmq.EVENTS)) & _READABLE:
                waiting.set_result(socket.recv(_NOW))

        loop.add_reader(zeromq.descriptor(socket), drain)
        clock, found = time.perf_counter, []
        for _ in range(calls):
            begun_s = clock()
            waiting = loop.create_future()
            socket.send(frame, _NOW)
            if int(socket.get(zmq.EVENTS)) & _READABLE:
                loop.call_soon(drain)
            await waiting
            found.append(clock() - begun_s)
        loop.remove_reader(zeromq.descriptor(socket))
        return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._context.term()


@contextlib.contextmanager
def bare(serve: Server, endpoint: Path, body: Plain) -> Iterator[BareClient]:
    """An answering process of a kind, and a client of it."""
    public, secret = zmq.curve_keypair()
    server = multiprocess.get_context("spawn").Process(
        target=serve, args=(f"ipc://{endpoint}", public, secret, os.getpid()), daemon=True
    )
    server.start()
    client = BareClient(f"ipc://{endpoint}", public, body)
    try:
        yield client
    finally:
        client.close()
        server.terminate()
        server.join(_STOP_S)


def serve_blocking(endpoint: str, public: bytes, secret: bytes, parent_pid: int) -> None:
    """Send back what arrives, blocking, until terminated or left alone."""
    socket = _bind(endpoint, public, secret)
    while os.getppid() == parent_pid:
        with contextlib.suppress(zmq.Again):
            while True:
                socket.send_multipart(socket.recv_multipart())


def serve_on_loop(endpoint: str, public: bytes, secret: bytes, parent_pid: int) -> None:
    """Send back what arrives, on an asyncio loop, until terminated or left alone."""
    socket = _bind(endpoint, public, secret)

    def drain() -> None:
        while int(socket.get(zmq.EVENTS)) & _READABLE:
            identity = socket.recv(_NOW)
            frame = socket.recv(_NOW)
            socket.send(identity, _NOW_AND_MORE)
            socket.send(frame, _NOW)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        is_alone: asyncio.Future[None] = loop.create_future()

        def look() -> None:
            if os.getppid() == parent_pid:
                loop.call_later(_LOOK_S, look)
            else:
                is_alone.set_result(None)

        loop.add_reader(zeromq.descriptor(socket), drain)
        drain()
        look()
        await is_alone

    asyncio.run(serve())


def _bind(endpoint: str, public: bytes, secret: bytes) -> Socket:
    context: zmq.Context[Socket] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = public, secret
    socket.rcvtimeo = int(_LOOK_S * 1000)
    socket.bind(endpoint)
    return socket
