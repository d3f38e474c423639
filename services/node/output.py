"""Where a node's output goes: one pipe that never blocks, and a process that empties it.

Every process of the tree writes its log lines to the pipe. When the operator's terminal is paused
or the journal hangs, the pipe fills and lines are dropped there, while the tree goes on and the
log files have everything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from typing import Any

import multiprocess

# F_SETPIPE_SZ: room for some thousand lines while the reader is busy drawing.
_PIPE_BYTES = 1 << 20
_DRAIN_S = 2.0


class Output:
    """The console process and the pipe to it.

    Attributes:
        pid: of the console process.
    """

    def __init__(self) -> None:
        read, write = os.pipe()
        with contextlib.suppress(OSError):  # above the user's allowance: the default size does
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        sys.stdout.flush()
        sys.stderr.flush()
        self._terminal = (os.dup(1), os.dup(2))
        # Any: multiprocess has no types.
        process: Any = multiprocess.get_context("fork").Process(
            target=_run_console, args=(read, write, *self._terminal)
        )
        process.start()
        self._process = process
        self.pid: int = process.pid
        os.close(read)
        os.set_blocking(write, False)
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(write)

    def close(self) -> None:
        """Give the terminal back and wait until everything has been shown, up to two seconds."""
        for number, original in enumerate(self._terminal, start=1):
            os.dup2(original, number)
            os.close(original)
        deadline_s = time.monotonic() + _DRAIN_S
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline_s:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.005)
            os.kill(self.pid, signal.SIGKILL)


def _run_console(read: int, write: int, stdout: int, stderr: int) -> None:
    from services.node import console
    from supervisor.posix.title import set_title

    os.close(write)
    os.setsid()  # a Ctrl-C is for the root, which then tells us how it went
    set_title("novacron: console")
    console.run(read, stdout_fd=stdout, stderr_fd=stderr)
    os._exit(0)
