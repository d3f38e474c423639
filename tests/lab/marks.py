"""Where a lab is, and which processes are its own.

A lab's directory is written before anything else of it exists, and its path stands in the
environment of each process that belongs to it. So all of a lab is found again by exact comparison,
however the program that built it ended, and nobody else's things are ever taken for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.lab.errors import LabError

BASE = Path("/var/lib/novacron-lab")
# Not NOVACRON_…: a node refuses variables of that beginning that it does not know.
MARK = "NCLAB_DIRECTORY"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,15}")
_GONE_TIMEOUT_S = 10.0


def lab_dir(name: str) -> Path:
    """The directory of a lab.

    Raises:
        LabError: that is no name: 1 to 16 of a-z, 0-9 and ``-``; longer paths have no sockets.
    """
    if not _NAME.fullmatch(name):
        raise LabError(f"a lab's name is 1 to 16 of a-z, 0-9 and '-', not {name!r}")
    return BASE / name


def marked_environ(directory: Path) -> dict[str, str]:
    """The variables that a process of the lab starts with."""
    return {
        "PATH": f"{Path(__file__).parents[2] / 'bin'}:/usr/local/sbin:/usr/local/bin"
        ":/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ.get("HOME", "/root"),
        "TERM": os.environ.get("TERM", "dumb"),
        "LANG": "C.UTF-8",
        MARK: str(directory),
    }


def marked_pids(directory: Path) -> list[int]:
    """All processes of the lab but this one; zombies have no environment and don't count."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def process_id(pid: int) -> str:
    """A process id with the time of its start, which no later process of that number has."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return f"{pid} gone"
    return f"{pid} {fields[19]}"


def reap(process: subprocess.Popen[bytes]) -> None:
    """Leave a process to itself: the lab outlives its builder, who must keep no zombie of it."""
    threading.Thread(target=process.wait, name="reap", daemon=True).start()


def kill_marked(directory: Path) -> None:
    """End all processes of the lab; returns when they are gone.

    Raises:
        LabError: one outlived SIGKILL.
    """
    deadline_s = time.monotonic() + _GONE_TIMEOUT_S
    # A host ends with its first process; the parent of that one is still there then to reap it.
    while firsts := [pid for pid in marked_pids(directory) if _is_first(pid)]:
        _kill(firsts)
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.01)
    time.sleep(0.02)
    while pids := marked_pids(directory):
        _kill(pids)
        if time.monotonic() > deadline_s:
            raise LabError(f"processes outlive SIGKILL: {pids}")
        time.sleep(0.02)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_first(pid: int) -> bool:
    """Tell whether a process is the first one of a PID namespace below this one."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers) > 1 and numbers[-1] == "1"
    return False
