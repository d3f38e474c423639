"""The socket on which commands say how they are: sd_notify's receiving end.

Taken from the main process of a command alone, as systemd's NotifyAccess=main:

    READY=1      it is up, where its readiness is that
    STATUS=...   a sentence, shown with its state
    WATCHDOG=1   it is alive, where its readiness asks for that

All else is ignored: STOPPING=1 and RELOADING=1, since what a command is asked for is known here;
EXTEND_TIMEOUT_USEC=, since a time that the child may stretch is none; MAINPID=, since a command
is the process that was started; and descriptors (FDSTORE=1, BARRIER=1), which the kernel closes.

Source: sd_notify(3); the protocol is datagrams of NAME=VALUE lines.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from protocol.dataclass import dataclass

_BYTES_MAX = 4096
_SENTENCE_LENGTH_MAX = 200
# One turn takes so many at most, so that a command that floods the socket keeps nobody waiting.
_TURN_MAX = 64
# A sentence that changes more often is shown at this pace.
STATUS_PERIOD_S = 0.5


@dataclass(frozen=True, slots=True)
class Notification:
    """What one datagram said.

    Attributes:
        pid: who sent it, as the kernel knows.
        is_ready, is_alive: READY=1, WATCHDOG=1.
        status: the sentence; None for none.
    """

    pid: int
    is_ready: bool = False
    is_alive: bool = False
    status: str | None = None


def parse(pid: int, data: bytes) -> Notification:
    """Read one datagram; what is unknown in it is passed over."""
    lines = data.split(b"\n")
    status = None
    for line in lines:
        if line.startswith(b"STATUS="):
            text = line.removeprefix(b"STATUS=").decode("utf-8", "replace")
            status = "".join(filter(str.isprintable, text))[:_SENTENCE_LENGTH_MAX]
    return Notification(pid, b"READY=1" in lines, b"WATCHDOG=1" in lines, status)


class NotifySocket:
    """The socket of one supervisor.

    Args:
        path: of the socket; any account may write to it, the kernel says which process it was.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(str(path))
        path.chmod(0o666)

    def receive(self) -> Iterator[Notification]:
        """What arrived; never waits."""
        for _ in range(_TURN_MAX):
            try:
                data, ancillary, _flags, _address = self.socket.recvmsg(
                    _BYTES_MAX, socket.CMSG_SPACE(12)
                )
            except BlockingIOError:
                return
            for _level, kind, credentials in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    yield parse(int.from_bytes(credentials[:4], "little"), data)

    def close(self) -> None:
        """Close it and take it away."""
        self.socket.close()
        self._path.unlink(missing_ok=True)
