"""The way between the launcher and one supervisor: a Unix seqpacket socket pair."""

from __future__ import annotations

import os
import socket
from collections import deque

from protocol import codec
from protocol.dataclass import dataclass, field

MESSAGE_BYTES_MAX = 128 << 10


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel between a supervisor and its launcher, both blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES_MAX * 8)
    return ends


@dataclass(eq=False, slots=True)
class Channel:
    """The way to one supervisor; what it does not take at once waits here.

    A supervisor that is stopped takes nothing, and the others must not wait for it. It can only
    miss as much as it has asked for, so what waits is bounded by its children.
    """

    socket: socket.socket
    unsent: deque[tuple[bytes, tuple[int, ...]]] = field(default_factory=deque)

    def send(self, message: list[object], *owned: int) -> None:
        """Send, or keep until ``flush``; the descriptors are closed once they have gone."""
        self.unsent.append((codec.encode(message), owned))
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        while self.unsent:
            data, owned = self.unsent[0]
            try:
                socket.send_fds(self.socket, [data], owned)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                pass  # the supervisor is gone, as the loop will notice at once
            self.unsent.popleft()
            for descriptor in owned:
                os.close(descriptor)

    def close(self) -> None:
        """Close the socket, and what was to be sent."""
        self.socket.close()
        for _data, owned in self.unsent:
            for descriptor in owned:
                os.close(descriptor)
        self.unsent.clear()
