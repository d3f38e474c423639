"""The launcher: the one process of a tree that forks and reaps.

Supervisors have ZeroMQ threads and so must not fork. The launcher was forked before those threads
existed, holds the imports of all children, and does nothing but this, for the root and for every
supervisor below it:

    fork      a child in a few milliseconds, by ``multiprocess``, and report its pid with a pidfd
    execute   a plain program in one millisecond, without a fork
    keep      one spare child ahead, which has only to be told what it is
    reap      every child, and report how it ended
    adopt     as sub-reaper, the orphans of children, and end them: nobody supervises them,
              unless they are guests, which are exempt by the name of their program
    guard     when a supervisor ends, end everything below it; when the root ends, end all and go

If the launcher itself is killed, the kernel kills its children (PDEATHSIG), their orphans fall to
the root, which is a sub-reaper too, and the root starts another launcher and its children again.

Messages are msgpack arrays on Unix seqpacket socket pairs, one pair for each supervisor; that of
a nested supervisor is made with its process::

    supervisor -> launcher   ["launch", id, incarnation, type, [module, ...],
                             Launch as bytes] with the descriptor of the supervisor's board
                             ["execute", id, incarnation, Program]
                             ["preload", [module, ...]]
                             ["hold"] with a descriptor to keep open while the tree lives
    launcher -> supervisor   ["launched", id, incarnation, pid] with the pidfd attached
                             ["ended", [[id, incarnation, code or -signal], ...]]
                             ["refused", id, incarnation, sentence]
    launcher -> child        Launch as bytes, with the board, and a supervisor's own channel
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from protocol import codec
from protocol.dataclass import dataclass
from protocol.records import from_wire
from supervisor.child import logs
from supervisor.core.spec import ChildType
from supervisor.posix import descriptors, prctl, processes
from supervisor.posix.title import set_title
from supervisor.runtime.channel import MESSAGE_BYTES_MAX, Channel, channel_pair
from supervisor.runtime.launch import Program
from supervisor.runtime.program import execute

# Orphans of a child that died are looked for when something was reaped, and this often besides.
_SWEEP_PERIOD_S = 5.0
# A spare is forked once nobody has asked for anything for so long: the child that was just
# launched has the processors for itself until then.
_SPARE_AFTER_S = 0.2
# A process that is killed goes within milliseconds, unless the kernel holds it for a device.
_KILL_TIMEOUT_S = 1.0
_ENDS_PER_MESSAGE = 500

# What Python ignores, and takes back by itself when it executes a program.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

_log = logs.Logger(component="launcher")


def serve(channel: socket.socket, root_pid: int, title: str, exempt: Sequence[str]) -> None:
    """Run the launcher's loop until the root closes its channel or ends.

    Args:
        channel: our end of the root's channel.
        root_pid: the root.
        title: prefix of the process title.
        exempt: programs that outlive the tree; see processes.is_exempt.
    """
    _become_launcher(root_pid, title)
    try:
        _Launcher(channel, exempt).run()
    finally:
        signal.set_wakeup_fd(-1)
        processes.end_descendants(exempt)


def _become_launcher(root_pid: int, title: str) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # nor do our children read what is typed
    os.close(nothing)
    descriptors.keep_to_ourselves()
    prctl.become_subreaper()
    # SIGCONT wakes a stopped launcher; the closed channel then tells it that it is alone.
    prctl.die_with_parent(root_pid, signal.SIGCONT)
    # Blocked and not ignored: a child that is told to end before it has set its own handlers
    # inherits the mask and meets the signal as soon as it has.
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number in asked:  # may take effect while a program is executed
            signal.signal(number, lambda _number, _frame: None)
        elif signal.getsignal(number) is signal.SIG_IGN and number not in _IGNORED:
            signal.signal(number, signal.SIG_DFL)  # or programs would inherit it
    set_title(f"{title}: launcher")
    logs.adopt_foreign()  # once here instead of once in every child
    gc.disable()  # nothing here makes cycles, and collecting would unshare the children's memory


class _Executed:
    """A program that was executed directly; what is needed of multiprocess's Process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    @property
    def exitcode(self) -> int:
        """Reap it: its exit code, or minus the signal's number."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Nothing is open."""


