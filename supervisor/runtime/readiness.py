"""Looking whether commands are up: the effects to supervisor.core.readiness.

Nothing here blocks: a look is one system call or two, and what has not been answered by then is
asked again at the next one. While no command starts there is nothing due.

A look at a port or socket is a connection that is closed at once, as any client's could be; it
does not tell whose the listener is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, assert_never

from protocol.dataclass import dataclass
from supervisor.core.readiness import PROBE_FIRST_S, Readiness, ReadinessKind, next_pause_s

# What one look reads of a log at most, so that a program that floods it keeps nobody waiting.
_LOOK_BYTES = 256 << 10
# A longer line is searched in pieces.
_LINE_BYTES_MAX = 64 << 10
# A connection that is neither accepted nor refused in so many looks, a second, is tried anew.
_CONNECT_LOOKS_MAX = 10
# Flag of /proc/<pid>/stat: forked, and nothing executed since.
_PF_FORKNOEXEC = 0x40
_FLAGS_FIELD = 6  # after the name, which ends with the last parenthesis
# What is executed on the way to some programs; see runtime.program.
_SETPRIV = b"setpriv\0"


class Probe(Protocol):
    """Something to look at until it shows that a command is up."""

    is_behind: bool

    def look(self) -> bool:
        """Whether the command is up by now.

        Raises:
            OSError: it can't be looked at at the moment.
        """

    def close(self) -> None:
        """Release what is open."""


@dataclass(slots=True)
class _Wait:
    probe: Probe
    incarnation: int
    pause_s: float | None
    due_s: float


class Probes:
    """The commands of one supervisor that are starting.

    Args:
        became_ready: told the id and incarnation of a command that is up.
    """

    def __init__(self, became_ready: Callable[[str, int], None]) -> None:
        self._became_ready = became_ready
        self._waits: dict[str, _Wait] = {}

    def begin(self, name: str, incarnation: int, probe: Probe, now_s: float) -> None:
        """Look at a process that runs from now on."""
        self.forget(name)
        # A program is never there at once; a port may be, of one that goes on in the background.
        pause_s = next_pause_s(None) if isinstance(probe, ExecProbe) else None
        self._waits[name] = _Wait(probe, incarnation, pause_s, now_s + (pause_s or 0.0))

    def forget(self, name: str) -> None:
        """It has ended, or is up."""
        if (wait := self._waits.pop(name, None)) is not None:
            wait.probe.close()

    def due_s(self) -> float | None:
        """When ``turn`` is needed next; None while nothing starts."""
        return min((wait.due_s for wait in self._waits.values()), default=None)

    def turn(self, now_s: float) -> None:
        """Look at what is due."""
        for name, wait in [it for it in self._waits.items() if it[1].due_s <= now_s]:
            is_up = False
            with contextlib.suppress(OSError):
                is_up = wait.probe.look()
            if is_up:
                self.forget(name)
                self._became_ready(name, wait.incarnation)
                continue
            wait.pause_s = PROBE_FIRST_S if wait.probe.is_behind else next_pause_s(wait.pause_s)
            wait.due_s = now_s + wait.pause_s


def probe_of(readiness: Readiness, *, pid: int, log: LogProbe | None) -> Probe | None:
    """What to look at; None for a command that says by itself that it is up.

    Args:
        readiness: what shows it.
        pid: the command's process.
        log: what ``LogProbe`` began before there was a process.
    """
    match readiness.kind:
        case ReadinessKind.NOTIFY:
            return None
        case ReadinessKind.EXEC:
            return ExecProbe(pid)
        case ReadinessKind.TCP:
            family = socket.AF_INET6 if ":" in readiness.host else socket.AF_INET
            return ConnectProbe(family, (readiness.host, readiness.port))
        case ReadinessKind.UNIX:
            return ConnectProbe(socket.AF_UNIX, readiness.path)
        case ReadinessKind.LOG:
            return log
        case _:
            assert_never(readiness.kind)


class ExecProbe:
    """Sees a process become a program."""

    is_behind = False

    def __init__(self, pid: int) -> None:
        self._place = f"/proc/{pid}"

    def look(self) -> bool:
        """See Probe."""
        words = _read(f"{self._place}/stat").rpartition(b")")[2].split()
        if int(words[_FLAGS_FIELD]) & _PF_FORKNOEXEC:
            return False
        command_line = _read(f"{self._place}/cmdline")  # empty in between, and after the end
        return bool(command_line) and not command_line.startswith(_SETPRIV)

    def close(self) -> None:
        """Nothing is open."""


class ConnectProbe:
    """Sees that somebody listens at an address."""

    is_behind = False

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int] | str) -> None:
        self._family = family
        self._address = address
        self._kinds = [socket.SOCK_STREAM]
        if family is socket.AF_UNIX:
            self._kinds += [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
        self._socket: socket.socket | None = None
        self._looks = 0

    def look(self) -> bool:
        """See Probe."""
        if self._socket is not None:
            return self._look_again(self._socket)
        self._socket = attempt = socket.socket(self._family, self._kinds[0])
        attempt.settimeout(0)
        self._looks = 0
        code = attempt.connect_ex(self._address)
        if code == errno.EINPROGRESS:
            return False
        try:
            if code == errno.EPROTOTYPE:  # a Unix socket of another kind
                self._kinds.append(self._kinds.pop(0))
                return False
            # A Unix socket whose queue of connections is full has a listener.
            return (code == 0 and not _is_own(attempt)) or code == errno.EAGAIN
        finally:
            self.close()

    def _look_again(self, attempt: socket.socket) -> bool:
        self._looks += 1
        poller = select.poll()
        poller.register(attempt, select.POLLOUT)
        if not poller.poll(0) and self._looks < _CONNECT_LOOKS_MAX:
            return False
        try:
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return code == 0 and self._looks < _CONNECT_LOOKS_MAX and not _is_own(attempt)
        finally:
            self.close()

    def close(self) -> None:
        """Give up the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class LogProbe:
    """Sees a line in a growing file.

    Args:
        file: standard output and standard error of the command.
        pattern: a regular expression.
        position: where the command's own output begins.
    """

    def __init__(self, file: Path, pattern: str, position: int) -> None:
        self._file = file
        self._pattern = re.compile(pattern)
        self._position = position
        self._partial = b""
        self._descriptor = -1
        self.is_behind = False

    def look(self) -> bool:
        """See Probe."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if os.fstat(self._descriptor).st_size < self._position:  # cut, to bound it
            self._position, self._partial = 0, b""
        data = os.pread(self._descriptor, _LOOK_BYTES, self._position)
        self._position += len(data)
        self.is_behind = len(data) == _LOOK_BYTES
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LINE_BYTES_MAX:
            lines, self._partial = [*lines, self._partial], b""
        return any(self._pattern.search(line.decode("utf-8", "replace")) for line in lines)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _read(file: str) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1024)
    finally:
        os.close(descriptor)


def _is_own(connection: socket.socket) -> bool:
    """Whether a connection leads to itself, as the kernel makes them where nobody listens."""
    if connection.family is socket.AF_UNIX:
        return False
    return bool(connection.getsockname() == connection.getpeername())
