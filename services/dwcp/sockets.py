"""TCP sockets as the streams need them, and what the kernel knows about them."""

from __future__ import annotations

import errno
import resource
import socket
import struct
from dataclasses import dataclass

# Leaves ample room; kernels return what they know (280 bytes on 6.18).
_TCP_INFO_BYTES = 512
# struct tcp_info of linux/tcp.h, stable since 4.9: grown only at its end.
_RTT_US = struct.Struct("=68xI")
_DELIVERY_RATE = struct.Struct("=160xQ")


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What the kernel measured on one connection.

    Attributes:
        rtt_s: smoothed round trip; None before the first measurement.
        delivery_rate_bytes_s: most recent goodput; None where the kernel does not say.
    """

    rtt_s: float | None
    delivery_rate_bytes_s: int | None


def prepare_stream(sock: socket.socket, *, congestion: str, stall_s: float) -> str:
    """Set a connected or unconnected TCP socket up as a stream.

    Buffer sizes stay untouched: setting them would switch the kernel's own tuning off.

    Args:
        sock: becomes non-blocking.
        congestion: the congestion control to ask for, such as ``bbr``.
        stall_s: unacknowledged data older than this breaks the connection.

    Returns:
        The congestion control that is in use; the kernel may refuse the one asked for.
    """
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_s * 1000))
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    except OSError as exc:
        # Not compiled in or loaded (ENOENT), or not allowed to this user (EPERM): the system's
        # default carries the bytes as well, and the status says which one it is.
        if exc.errno not in (errno.ENOENT, errno.EPERM, errno.EINVAL):
            raise
    return congestion_in_use(sock)


def congestion_in_use(sock: socket.socket) -> str:
    """The congestion control of a TCP socket."""
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.partition(b"\0")[0].decode("ascii", "replace")


def read_info(sock: socket.socket) -> TcpInfo:
    """Read TCP_INFO of a connected socket; empty when the socket is gone."""
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return TcpInfo(None, None)
    return parse_info(data)


def parse_info(data: bytes) -> TcpInfo:
    """Read the kernel's record, as far as this kernel fills it."""
    rtt_us = _RTT_US.unpack_from(data)[0] if len(data) >= _RTT_US.size else 0
    rate = _DELIVERY_RATE.unpack_from(data)[0] if len(data) >= _DELIVERY_RATE.size else None
    return TcpInfo(rtt_us / 1e6 if rtt_us else None, rate)


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as it may: each stream is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def format_address(address: tuple[object, ...]) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
