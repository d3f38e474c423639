"""A ZeroMQ socket on an asyncio loop.

libzmq offers one descriptor per socket that becomes readable when *something* may have changed,
and stays silent afterwards until all that changed was taken. So after each wake-up and each send
everything is taken that is there. zmq.asyncio would make a future for each message besides.
A wake-up nearly always means one message, so the first is taken without asking whether it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from protocol.transports import zeromq

# Messages taken before the loop gets a turn for everything else.
_BURST_MAX = 64


class AsyncSocket:
    """Calls a function while messages are there; sends without waiting.

    Args:
        loop: the loop to run on.
        socket: an open socket; closed by ``close``.
        take: takes one message, which is most likely there, and handles it; False when it was not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zeromq.Socket,
        take: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._take = take
        self._descriptor = zeromq.descriptor(socket)
        self._is_scheduled = False
        self._is_draining = False
        loop.add_reader(self._descriptor, self._drain)
        self._schedule()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send one message; False when the queue is full or the peer has gone."""
        is_sent = zeromq.send(self._socket, frames)
        # Sending can swallow the sign that something has come. Inside _drain, that looks itself.
        if not self._is_draining and zeromq.is_readable(self._socket):
            self._schedule()
        return is_sent

    def close(self, *, linger_ms: int = 0) -> None:
        """Close the socket; what was sent may take ``linger_ms`` to leave."""
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=linger_ms)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._is_scheduled = False
        if self._is_closed():
            return
        self._is_draining = True
        try:
            for _ in range(_BURST_MAX):
                is_over = not self._take() or self._is_closed()
                if is_over or not zeromq.is_readable(self._socket):
                    return
        finally:
            self._is_draining = False
        self._schedule()

    def _is_closed(self) -> bool:
        return self._socket.closed
