"""The lock on a state directory: one node at a time.

An flock goes with the last process that has it, whatever kills a node: there is no stale lock
that a person has to remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from services.node.errors import NodeRunningError

NAME = "node.lock"
# Processes of a node that was killed hold its lock until they are gone too.
TIMEOUT_S = 2.0
_PAUSE_S = 0.02


def acquire(file: Path, *, timeout_s: float) -> int:
    """Take the lock, making its file where there is none.

    Returns:
        The open descriptor that holds it. Other programs do not inherit it, forks do: the lock
        is free when the last process that has it is gone.

    Raises:
        NodeRunningError: it was not free within ``timeout_s``.
        OSError: the file can't be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(file, flags, 0o600)
    give_up_s = time.monotonic() + timeout_s
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            if time.monotonic() >= give_up_s:
                raise _running(file.parent, os.pread(descriptor, 32, 0))
            time.sleep(_PAUSE_S)
    except BaseException:
        os.close(descriptor)
        raise


def _running(state: Path, written: bytes) -> NodeRunningError:
    text = written.decode(errors="replace").strip()
    pid = int(text) if text.isascii() and text.isdecimal() else None
    if pid is not None and not Path(f"/proc/{pid}").exists():
        found = f"processes of a node that ended (it was process {pid}) are still there"
        advice = f"wait until they are gone, or find them with: fuser -v {state / NAME}"
    else:
        found = f"a node already runs on it (process {pid or 'unknown'})"
        advice = "stop it first, or give this node its own --state-dir and ports"
    return NodeRunningError(f"{state}: {found}; {advice}", path=str(state), pid=pid)


def write_pid(descriptor: int) -> None:
    """Leave this process's id where a second node looks for it."""
    text = f"{os.getpid()}\n".encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))
