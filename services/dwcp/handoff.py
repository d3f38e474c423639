"""Accepted streams go from the manager to a transport process: descriptors over a Unix socket.

One SOCK_SEQPACKET message per stream: the preamble's 32 bytes, the peer's address as text, and
the descriptor as SCM_RIGHTS.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from protocol import names
from services.dwcp.errors import DwcpError
from services.dwcp.framing import PREAMBLE, Preamble, unpack_preamble

_MESSAGE_BYTES_MAX = PREAMBLE.size + 256
_CREDENTIALS = struct.Struct("3i")
_ONE_DESCRIPTOR = socket.CMSG_SPACE(4)
# A burst of one transfer's streams waits here while the transport is busy with a chunk.
_BACKLOG = 16
_KIND = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


@dataclass(frozen=True, slots=True)
class Handed:
    """A stream that arrived at a transport; the socket belongs to the taker."""

    preamble: Preamble
    peer: str
    sock: socket.socket


def descriptor_socket(run_dir: Path, transport_path: str) -> Path:
    """The Unix socket on which a transport takes accepted streams from the manager."""
    return names.socket_path(run_dir, f"{transport_path}.fd")


def listen(path: Path) -> socket.socket:
    """Open a transport's socket, replacing what a process before it left behind."""
    sock = socket.socket(socket.AF_UNIX, _KIND)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def connect(path: Path) -> socket.socket:
    """Connect to a transport's socket; never blocks.

    Raises:
        OSError: the transport does not run.
    """
    sock = socket.socket(socket.AF_UNIX, _KIND)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def give(channel: socket.socket, preamble: bytes, peer: str, stream: socket.socket) -> None:
    """Hand a stream over; the caller closes its own copy.

    Raises:
        OSError: the transport is gone or does not take streams fast enough.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [stream.fileno()]))]
    channel.sendmsg([preamble, peer.encode()[:256]], rights)


def accept(door: socket.socket) -> socket.socket | None:
    """Accept a channel; None when it comes from another account.

    Raises:
        OSError: nobody waits, or there are too many descriptors.
    """
    channel, _address = door.accept()
    channel.settimeout(0)
    data = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, user, _group = _CREDENTIALS.unpack(data)
    if user not in (0, os.geteuid()):
        channel.close()
        return None
    return channel


def take(channel: socket.socket) -> Handed | None:
    """Take the next stream; None when the channel is at its end or broken.

    Raises:
        BlockingIOError: nothing waits.
    """
    data, ancillary, _flags, _address = channel.recvmsg(
        _MESSAGE_BYTES_MAX, _ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    if len(descriptors) == 1 and len(data) >= PREAMBLE.size:
        with contextlib.suppress(DwcpError):
            preamble = unpack_preamble(data[: PREAMBLE.size])
            peer = data[PREAMBLE.size :].decode(errors="replace")
            return Handed(preamble, peer, socket.socket(fileno=descriptors[0]))
    for descriptor in descriptors:
        os.close(descriptor)
    return None
