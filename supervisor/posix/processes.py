"""Finding and ending everything below a process."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import select
import signal
import time
from collections.abc import Container, Sequence

# A racing forker can add processes while we look; each round ends all that it can see.
_ROUNDS_MAX = 1000
_ROUND_PAUSE_S = 0.002


def children_of(pid: int) -> list[int]:
    """Process ids of the children of all threads of a process; empty when it is gone."""
    found: list[int] = []
    tasks = f"/proc/{pid}/task"
    with contextlib.suppress(OSError):
        for task in os.listdir(tasks):  # noqa: PTH208 - pathlib would cost most of the time
            with (
                contextlib.suppress(OSError),
                open(f"{tasks}/{task}/children", "rb", buffering=0) as file,
            ):
                found.extend(map(int, file.readall().split()))
    return found


def descendants_of(pid: int) -> list[int]:
    """Process ids of everything below a process, parents before their children."""
    found = children_of(pid)
    for child in found:  # grows while it is walked
        found.extend(children_of(child))
    return found


def is_exempt(pid: int, exempt: Sequence[str]) -> bool:
    """Whether a process executes one of some programs.

    Args:
        pid: the process.
        exempt: shell patterns of absolute paths, such as ``/usr/bin/qemu-system-*``. What a
            process calls itself does not count.
    """
    if not exempt:
        return False
    try:
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115
    except OSError:
        return False  # it has ended, or is the kernel's own
    return any(fnmatch.fnmatchcase(program, pattern) for pattern in exempt)


def end_strangers(known: Container[int], exempt: Sequence[str] = ()) -> int:
    """End and reap every child of this process that is not known, and all below them.

    A sub-reaper adopts orphans; by definition nobody supervises them any more.

    Args:
        known: process ids of the children that are left alone.
        exempt: programs that are left alone wherever they are found; see ``is_exempt``.

    Returns:
        How many were reaped.
    """
    reaped = 0
    for _ in range(_ROUNDS_MAX):
        strangers = [pid for pid in children_of(os.getpid()) if pid not in known]
        strangers = [pid for pid in strangers if not is_exempt(pid, exempt)]
        if not strangers:
            break
        for pid in strangers:
            for below in [pid, *descendants_of(pid)]:
                if is_exempt(below, exempt):
                    continue
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(below, signal.SIGKILL)
        for pid in strangers:
            with contextlib.suppress(ChildProcessError):
                reaped += os.waitpid(pid, os.WNOHANG)[0] != 0
        time.sleep(_ROUND_PAUSE_S)
    return reaped


def await_end(pid: int, timeout_s: float) -> bool:
    """Wait until a child of this process has ended; it is left to be reaped.

    Returns:
        Whether it has.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return bool(poller.poll(max(0.0, timeout_s) * 1000))
    finally:
        os.close(pidfd)


def end_descendants(exempt: Sequence[str] = ()) -> None:
    """End and reap everything below this process, adopted orphans included."""
    end_strangers(frozenset(), exempt)
