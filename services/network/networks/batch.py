"""Many rtnetlink requests in few system calls, and what the kernel answered to each.

The kernel works a datagram off message by message before ``sendmsg`` returns, and goes on after one
that failed; its answers wait in the socket by then. So a batch costs two system calls where one
request each costs hundreds, and a failure is known after the batch it is in.

The calls block, for some milliseconds where a hundred ports are attached; run them in a thread.
The socket belongs to the network namespace that it was opened in, whichever thread uses it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.network.errors import NetlinkFailedError
from services.network.rtnetlink import attributes, messages

# Answers wait in the socket, about a kilobyte of its buffer each.
BATCH_MAX = 256
_BUFFER_BYTES = 4 << 20
_READ_BYTES = 1 << 16
# The answers are there when the request was sent; this only stops a kernel that lost one.
_ANSWER_TIMEOUT_S = 5.0
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_SO_RCVBUFFORCE = 33
_ERROR_MESSAGE, _NEW_LINK = 2, 16
_ERROR = struct.Struct("=i")
_HEADER_BYTES = 16
_FLAG_ACK_TLVS = 0x200
_ACK_TEXT = 1
_LINK = struct.Struct("=BxHiII")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kernel said to one request: 0 or an error number, and its words for it."""

    code: int
    text: str = ""

    @property
    def reason(self) -> str:
        """The error for a person."""
        name = errno.errorcode.get(self.code, str(self.code))
        return f"{self.text} ({name})" if self.text else f"{os.strerror(self.code)} ({name})"


class BatchSocket:
    """A route socket for batches. Open it in the namespace's thread; then ``close``.

    Raises:
        NetlinkFailedError: the kernel gives none.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
        except OSError as exc:
            raise NetlinkFailedError(f"can't open a route socket: {exc.strerror}") from exc
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(_ANSWER_TIMEOUT_S)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            except PermissionError:  # nothing can be changed without CAP_NET_ADMIN anyway
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        except OSError as exc:
            self._socket.close()
            raise NetlinkFailedError(f"can't set up a route socket: {exc.strerror}") from exc

    def send(self, requests: Sequence[bytes], first: int) -> list[Answer]:
        """Send at most ``BATCH_MAX`` requests that ask for acknowledgements, and wait for those.

        Args:
            requests: whose sequences count up.
            first: the sequence of the first.

        Raises:
            NetlinkFailedError: answers are missing; what was carried out is not known.
        """
        assert len(requests) <= BATCH_MAX, "answers would not fit into the socket's buffer"
        found: dict[int, Answer] = {}
        self._write(b"".join(requests))
        while len(found) < len(requests):
            for kind, flags, sequence, payload in self._read():
                if kind == _ERROR_MESSAGE and 0 <= sequence - first < len(requests):
                    found[sequence - first] = _answer(payload, flags)
        return [found[number] for number in range(len(requests))]

    def look_up(self, requests: Sequence[bytes], first: int) -> list[int]:
        """The links' numbers for requests of ``pack_lookup``; 0 for one that is not there."""
        assert len(requests) <= BATCH_MAX, "answers would not fit into the socket's buffer"
        found: dict[int, int] = {}
        self._write(b"".join(requests))
        while len(found) < len(requests):
            for kind, _flags, sequence, payload in self._read():
                if not 0 <= sequence - first < len(requests):
                    continue
                if kind == _NEW_LINK:
                    found[sequence - first] = _LINK.unpack_from(payload)[2]
                elif kind == _ERROR_MESSAGE:
                    found.setdefault(sequence - first, 0)
        return [found[number] for number in range(len(requests))]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as exc:
            raise NetlinkFailedError(f"can't send to the kernel: {exc.strerror}") from exc

    def _read(self) -> Iterator[tuple[int, int, int, memoryview]]:
        try:
            return messages(self._socket.recv(_READ_BYTES))
        except TimeoutError as exc:
            raise NetlinkFailedError(
                f"the kernel did not answer within {_ANSWER_TIMEOUT_S:g} s"
            ) from exc
        except OSError as exc:  # ENOBUFS: answers are lost
            raise NetlinkFailedError(f"can't read the kernel's answer: {exc.strerror}") from exc


def _answer(payload: memoryview, flags: int) -> Answer:
    if len(payload) < _ERROR.size:
        raise NetlinkFailedError("the kernel's answer is cut off")
    code = -_ERROR.unpack_from(payload)[0]
    text = ""
    if flags & _FLAG_ACK_TLVS:
        found = attributes(payload[_ERROR.size + _HEADER_BYTES :])
        text = bytes(found.get(_ACK_TEXT, b"")).rstrip(b"\0").decode(errors="replace")
    return Answer(code, text)