@dataclass(eq=False, slots=True)
class _Child:
    """A process that was started here.

    Attributes:
        process: of multiprocess, which has no types, or _Executed.
        handover: on which a forked process learns what it is.
        owner: the supervisor that asked for it; None for a spare, or when the owner has ended.
        id, incarnation: as its owner calls it.
        channel: its own way to us, where it is a supervisor itself.
    """

    process: Any
    handover: socket.socket | None
    owner: Channel | None = None
    id: str = ""
    incarnation: int = 0
    channel: Channel | None = None


class _Asked(NamedTuple):
    """A process that a supervisor has asked for."""

    owner: Channel
    name: str
    incarnation: int
    kind: ChildType
    launch: bytes
    received: list[int]

    @property
    def is_python(self) -> bool:
        """Whether it stays a Python process, with the memory that it shares when it is forked."""
        return self.kind is not ChildType.COMMAND


class _Launcher:
    def __init__(self, root: socket.socket, exempt: Sequence[str]) -> None:
        root.settimeout(0)
        self._exempt = exempt
        self._root = Channel(root)
        self._channels = {root.fileno(): self._root}
        self._children: dict[int, _Child] = {}
        self._spare: _Child | None = None
        self._has_forked = False  # a tree of plain programs needs no spare
        self._preload: deque[str] = deque()
        self._waiting: list[_Asked] = []  # for the imports, of which they share the memory then
        self._held: list[int] = []  # open as long as we and those that we fork live
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.settimeout(0)
        self._poller = select.poll()

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._poller.register(self._wake_read, select.POLLIN)
        self._poller.register(self._root.socket, select.POLLIN)
        while True:
            ready = self._poller.poll(self._patience_ms())
            for descriptor, flags in ready:
                if descriptor == self._wake_read.fileno():
                    self._wake_read.recv(4096)
                    self._reap()
                elif (channel := self._channels.get(descriptor)) is not None:
                    self._serve(channel, flags)
            if self._root.socket.fileno() not in self._channels:
                return
            if not ready:
                self._use_idle_time()

    def _patience_ms(self) -> int:
        if self._preload:
            return 0
        wants_spare = self._spare is None and self._has_forked
        return int((_SPARE_AFTER_S if wants_spare else _SWEEP_PERIOD_S) * 1000)

    # -- what supervisors ask for ---------------------------------------------------------------

    def _serve(self, channel: Channel, flags: int) -> None:
        channel.flush()
        if flags & ~select.POLLOUT and not self._take_message(channel):
            self._drop(channel)
        else:
            wanted = select.POLLIN | (select.POLLOUT if channel.unsent else 0)
            self._poller.modify(channel.socket, wanted)

    def _take_message(self, channel: Channel) -> bool:
        """Do what one message asks for; False when its sender is gone."""
        try:
            data, received, _flags, _address = socket.recv_fds(
                channel.socket, MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return True  # what was readable was another channel of the same number
        except ConnectionResetError:
            return False
        if not data:
            return False
        match codec.decode(data):
            case ["hold"]:
                self._held.extend(received)
            case ["launch", str(name), int(incarnation), str(kind), [*modules], bytes(launch)]:
                # What this child would import, its successor and its siblings need as well.
                self._preload.extend(self._missing(modules))
                asked = _Asked(channel, name, incarnation, ChildType(kind), launch, received)
                if self._preload and asked.is_python:
                    self._waiting.append(asked)
                else:
                    self._launch(asked)
            case ["execute", str(name), int(incarnation), dict(wire)]:
                self._execute(channel, name, incarnation, from_wire(Program, wire))
            case ["preload", [*modules]]:
                self._preload.extend(self._missing(modules))
            case other:
                _log.error("launcher_message_unknown", message=repr(other)[:200])
        return True

    def _launch(self, asked: _Asked) -> None:
        owner, name, incarnation, kind, launch, received = asked
        if not self._has_forked:
            from supervisor.child import warm  # and all that makes a child, as in _fork

            self._has_forked = True
            warm.rehearse()
        child, self._spare = self._spare, None
        try:
            child = child or self._fork(is_spare=False)
        except OSError as exc:
            owner.send(["refused", name, incarnation, f"fork failed: {exc.strerror}"])
            descriptors.close_all(received)
            return
        child.owner, child.id, child.incarnation = owner, name, incarnation
        handover = child.handover
        assert handover is not None  # every forked process has one
        theirs: list[int] = []
        if kind is ChildType.SUPERVISOR:
            ours, its_end = channel_pair()
            ours.settimeout(0)
            child.channel = self._channels[ours.fileno()] = Channel(ours)
            self._poller.register(ours, select.POLLIN)
            theirs.append(its_end.detach())
        with contextlib.suppress(OSError):  # a killed spare's end is reported like any other's
            socket.send_fds(handover, [launch], [*received, *theirs])
        handover.close()
        descriptors.close_all([*received, *theirs])
        self._report_launch(child, owner)

    def _execute(self, owner: Channel, name: str, incarnation: int, program: Program) -> None:
        try:
            process = _Executed(execute(program))
        except OSError as exc:
            owner.send(["refused", name, incarnation, f"{exc.filename or ''}: {exc.strerror}"])
            return
        child = self._children[process.pid] = _Child(process, None, owner, name, incarnation)
        self._report_launch(child, owner)

    def _report_launch(self, child: _Child, owner: Channel) -> None:
        # Nobody but us can reap it, so the pid is certainly still this child's.
        pidfd = os.pidfd_open(child.process.pid)
        owner.send(["launched", child.id, child.incarnation, child.process.pid], pidfd)

    def _fork(self, *, is_spare: bool) -> _Child:
        """Fork a process that waits to be told what it is.

        Raises:
            OSError: the system refuses another process.
        """
        # Not above: a tree of programs has no use for what makes a child, nor for multiprocess.
        from supervisor.child import main as _main  # noqa: F401 - imported for all children
        from supervisor.runtime.forking import ForkedProcess

        ours, theirs = channel_pair()
        process = ForkedProcess(
            target=self._enter_child, args=(theirs, os.getpid()), kwargs={"is_spare": is_spare}
        )
        gc.freeze()  # what exists now is shared with the child until one of the two touches it
        try:
            process.start()
        finally:
            theirs.close()
        child = self._children[process.pid] = _Child(process, ours)
        return child

    def _enter_child(self, handover: socket.socket, launcher_pid: int, *, is_spare: bool) -> None:
        """Begin as a child: nothing that is open here is its business."""
        from supervisor.child import main as child_main

        signal.set_wakeup_fd(-1)
        descriptors.close_all_but((0, 1, 2, handover.fileno(), *self._held))
        code = child_main.run(handover, launcher_pid, is_spare=is_spare)
        # Threads of libraries that never end must not keep an ended child alive.
        os._exit(code)

    # -- what ends ------------------------------------------------------------------------------

    def _drop(self, channel: Channel) -> None:
        """A supervisor speaks to us no more: end what is below it, which nobody supervises."""
        if channel.socket.fileno() not in self._channels:
            return
        below = self._below(channel)
        for child in below:
            child.owner = None
            child.process.kill()
        deadline_s = time.monotonic() + _KILL_TIMEOUT_S
        for child in below:
            # What the kernel still holds, for a device, is reaped like any other later.
            if processes.await_end(child.process.pid, deadline_s - time.monotonic()):
                assert child.process.exitcode is not None  # which reaps it
                self._forget(child)
        gone = [channel, *(child.channel for child in below if child.channel is not None)]
        for asked in [asked for asked in self._waiting if asked.owner in gone]:
            self._waiting.remove(asked)
            descriptors.close_all(asked.received)
        for dropped in gone:
            del self._channels[dropped.socket.fileno()]
            self._poller.unregister(dropped.socket)
            dropped.close()
        processes.end_strangers(self._children, self._exempt)

    def _below(self, channel: Channel) -> list[_Child]:
        """The processes of a supervisor and of all supervisors below it."""
        found = [child for child in self._children.values() if child.owner is channel]
        for child in found:  # grows while it is walked
            if child.channel is not None:
                found.extend(c for c in self._children.values() if c.owner is child.channel)
        return found

    def _reap(self) -> None:
        """Collect all that have ended before anybody hears of it: one cause may have ended many."""
        ended: list[tuple[_Child, int]] = []
        while (pid := _ended_child()) is not None:
            child = self._children.get(pid)
            if child is None:
                os.waitpid(pid, 0)
                continue
            ended.append((child, child.process.exitcode))
            self._forget(child)
            if child is self._spare:
                self._spare = None
        if not ended:
            return
        for child, _code in ended:
            if child.channel is not None:
                self._drop(child.channel)
        # What the children left behind must be gone before their successors start.
        processes.end_strangers(self._children, self._exempt)
        self._report_ends(ended)

    def _report_ends(self, ended: list[tuple[_Child, int]]) -> None:
        by_owner: dict[Channel, list[list[object]]] = {}
        for child, code in ended:
            if child.owner is not None and child.owner.socket.fileno() in self._channels:
                by_owner.setdefault(child.owner, []).append([child.id, child.incarnation, code])
        for owner, ends in by_owner.items():
            for first in range(0, len(ends), _ENDS_PER_MESSAGE):
                owner.send(["ended", ends[first : first + _ENDS_PER_MESSAGE]])
            self._watch_unsent(owner)

    def _watch_unsent(self, channel: Channel) -> None:
        if channel.unsent and channel.socket.fileno() in self._channels:
            self._poller.modify(channel.socket, select.POLLIN | select.POLLOUT)

    def _forget(self, child: _Child) -> None:
        del self._children[child.process.pid]
        child.process.close()
        if child.handover is not None:
            child.handover.close()

    # -- what can be done ahead -----------------------------------------------------------------

    def _use_idle_time(self) -> None:
        if self._preload:
            self._import(self._preload.popleft())
            if not self._preload:
                logs.adopt_foreign()
                waiting, self._waiting = self._waiting, []
                for asked in waiting:
                    self._launch(asked)
            return
        processes.end_strangers(self._children, self._exempt)
        if self._spare is None and self._has_forked:
            try:
                self._spare = self._fork(is_spare=True)
            except OSError as exc:
                _log.warning("spare_not_forked", reason=exc.strerror)

    def _missing(self, modules: Sequence[str]) -> list[str]:
        missing = [name for name in modules if name not in sys.modules]
        if missing and self._spare is not None:
            self._spare.process.kill()  # it would lack them; another one follows
            self._spare = None
        return missing

    def _import(self, name: str) -> None:
        try:
            importlib.import_module(name)
        except ImportError as exc:
            # The child that needs it will say so itself, with its own name.
            _log.warning("preload_failed", module=name, error=str(exc))


def _ended_child() -> int | None:
    """A child of this process that waits to be collected; it is left so.

    Whoever started it must collect it: multiprocess what is its own.
    """
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def main() -> None:
    """Entry point of a launcher that is started with a fresh interpreter.

    Arguments: descriptor of the channel, the root's pid, the title, the exempt programs with
    colons between them, the root's module path.
    """
    channel_fd, root_pid, title, exempt, *sys.path = sys.argv[1:]
    patterns = tuple(filter(None, exempt.split(":")))
    serve(socket.socket(fileno=int(channel_fd)), int(root_pid), title, patterns)


if __name__ == "__main__":
    main()
