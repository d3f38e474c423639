"""The launcher: a warm, single-threaded process that forks and reaps a supervisor's children.

A supervisor has ZeroMQ threads and so must not fork. Its launcher was forked before those
threads existed, holds the imports of its children, and does nothing but this:

    fork      a child in a few milliseconds, by ``multiprocess``, and report its pid with a pidfd
    reap      every child, and report how it ended
    adopt     as sub-reaper, the orphans of its children, and end them: nobody supervises them
    guard     when the supervisor ends, end everything below and go too

If the launcher itself is killed, the kernel kills its children (PDEATHSIG), their orphans fall to
the supervisor, which is a sub-reaper too, and the supervisor starts another launcher.

Messages are msgpack arrays on a Unix seqpacket socket pair::

    supervisor -> launcher   ["launch", Launch] · ["preload", [module, ...]]
                             ["hold"] with a descriptor to keep open while the tree lives
    launcher -> supervisor   ["launched", id, incarnation, pid] with the pidfd attached
                             ["ended", id, incarnation, code or -signal]
                             ["refused", id, incarnation, sentence]
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import Any

import multiprocess
import multiprocess.process
import structlog

from protocol import codec
from protocol.records import from_wire, to_wire
from supervisor.child import logs
from supervisor.child import main as child_main
from supervisor.posix import prctl, processes
from supervisor.posix.board import Board
from supervisor.runtime.launch import Launch

MESSAGE_BYTES_MAX = 128 << 10
# Orphans of a child that died are looked for when something was reaped, and this often besides.
_SWEEP_PERIOD_S = 5.0

_fork = multiprocess.get_context("fork")
_log = structlog.get_logger(component="launcher")


def serve(channel: socket.socket, board: Board, supervisor_pid: int, title: str) -> None:
    """Run the launcher's loop until the supervisor closes the channel or ends."""
    _become_launcher(supervisor_pid, title)
    try:
        _Launcher(channel, board).run()
    finally:
        signal.set_wakeup_fd(-1)
        processes.end_descendants()


def _become_launcher(supervisor_pid: int, title: str) -> None:
    os.setsid()
    prctl.become_subreaper()
    # SIGCONT wakes a stopped launcher; the closed channel then tells it that it is alone.
    prctl.die_with_parent(supervisor_pid, signal.SIGCONT)
    # Blocked and not ignored: a child that is told to end before it has set its own handlers
    # inherits the mask and meets the signal as soon as it has.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    child_main.set_title(f"{title}: launcher")
    logs.bridge_standard_library()  # once here instead of once in every child
    gc.disable()  # nothing here makes cycles, and collecting would unshare the children's memory


class _Launcher:
    def __init__(self, channel: socket.socket, board: Board) -> None:
        self._channel = channel
        self._board = board
        # Process objects of multiprocess, by pid. Any: the package has no types.
        self._children: dict[int, tuple[Any, str, int]] = {}
        self._preload: deque[str] = deque()
        self._held: list[int] = []  # open as long as we and those that we fork live
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.settimeout(0)

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while True:
            timeout_s = 0.0 if self._preload else _SWEEP_PERIOD_S
            ready = dict(poller.poll(int(timeout_s * 1000)))
            if self._channel.fileno() in ready and not self._take_message():
                return
            if self._wake_read.fileno() in ready:
                self._wake_read.recv(4096)
                self._reap()
            if not ready:
                self._use_idle_time()

    def _take_message(self) -> bool:
        data, descriptors, _flags, _address = socket.recv_fds(self._channel, MESSAGE_BYTES_MAX, 1)
        if not data:
            return False
        match codec.decode(data):
            case ["hold"]:
                self._held.extend(descriptors)
            case ["launch", wire]:
                self._launch(from_wire(Launch, wire))
            case ["preload", [*modules]]:
                self._preload.extend(name for name in modules if name not in sys.modules)
            case other:
                _log.error("launcher_message_unknown", message=repr(other)[:200])
        return True

    def _launch(self, launch: Launch) -> None:
        spec = launch.spec
        process = _fork.Process(
            target=_enter_child,
            args=(
                launch,
                self._board,
                os.getpid(),
                (self._channel, self._wake_read, self._wake_write),
            ),
            name=launch.path,
        )
        gc.freeze()  # what exists now is shared with the child until one of the two touches it
        try:
            process.start()
        except OSError as exc:
            self._send(["refused", spec.id, launch.incarnation, f"fork failed: {exc.strerror}"])
            return
        self._children[process.pid] = (process, spec.id, launch.incarnation)
        # Nobody but us can reap it, so the pid is certainly still this child's.
        pidfd = os.pidfd_open(process.pid)
        try:
            self._send(["launched", spec.id, launch.incarnation, process.pid], pidfd)
        finally:
            os.close(pidfd)

    def _reap(self) -> None:
        while True:
            try:
                # Look first: multiprocess must be the one to collect what is its own.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                break
            if found.si_pid not in self._children:
                os.waitpid(found.si_pid, 0)
                continue
            process, name, incarnation = self._children.pop(found.si_pid)
            code = process.exitcode
            process.close()
            # What the child left behind must be gone before its successor starts.
            processes.end_strangers(self._children)
            self._send(["ended", name, incarnation, code])

    def _use_idle_time(self) -> None:
        if not self._preload:
            processes.end_strangers(self._children)
            return
        name = self._preload.popleft()
        try:
            importlib.import_module(name)
        except ImportError as exc:
            # The child that needs it will say so itself, with its own name.
            _log.warning("preload_failed", module=name, error=str(exc))

    def _send(self, message: list[object], *descriptors: int) -> None:
        data = codec.encode(to_wire(message))
        try:
            if descriptors:
                socket.send_fds(self._channel, [data], descriptors)
            else:
                self._channel.send(data)
        except (BrokenPipeError, ConnectionResetError):
            return  # the supervisor is gone; the loop notices at once


def _enter_child(
    launch: Launch, board: Board, launcher_pid: int, inherited: tuple[socket.socket, ...]
) -> None:
    signal.set_wakeup_fd(-1)
    for link in inherited:
        link.close()
    code = child_main.run(launch, board, launcher_pid)
    # Threads of libraries that never end must not keep an ended child alive.
    os._exit(code)


def main() -> None:
    """Entry point of a launcher that is started with a fresh interpreter.

    Arguments: descriptors of the channel and the board, the supervisor's pid, the title.
    """
    channel_fd, board_fd, supervisor_pid, title = sys.argv[1:]
    channel = socket.socket(fileno=int(channel_fd))
    serve(channel, Board(int(board_fd)), int(supervisor_pid), title)


if __name__ == "__main__":
    main()
