"""Looks on while a guest runs: when its ticks come, and whether it answers each packet."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.errors import LabError
from tests.lab.guest.guests import console_path
from tests.lab.guest.readers import Tick, gaps, parse_line
from tests.lab.host import Host
from tests.lab.lab import Lab

ECHO_PORT = 7777
_CLONE_NEWNET = 0x40000000
_LOOK_S = 0.005
# After the last packet, for what is still on its way.
_LINGER_S = 1.0


class Watch:
    """Follows a guest's console on all hosts; a context.

    Attributes:
        ticks: what came, with the time of this machine's monotonic clock at which it was seen.
        panic: what the guest's kernel said when it gave up; empty while it runs.
    """

    def __init__(self, lab: Lab, name: str) -> None:
        self.ticks: list[tuple[float, Tick]] = []
        self.panic = ""
        self._paths = [host.place(console_path(name)) for host in lab.hosts]
        self._offsets = [_size(path) for path in self._paths]
        self._rest = b""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join(5.0)

    @property
    def gap_max_s(self) -> float:
        """Longest time without a tick, as it was seen here; a pause of the guest shows in it."""
        return gaps(at for at, _ in self.ticks)

    @property
    def lost(self) -> list[int]:
        """Numbers that are missing between the first and the last tick seen."""
        numbers = [tick.number for _, tick in self.ticks]
        if not numbers:
            return []
        return sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))

    @property
    def restarts(self) -> int:
        """How often the guest's count began anew: it crashed, or somebody reset it."""
        numbers = [tick.number for _, tick in self.ticks]
        return sum(b <= a for a, b in itertools.pairwise(numbers))

    def wait_ticks(self, count: int, *, timeout_s: float = 20.0) -> None:
        """Wait until so many more ticks have come.

        Raises:
            LabError: they did not come in time.
        """
        goal = len(self.ticks) + count
        deadline_s = time.monotonic() + timeout_s
        while len(self.ticks) < goal:
            if time.monotonic() > deadline_s:
                missing = goal - len(self.ticks)
                why = f": {self.panic}" if self.panic else ""
                raise LabError(f"{missing} of {count} ticks did not come in {timeout_s} s{why}")
            time.sleep(_LOOK_S)

    def _follow(self) -> None:
        while not self._is_over.is_set():
            if not self._look():
                time.sleep(_LOOK_S)

    def _look(self) -> bool:
        """Read what is new; in turn, as only one host's guest speaks at a time."""
        found = False
        for at, path in enumerate(self._paths):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as console:
                console.seek(self._offsets[at])
                fresh = console.read()
                self._offsets[at] += len(fresh)
                found = found or bool(fresh)
                *lines, self._rest = (self._rest + fresh).split(b"\n")
                said = [line for line in lines if b"Kernel panic" in line]
                self.panic = said[0].decode(errors="replace").strip() if said else self.panic
                now_s = time.monotonic()
                ticks = [tick for line in lines if (tick := parse_line(line))]
                self.ticks += [(now_s, tick) for tick in ticks]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFindings:
    """What became of the packets.

    Attributes:
        sent, answered: how many.
        lost: numbers of those without an answer.
        wrong: answers to nothing that was sent.
        gap_max_s: longest time without an answer.
        round_trip_min_s: the fastest.
    """

    sent: int
    answered: int
    lost: tuple[int, ...]
    wrong: int
    gap_max_s: float
    round_trip_min_s: float


class Probe:
    """Sends numbered packets to a guest from a host, and counts the answers; a context.

    Args:
        host: where the packets are sent.
        address: of the guest.
        interval_s: between two of them.
    """

    def __init__(self, host: Host, address: str, *, interval_s: float = 0.02) -> None:
        self._socket = socket_in(host, socket.SOCK_DGRAM)
        self._socket.settimeout(0.05)
        self._target = (address, ECHO_PORT)
        self._interval_s = interval_s
        self._sent: dict[int, float] = {}
        self._answers: dict[int, float] = {}
        self._wrong = 0
        self._is_over = threading.Event()
        self._is_closed = threading.Event()
        self._threads = [
            threading.Thread(target=work, name="probe", daemon=True)
            for work in (self._send, self._receive)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._threads[0].join(5.0)
        deadline_s = time.monotonic() + (_LINGER_S if error is None else 0.0)
        while len(self._answers) < len(self._sent) and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
        self._is_closed.set()
        self._threads[1].join(5.0)
        self._socket.close()

    @property
    def findings(self) -> ProbeFindings:
        """What has been seen so far."""
        sent, answers = dict(self._sent), dict(self._answers)
        trips = [at - sent[number] for number, at in answers.items()]
        return ProbeFindings(
            sent=len(sent),
            answered=len(answers),
            lost=tuple(sorted(set(sent) - set(answers))),
            wrong=self._wrong,
            gap_max_s=gaps(sorted(answers.values())),
            round_trip_min_s=min(trips, default=0.0),
        )

    def _send(self) -> None:
        number = 0
        while not self._is_over.wait(self._interval_s):
            number += 1
            self._sent[number] = time.monotonic()
            # An unreachable guest is a lost packet, not an error.
            with contextlib.suppress(OSError):
                self._socket.sendto(struct.pack("!Q", number), self._target)

    def _receive(self) -> None:
        while not self._is_closed.is_set():
            with contextlib.suppress(OSError):
                data, peer = self._socket.recvfrom(2048)
                number = struct.unpack_from("!Q", data)[0] if len(data) == 16 else 0
                if peer == self._target and number in self._sent:
                    self._answers.setdefault(number, time.monotonic())
                else:
                    self._wrong += 1


def set_rate(host: Host, address: str, pages_s: int) -> None:
    """Change how many pages a guest writes per second.

    Raises:
        LabError: it does not answer.
    """
    with socket_in(host, socket.SOCK_DGRAM) as peer:
        peer.settimeout(1.0)
        for _ in range(5):
            with contextlib.suppress(TimeoutError):
                peer.sendto(f"rate {pages_s}".encode(), (address, ECHO_PORT))
                if peer.recv(64) == b"ok":
                    return
    raise LabError(f"the guest at {address} does not answer on {host.name}")


def socket_in(host: Host, kind: socket.SocketKind) -> socket.socket:
    """A socket in a host's network; the calling thread is back in its own afterwards."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY)
    try:
        _enter(there)
        try:
            return socket.socket(socket.AF_INET, kind)
        finally:
            _enter(home)
    finally:
        os.close(home)
        os.close(there)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
