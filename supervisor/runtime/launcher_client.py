"""A supervisor's end of the launcher: ask it for processes, notice when it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn, Self

from protocol import codec
from protocol.dataclass import dataclass
from protocol.records import to_wire
from supervisor.posix import processes
from supervisor.posix.board import Board
from supervisor.runtime import launcher
from supervisor.runtime.channel import MESSAGE_BYTES_MAX, channel_pair
from supervisor.runtime.launch import Launch
from supervisor.runtime.program import can_execute, plain_program

# A launch that the launcher has not answered by then means that it hangs. At the boot it first
# imports what all children share, which takes a second and on slow machines several.
ANSWER_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 2.0


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
    """A supervisor's channel to the launcher of its tree.

    Args:
        channel: this end of it.
        pid: the launcher.
        exempt: programs that outlive the tree; see processes.is_exempt.
    """

    def __init__(self, channel: socket.socket, pid: int, exempt: Sequence[str] = ()) -> None:
        channel.settimeout(0)
        self.channel = channel
        self.pid = pid
        self.exempt = exempt
        self._has_ended = False

    @classmethod
    def fork(cls, title: str, modules: Iterable[str] = (), exempt: Sequence[str] = ()) -> Self:
        """Fork the launcher from this process, which must have no thread yet.

        The less is imported by now, the more memory the processes of the tree share; the launcher
        imports ``modules``, in this order, while this process goes on.

        Args:
            title: prefix of its process title.
            modules: what the first children need.
            exempt: programs that outlive the tree; see processes.is_exempt.
        """
        ours, theirs = channel_pair()
        root_pid = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or it would be written twice
        if (pid := os.fork()) == 0:
            _serve_forked(ours, theirs, root_pid, title, exempt)
        theirs.close()
        client = cls(ours, pid, exempt)
        client.preload(modules)
        return client

    @classmethod
    def execute(cls, title: str, exempt: Sequence[str] = ()) -> Self:
        """Start the launcher with a fresh interpreter, which takes ten times as long.

        It finds modules where this process does.
        """
        ours, theirs = channel_pair()
        theirs.set_inheritable(True)
        module, number = "supervisor.runtime.launcher", str(theirs.fileno())
        pid = os.posix_spawn(
            sys.executable,
            (
                *(sys.executable, "-I", "-m", module, number, str(os.getpid()), title),
                *(":".join(exempt), *sys.path),
            ),
            os.environ,
        )
        theirs.close()
        return cls(ours, pid, exempt)

    def launch(self, launch: Launch, board: Board) -> bool:
        """Ask for a process; False when the launcher takes nothing any more.

        Args:
            launch: what the process is.
            board: on which it beats.
        """
        spec = launch.spec
        if (program := plain_program(launch)) is not None and can_execute():
            return self._send(["execute", spec.id, launch.incarnation, to_wire(program)])
        wire = codec.encode(to_wire(launch))
        modules = list(spec.preload)
        message = ["launch", spec.id, launch.incarnation, spec.type.value, modules, wire]
        return self._send(message, board.descriptor)

    def preload(self, modules: Iterable[str]) -> None:
        """Ask it to import modules when it has nothing else to do."""
        self._send(["preload", list(modules)])

    def hold(self, descriptor: int) -> None:
        """Have a descriptor, such as a lock's, kept open until the last of the tree has ended."""
        self._send(["hold"], descriptor)

    def notices(self) -> Iterator[Notice]:
        """What it has said since; never blocks.

        Raises:
            ConnectionError: the launcher is gone.
        """
        while True:
            try:
                data, descriptors, _flags, _address = socket.recv_fds(
                    self.channel, MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            if not data:
                raise ConnectionResetError("the launcher has ended")
            match codec.decode(data):
                case ["launched", str(name), int(incarnation), int(pid)]:
                    yield Launched(name, incarnation, pid, descriptors[0])
                case ["ended", [*ends]]:
                    for name, incarnation, code in ends:
                        yield Ended(name, incarnation, code)
                case ["refused", str(name), int(incarnation), str(reason)]:
                    yield Refused(name, incarnation, reason)

    def close(self) -> None:
        """Close the channel, upon which the launcher ends everything below this supervisor."""
        self.channel.close()

    def end(self) -> None:
        """Close the channel of a launcher that this process started, and wait for its end."""
        if self._has_ended:
            return
        self._has_ended = True
        self.close()
        if not processes.await_end(self.pid, _END_TIMEOUT_S):
            self.kill()
            processes.await_end(self.pid, _END_TIMEOUT_S)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def kill(self) -> None:
        """End a launcher that hangs; all children of the tree end with it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _send(self, message: list[object], *descriptors: int) -> bool:
        try:
            socket.send_fds(self.channel, [codec.encode(message)], descriptors)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return False
        return True


def _serve_forked(
    ours: socket.socket, theirs: socket.socket, root_pid: int, title: str, exempt: Sequence[str]
) -> NoReturn:
    code = 1
    # The program that was forked is not this one's: nothing of it may run here, whatever happens.
    try:
        ours.close()
        launcher.serve(theirs, root_pid, title, exempt)
        code = 0
    except BaseException:  # noqa: BLE001 - as said
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
