"""What the benchmark sees of a supervisor: the same for each of them, and without its help.

A Python child sends its pid and the time to a socket as soon as its main code runs. A ``sleep``
runs once the kernel calls it so, which /proc shows after the exec; it is looked for every third of
a millisecond, so its times are that much too long at most. An end is seen on a pidfd.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from supervisor.posix.processes import children_of
from tests.bench.figures import MeasurementError

_LOOK_S = 0.0003
_MIB_KIB = 1024


class Ear:
    """The socket that Python children report to.

    Args:
        directory: where it is made.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ear"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        # Children of any account report, and the directory is ours.
        self.path.chmod(0o666)

    def hear(self, timeout_s: float) -> tuple[int, int]:
        """The next report: a pid, and monotonic nanoseconds.

        Raises:
            MeasurementError: none came.
        """
        self._socket.settimeout(max(timeout_s, 0.001))
        try:
            pid, at_ns = self._socket.recv(64).split()
        except TimeoutError:
            raise MeasurementError(f"no child came up within {timeout_s:.0f} s") from None
        return int(pid), int(at_ns)

    def drain(self) -> int:
        """Forget what was reported; returns how much it was."""
        self._socket.settimeout(0)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(64):
                count += 1
        return count

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def is_sleep(pid: int) -> bool:
    """Whether a process executes ``sleep``."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
        return file.read(16) == b"sleep\n"
    return False


def await_sleeps(
    above: Iterable[int], count: int, timeout_s: float, known: set[int]
) -> tuple[set[int], int]:
    """Wait for new ``sleep`` processes.

    Args:
        above: pids of processes below which they will be.
        count: how many to wait for.
        timeout_s: for how long.
        known: those that are not new.

    Returns:
        Their pids, and the time at which the last one was seen, in monotonic nanoseconds.

    Raises:
        MeasurementError: they were not there in time.
    """
    above = tuple(above)
    found: set[int] = set()
    deadline_s = time.monotonic() + timeout_s
    while True:
        _look_below(above, known, found)
        if len(found) >= count:
            return found, time.monotonic_ns()
        if time.monotonic() > deadline_s:
            raise MeasurementError(f"{len(found)} of {count} ran after {timeout_s:.0f} s")
        time.sleep(_LOOK_S)


def _look_below(above: Iterable[int], known: set[int], found: set[int]) -> None:
    """Find what is new. A ``sleep`` has no children, so looking costs little even among many."""
    parents = list(above)
    for parent in parents:  # grows while it is walked
        for pid in children_of(parent):
            if pid in known or pid in found:
                continue
            if is_sleep(pid):
                found.add(pid)
            else:
                parents.append(pid)


def parent_of(pid: int) -> int:
    """Who a process's parent is.

    Raises:
        MeasurementError: it is gone.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        raise MeasurementError(f"process {pid} is gone") from None


class Ends:
    """Waits for the end of processes, by pidfd.

    Args:
        pids: that run.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._poller = select.poll()
        self._open: set[int] = set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                self._open.add(descriptor)
                self._poller.register(descriptor, select.POLLIN)

    def wait(self, timeout_s: float) -> int:
        """Wait until all have ended; returns the time of the last end, monotonic nanoseconds.

        Raises:
            MeasurementError: some run on.
        """
        deadline_s = time.monotonic() + timeout_s
        at_ns = time.monotonic_ns()
        while self._open and (left_s := deadline_s - time.monotonic()) > 0:
            for descriptor, _flags in self._poller.poll(left_s * 1000):
                self._poller.unregister(descriptor)
                self._open.remove(descriptor)
                os.close(descriptor)
            at_ns = time.monotonic_ns()
        left = len(self._open)
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
        if left:
            raise MeasurementError(f"{left} still ran after {timeout_s:.0f} s")
        return at_ns


def cpu_ns(pids: Iterable[int]) -> dict[int, int]:
    """What each process has run by now, by the scheduler's account; none for one that is gone."""
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            found[pid] = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    return found


def pss_mib(pids: Iterable[int]) -> float:
    """The proportional set size of some processes, added up."""
    total_kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
    return total_kib / _MIB_KIB
