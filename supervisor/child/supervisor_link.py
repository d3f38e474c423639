"""A service's connection to its supervisor, replaced together with the keys that it speaks with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import PeerUnavailableError
from protocol.messages.control import Hello
from protocol.records import to_wire
from protocol.transports import zeromq
from supervisor.child.asyncio_socket import AsyncSocket
from supervisor.guard.own_keys import OwnKeys
from supervisor.runtime.launch import Launch

# What was said last, such as the final metrics and health, may still be on its way.
_LINGER_MS = 100


class SupervisorLink:
    """Speaks to the supervisor, and takes its orders.

    Args:
        loop: the loop that takes orders.
        context: the process's ZeroMQ context.
        launch: what this process is.
        keys: the keys that it calls with.
        take: takes an order's bytes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zeromq.Context,
        launch: Launch,
        keys: OwnKeys,
        take: Callable[[bytes], None],
    ) -> None:
        self._loop = loop
        self._context = context
        self._launch = launch
        self._own_keys = keys
        self._take = take
        self._socket = self._connect()
        self._before: AsyncSocket | None = None

    def say_hello(self) -> None:
        """Say which process of the child this is; first of all on each connection."""
        hello = Hello(pid=os.getpid(), incarnation=self._launch.incarnation)
        message = Envelope(Kind.CAST, 0, "hello", 0, "", to_wire(hello))
        self._socket.send([envelope.encode(message)])

    def say(self, message: Envelope) -> bool:
        """Send; False when the queue is full."""
        if self._own_keys.current() is not self._keys:
            self._renew()
        return self._socket.send([envelope.encode(message)])

    def close(self) -> None:
        """Close, once what was said has left."""
        for socket in (self._socket, self._before):
            if socket is not None:
                socket.close(linger_ms=_LINGER_MS)

    def _connect(self) -> AsyncSocket:
        self._keys = self._own_keys.current()
        run, path = Path(self._launch.tree.run_dir), self._launch.supervisor_path
        socket = zeromq.client_socket(self._context, run, path, self._keys)
        return AsyncSocket(self._loop, socket, lambda: self._take_one(socket))

    def _renew(self) -> None:
        before = self._socket
        try:
            self._socket = self._connect()
        except PeerUnavailableError:  # it is about to end, and we with it
            return
        # An order may still be on its way to the connection before this one.
        if self._before is not None:
            self._before.close()
        self._before = before
        self.say_hello()

    def _take_one(self, socket: zeromq.Socket) -> bool:
        payload = zeromq.take(socket)
        if payload is None:
            return False
        self._take(payload)
        return True
