"""The supervisor's end of its launcher: start it, ask it for processes, notice when it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import multiprocess

from protocol import codec
from protocol.records import to_wire
from supervisor.posix.board import Board
from supervisor.runtime import launcher
from supervisor.runtime.launch import Launch

# A launch that the launcher has not answered by then means that it hangs.
ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Launched:
    """A process runs; ``pidfd`` belongs to the receiver, who closes it."""

    id: str
    incarnation: int
    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A process was reaped; ``code`` is its exit code, or minus the signal's number."""

    id: str
    incarnation: int
    code: int


@dataclass(frozen=True, slots=True)
class Refused:
    """No process could be created."""

    id: str
    incarnation: int
    reason: str


Notice = Launched | Ended | Refused


class LauncherClient:
    """One launcher process.

    Args:
        board: the board that its children use.
        title: prefix of the launcher's process title.
        fork: fork it from this process, which must have no thread yet and shares its imports
            with it; else a fresh interpreter is started, which takes ten times as long.
    """

    def __init__(self, board: Board, title: str, *, fork: bool) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.channel, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, launcher.MESSAGE_BYTES_MAX * 8)
        self._process: Any = None  # Any: of multiprocess, which has no types
        if fork:
            process = multiprocess.get_context("fork").Process(
                target=_serve_forked,
                args=(self.channel, theirs, board, os.getpid(), title),
                daemon=False,
            )
            process.start()
            self._process, self.pid = process, process.pid
        else:
            self.pid = _start_fresh(theirs, board, title)
        theirs.close()
        self.channel.settimeout(0)

    def launch(self, launch: Launch) -> bool:
        """Ask for a process; False when the launcher takes nothing any more."""
        return self._send(["launch", to_wire(launch)])

    def preload(self, modules: Iterable[str]) -> None:
        """Ask it to import modules when it has nothing else to do."""
        self._send(["preload", list(modules)])

    def hold(self, descriptor: int) -> None:
        """Have a descriptor, such as a lock's, kept open until the last of the tree has ended."""
        socket.send_fds(self.channel, [codec.encode(["hold"])], [descriptor])

    def notices(self) -> Iterator[Notice]:
        """What it has said since; never blocks.

        Raises:
            ConnectionError: the launcher is gone.
        """
        while True:
            try:
                data, descriptors, _flags, _address = socket.recv_fds(
                    self.channel, launcher.MESSAGE_BYTES_MAX, 1
                )
            except BlockingIOError:
                return
            if not data:
                raise ConnectionResetError("the launcher has ended")
            match codec.decode(data):
                case ["launched", str(name), int(incarnation), int(pid)]:
                    yield Launched(name, incarnation, pid, descriptors[0])
                case ["ended", str(name), int(incarnation), int(code)]:
                    yield Ended(name, incarnation, code)
                case ["refused", str(name), int(incarnation), str(reason)]:
                    yield Refused(name, incarnation, reason)

    def end(self, timeout_s: float = 2.0) -> None:
        """Close the channel, upon which it ends everything below it, and wait for it."""
        if self.channel.fileno() < 0:
            return  # done already
        self.channel.close()
        pidfd = None
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
        if pidfd is None:
            return
        import select

        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poller.poll(timeout_s * 1000)
        os.close(pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def kill(self) -> None:
        """End a launcher that hangs; its children end with it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _send(self, message: list[object]) -> bool:
        try:
            self.channel.send(codec.encode(message))
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class WarmStart:
    """A board and a launcher that exist before their supervisor does."""

    board: Board
    launcher: LauncherClient


def warm_start(title: str, modules: Iterable[str] = ()) -> WarmStart:
    """Fork a launcher now, while this process has no threads and few imports.

    The less is imported, the more memory the processes of the tree share; and the launcher
    imports ``modules``, in this order, while this process reads its configuration.

    Args:
        title: prefix of the process title: tree title, colon, path of the supervisor.
        modules: what the first children need.
    """
    board = Board()
    launcher_client = LauncherClient(board, title, fork=True)
    launcher_client.preload(modules)
    return WarmStart(board, launcher_client)


def _serve_forked(
    ours: socket.socket, theirs: socket.socket, board: Board, supervisor_pid: int, title: str
) -> None:
    ours.close()
    launcher.serve(theirs, board, supervisor_pid, title)
    os._exit(0)


def _start_fresh(theirs: socket.socket, board: Board, title: str) -> int:
    numbers = (theirs.fileno(), board.descriptor)
    process = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-m",
            "supervisor.runtime.launcher",
            *map(str, numbers),
            str(os.getpid()),
            title,
        ],
        pass_fds=numbers,
        stdin=subprocess.DEVNULL,
    )
    return process.pid
