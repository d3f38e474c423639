"""What a supervisor does for its commands: when they are up, what they say, where they write.

A Python child says all this over ZeroMQ; a program knows nothing of us, and is looked at.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from protocol import names
from protocol.messages.health import Health, HealthState
from supervisor.child import credentials, logs
from supervisor.core import events
from supervisor.core.child import ChildState
from supervisor.core.readiness import ReadinessKind
from supervisor.core.spec import CHILDREN_MAX, ChildSpec, ChildType, Liveness
from supervisor.posix.board import Board, LastWords
from supervisor.runtime.notify_socket import STATUS_PERIOD_S, Notification, NotifySocket
from supervisor.runtime.outputs import Outputs
from supervisor.runtime.processes import Process
from supervisor.runtime.readiness import LogProbe, Probes, probe_of

if TYPE_CHECKING:
    from supervisor.runtime.loop import SupervisorLoop

# What setpriv, as a shell, exits with when it can't execute the program.
_NOT_EXECUTED = (126, 127)


def liveness_of(spec: ChildSpec) -> Liveness | None:
    """How often a child must beat; of a command, how often it must say WATCHDOG=1."""
    if spec.type is not ChildType.COMMAND:
        return spec.liveness
    watchdog_s = spec.readiness.watchdog_s
    return None if watchdog_s is None else Liveness(period_s=watchdog_s, missed_max=1)


class Commands:
    """The commands of one supervisor.

    Args:
        loop: the supervisor.
        board: where beats are kept.
    """

    def __init__(self, loop: SupervisorLoop, board: Board) -> None:
        self._loop = loop
        self._board = board
        self._tree = loop.tree
        self._log = logs.Logger()
        self._notify_path = names.socket_path(loop.run_dir, loop.path).with_suffix(".notify")
        self.notify = NotifySocket(self._notify_path)
        self._probes = Probes(self._became_ready)
        self._outputs = Outputs(bytes_max=self._tree.log_bytes_max, files=self._tree.log_files)
        self._log_probes: dict[str, LogProbe] = {}
        self._early: dict[int, Notification] = {}
        self._saying: dict[str, float] = {}
        self._with_credentials: set[str] = set()
        # Of processes that ended together with their supervisor, who could not clear up.
        prefix = "" if loop.path == names.ROOT else f"{names.file_stem(loop.path)}."
        for left in loop.run_dir.glob(f"{prefix}*{credentials.SUFFIX}"):
            credentials.remove(left)

    def begin(self, spec: ChildSpec) -> str:
        """A process is about to be created; returns the notify socket that it is to be told."""
        if spec.type is not ChildType.COMMAND:
            return ""
        if credentials.SETTING in spec.settings:
            self._with_credentials.add(spec.id)
        if (file := self._output_of(spec.id)) is not None:
            self._watch_output(spec, file)
        return str(self._notify_path) if spec.readiness.needs_socket else ""

    def launched(self, spec: ChildSpec, process: Process) -> None:
        """A process runs."""
        if spec.type is not ChildType.COMMAND or process.pid is None:
            return
        log = self._log_probes.pop(spec.id, None)
        probe = probe_of(spec.readiness, pid=process.pid, log=log)
        if probe is not None:
            self._probes.begin(spec.id, process.incarnation, probe, time.monotonic())
        if (early := self._early.pop(process.pid, None)) is not None:
            self._take(spec.id, process, early)

    def ending(self, name: str, code: int, words: LastWords | None) -> None:
        """A process has ended; a program that was done before it was looked at was up.

        Args:
            name: the child.
            code: exit code, or minus the signal's number.
            words: what a process of ours leaves that could not become a program.
        """
        child = self._loop.machine.children.get(name)
        if child is None or child.spec.type is not ChildType.COMMAND or words is not None:
            return
        is_exec = child.spec.readiness.kind is ReadinessKind.EXEC
        if is_exec and child.state is ChildState.STARTING and code not in _NOT_EXECUTED:
            self._became_ready(name, child.incarnation)

    def ended(self, name: str) -> None:
        """A process has ended, or could not be created."""
        self._probes.forget(name)
        self._log_probes.pop(name, None)
        self._saying.pop(name, None)
        if name in self._with_credentials:
            self._with_credentials.discard(name)
            path = names.child_path(self._loop.path, name)
            with contextlib.suppress(OSError):
                credentials.remove(credentials.directory(self._loop.run_dir, path))
        if (file := self._output_of(name)) is not None:
            self._outputs.release(file)

    def removed(self, name: str) -> None:
        """A child does not belong to the supervisor any more."""
        if (file := self._output_of(name)) is not None:
            self._outputs.forget(file)

    def due_s(self) -> float | None:
        """When ``turn`` is needed next."""
        due = [at for at in (self._probes.due_s(), *self._saying.values()) if at is not None]
        return min(due, default=None)

    def turn(self, now_s: float) -> None:
        """Look at those that start, and pass on what the others said."""
        self._probes.turn(now_s)
        self._outputs.turn(now_s)
        for name in [name for name, at_s in self._saying.items() if at_s <= now_s]:
            del self._saying[name]
            self._loop.records.report(name)

    def take(self) -> None:
        """Take what arrived on the notify socket."""
        by_pid = {process.pid: name for name, process in self._loop.processes.items()}
        for said in self.notify.receive():
            if (name := by_pid.get(said.pid)) is not None:
                self._take(name, self._loop.processes[name], said)
            elif len(self._early) < CHILDREN_MAX and self._loop.is_launching:
                self._early[said.pid] = said  # faster than the word that its sender exists
        if not self._loop.is_launching:
            self._early.clear()

    def close(self) -> None:
        """Close all that is open."""
        self.notify.close()
        self._outputs.close()

    def _take(self, name: str, process: Process, said: Notification) -> None:
        child = self._loop.machine.children.get(name)
        if child is None or child.spec.type is not ChildType.COMMAND:
            return
        if said.is_alive:
            self._board.beat(process.slot)
        if said.status is not None and said.status != process.health.reason:
            process.health = Health(HealthState.HEALTHY, said.status)
            self._saying.setdefault(name, time.monotonic() + STATUS_PERIOD_S)
        if said.is_ready and child.spec.readiness.kind is ReadinessKind.NOTIFY:
            self._became_ready(name, process.incarnation)

    def _became_ready(self, name: str, incarnation: int) -> None:
        self._loop.step(events.BecameReady(name, incarnation))
        self._loop.watch_liveness()
        if (file := self._output_of(name)) is not None:
            self._outputs.release(file)

    def _watch_output(self, spec: ChildSpec, file: Path) -> None:
        try:
            self._outputs.watch(file)
        except OSError as exc:
            self._log.error("output_not_watched", file=str(file), reason=exc.strerror)
            return
        if spec.readiness.kind is ReadinessKind.LOG:
            position = self._outputs.hold(file)
            self._log_probes[spec.id] = LogProbe(file, spec.readiness.pattern, position)

    def _output_of(self, name: str) -> Path | None:
        if not self._tree.log_dir:
            return None
        path = names.child_path(self._loop.path, name)
        return logs.log_file(Path(self._tree.log_dir), path, ".log")
