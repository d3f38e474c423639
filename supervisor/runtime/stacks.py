"""Stacks of Python children: written by the child when it is told to, kept by its supervisor.

A hung child can't log; the standard library's faulthandler writes its stacks from the signal
handler itself, to a file that was opened before. SIGABRT ends the child with them, SIGQUIT only
has them written. The file is in the run directory, so in memory; when the child has ended its
supervisor moves what is there to the child's log, as one event like any other.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import faulthandler
import json
import os
import signal
from pathlib import Path

from protocol import names
from supervisor.child import logs
from supervisor.runtime.launch import TreeSettings

SHOW_STACKS = signal.SIGQUIT
_SUFFIX = ".stacks"
# A hundred threads of fifty calls; an operator who asks every second gets the last ones.
_BYTES_MAX = 256 << 10


def open_file(run_dir: Path, path: str) -> int:
    """Open a child's file for ``keep``; call it before the child becomes another user."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(_file(run_dir, path), flags, 0o600)


def keep(descriptor: int) -> None:
    """Have this process write its stacks there from now on, when it is told to or crashes."""
    faulthandler.enable(descriptor, all_threads=True)
    faulthandler.register(SHOW_STACKS, descriptor, all_threads=True, chain=False)


def collect(run_dir: Path, path: str) -> str:
    """Take the stacks that a child has left; "" for none."""
    file = _file(run_dir, path)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        start = max(0, os.fstat(descriptor).st_size - _BYTES_MAX)
        text = os.pread(descriptor, _BYTES_MAX, start).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(file)  # noqa: PTH108 - a string is at hand
    return text


def write_to_log(tree: TreeSettings, path: str, pid: int, stacks: str) -> bool:
    """Append the stacks of a child that has ended to its log; False where it has none."""
    if not tree.log_dir:
        return False
    line = {
        "event": "stacks",
        "stacks": stacks,
        "component": path,
        "pid": pid,
        "level": "error",
        "timestamp": dt.datetime.now(dt.UTC).isoformat(),
    }
    try:
        descriptor = logs.open_output(logs.log_file(Path(tree.log_dir), path))
    except OSError:
        return False
    try:
        os.write(descriptor, json.dumps(line, ensure_ascii=False).encode() + b"\n")
    finally:
        os.close(descriptor)
    return True


def _file(run_dir: Path, path: str) -> str:
    return str(names.socket_path(run_dir, path).with_suffix(_SUFFIX))
