"""Measures what a link carries: TCP with iperf3 where it is installed, else with a sender here."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
from dataclasses import dataclass

from tests.lab.errors import LabError
from tests.lab.guest.watches import socket_in
from tests.lab.host import Host

_PORT = 5201
_PIECE_BYTES = 1 << 18
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one connection reached.

    Attributes:
        bits_s: payload that arrived, per second.
        by: ``iperf3`` or ``sockets``.
        seconds: how long was measured.
    """

    bits_s: float
    by: str
    seconds: float


def measure(sender: Host, receiver: Host, *, seconds: float = 2.0) -> Speed:
    """Send as fast as TCP does from one host to another.

    Raises:
        LabError: no connection came about.
    """
    if shutil.which("iperf3"):
        return _by_iperf3(sender, receiver, seconds)
    return by_sockets(sender, receiver, seconds=seconds)


def by_sockets(sender: Host, receiver: Host, *, seconds: float) -> Speed:
    """The same without iperf3: one connection, counted where it arrives.

    The first fifth of the time does not count, in which the connection finds its speed.
    """
    target = socket_in(receiver, socket.SOCK_STREAM)
    source = socket_in(sender, socket.SOCK_STREAM)
    arrived: list[tuple[float, int]] = []

    def receive() -> None:
        buffer = bytearray(_PIECE_BYTES)
        with contextlib.suppress(OSError), target.accept()[0] as peer:
            peer.settimeout(seconds + _CONNECT_TIMEOUT_S)
            while count := peer.recv_into(buffer):
                arrived.append((time.monotonic(), count))

    with target, source:
        target.settimeout(_CONNECT_TIMEOUT_S)
        target.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        target.bind((receiver.address, 0))
        target.listen(1)
        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        source.settimeout(_CONNECT_TIMEOUT_S)
        try:
            source.connect(target.getsockname())
            end_s = time.monotonic() + seconds
            piece = bytes(_PIECE_BYTES)
            while time.monotonic() < end_s:
                with contextlib.suppress(TimeoutError):
                    source.send(piece)
        except OSError as exc:
            raise LabError(f"no connection from {sender.name} to {receiver.name}: {exc}") from exc
        # What is still in the buffers comes after the end and would be counted as speed.
        begin_s = end_s - seconds * 0.8
        source.shutdown(socket.SHUT_RDWR)
        thread.join(seconds + _CONNECT_TIMEOUT_S)
    counted = sum(count for at, count in arrived if begin_s < at <= end_s)
    return Speed(bits_s=counted * 8 / (end_s - begin_s), by="sockets", seconds=end_s - begin_s)


def _by_iperf3(sender: Host, receiver: Host, seconds: float) -> Speed:
    receiver.run("iperf3", "--server", "--daemon", "--one-off", "--port", str(_PORT))
    said = sender.run(
        "iperf3", "--client", receiver.address, "--port", str(_PORT), "--json",
        "--time", str(max(1, round(seconds))), "--connect-timeout", "3000",
        timeout_s=seconds + 20.0,
    )  # fmt: skip
    received = json.loads(said)["end"]["sum_received"]
    return Speed(bits_s=received["bits_per_second"], by="iperf3", seconds=received["seconds"])
