"""Keeping the processes of a supervisor to what their specifications say.

A process sets itself before its first own instruction (supervisor.child.main). What follows is
looked at here every few seconds, in one pass, and only for children that have something to be
kept to: the kernel's cpuset controller resets CPUs behind everybody's back, anybody with rights
can renice, and memory grows.

The limits of memory are two steps. Past the soft one the child is degraded, with the reason. Past
the hard one it writes its stacks, is told to stop, and is killed if it does not in time; that is
an end like any other, counted as a failure, with the code ``supervisor.memory``.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from protocol import names
from protocol.dataclass import dataclass, replace
from protocol.messages.control import EventReport
from protocol.records import Plain
from supervisor.child import logs
from supervisor.core.child import Child, ChildState
from supervisor.core.placement import cpus_of, reserved_cpus, shared_cpus
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.resources import NO_CGROUP, NO_LIMITS, MemoryStep, memory_step, size
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec
from supervisor.posix import cgroup
from supervisor.posix.cgroup import Groups, NotDelegatedError
from supervisor.posix.oom import HostKills
from supervisor.runtime import stacks
from supervisor.runtime.kept import Findings, Kept
from supervisor.runtime.processes import Process

if TYPE_CHECKING:
    from supervisor.runtime.loop import SupervisorLoop

PERIOD_S = 5.0
# By then the supervisor has mostly woken up for something else, such as its own beat.
_SLACK_S = 2.5
OUT_OF_MEMORY = "supervisor.memory"
# A child that uses too much memory and would have for ever to stop gets OTP's default.
_STOP_TIMEOUT_S = 5.0
# Processes of a child that has ended are gone already; the kernel needs a moment to notice.
_REMOVE_TIMEOUT_S = 0.2


@dataclass(frozen=True, slots=True)
class Grant:
    """What a process is to set itself to, beside its specification.

    Attributes:
        cpus: that it may run on; empty for those it has.
        group: control group to move into; "" for none.
        refused: what the supervisor could not provide, a sentence each.
    """

    cpus: tuple[int, ...] = ()
    group: str = ""
    refused: tuple[str, ...] = ()


class Limits:
    """The limits of one supervisor's children.

    Args:
        loop: the supervisor.
    """

    def __init__(self, loop: SupervisorLoop) -> None:
        self._loop = loop
        self._log = logs.Logger()
        self._kept: dict[str, Kept] = {}
        self._unchecked: set[str] = set()
        self._kill_at_s: dict[str, float] = {}
        self._next_s = 0.0
        self._groups: Groups | None = None
        self._host_kills = HostKills()
        self._spec: SupervisorSpec | None = None
        self._reserved: frozenset[int] = frozenset()
        # The limits of a supervisor's group are those of all below it, whom the launcher forks.
        self._has_group = loop.path != names.ROOT and cgroup.has_left_parent()

    def grant(self, spec: ChildSpec, incarnation: int) -> Grant:
        """A process is about to be created; returns what it is to set itself to."""
        if not self._reserved.issuperset(spec.cpus):
            self._reserve()
        cpus = cpus_of(spec, self._shared())
        group, grant = None, Grant(tuple(sorted(cpus)))
        if spec.resources.cgroup != NO_CGROUP or self._has_group:
            group, grant = self._make_group(spec, grant)
        if cpus or group is not None or spec.resources != NO_LIMITS:
            self._kept[spec.id] = Kept(spec, incarnation, cpus, group)
            self._unchecked.add(spec.id)
        return grant

    def ended(self, name: str, process: Process, reason: ExitReason) -> ExitReason:
        """A process has ended, or could not be created; returns the reason, if memory was it."""
        kept = self._kept.pop(name, None)
        self._unchecked.discard(name)
        child = self._loop.machine.children.get(name)
        if child is None or child.spec.type is not ChildType.COMMAND:
            self._keep_stacks(name, process)
        self._kill_at_s.pop(name, None)
        if process.doom is not None:
            reason = process.doom
        elif reason.kind is ExitKind.KILLED and reason.detail == signal.SIGKILL.name:
            reason = self._blame_kernel(name, kept, reason)
        if kept is not None:
            kept.close()
        if kept is not None and kept.group is not None:
            try:
                cgroup.remove(kept.group, _REMOVE_TIMEOUT_S)
            except OSError as exc:
                self._log.warning("group_not_removed", group=str(kept.group), reason=exc.strerror)
        return reason

    def due_s(self) -> float | None:
        """When ``turn`` is needed next; None while there is nothing to keep."""
        if not self._kept:
            return None
        return min((self._next_s + _SLACK_S, *self._kill_at_s.values()))

    def turn(self, now_s: float) -> None:
        """Look at those that have come up, and every few seconds at all."""
        for name in [name for name in self._unchecked if self._is_up(name)]:
            self._unchecked.discard(name)
            self._look_first(name)
        if self._next_s <= now_s:
            self._next_s = now_s + PERIOD_S
            self._look_at_all(now_s)
        for name in [name for name, at_s in self._kill_at_s.items() if at_s <= now_s]:
            del self._kill_at_s[name]
            self._loop.processes[name].send_signal(signal.SIGKILL)

    def _keep_stacks(self, name: str, process: Process) -> None:
        """Have what a child wrote of its stacks in its log."""
        path = names.child_path(self._loop.path, name)
        text = stacks.collect(self._loop.run_dir, path)
        if text and not stacks.write_to_log(self._loop.tree, path, process.pid or 0, text):
            self._log.error("stacks", child=name, pid=process.pid, stacks=text)

    # -- looking --------------------------------------------------------------------------------

    def _is_up(self, name: str) -> bool:
        child = self._loop.machine.children.get(name)
        return child is not None and child.state is ChildState.UP

    def _look_first(self, name: str) -> None:
        process, kept = self._loop.processes[name], self._kept[name]
        assert process.pid is not None  # it is up
        try:
            findings = kept.look_first(process.pid)
        except OSError:
            return  # it has ended, as we are about to hear
        self._take_in(name, process, kept, findings)

    def _look_at_all(self, now_s: float) -> None:
        if self._reserved:
            self._reserve()  # what was reserved for a child that was removed is free again
        shared = self._shared()
        if not self._kept and not shared:
            return
        for name, child in self._loop.machine.children.items():
            process = self._loop.processes.get(name)
            if process is None or process.pid is None or child.state is ChildState.STOPPING:
                continue
            kept, cpus = self._kept.get(name), cpus_of(child.spec, shared)
            if kept is None:
                if not cpus:
                    continue
                # The CPUs of a sibling are reserved only since this one was started.
                kept = self._kept[name] = Kept(child.spec, process.incarnation, frozenset(), None)
            if name not in self._unchecked:
                try:
                    findings = kept.look(process.pid, cpus)
                except OSError:
                    continue
                self._take_in(name, process, kept, findings)
            if child.spec.resources.has_memory_limit and process.doom is None:
                self._look_at_memory(child, process, kept, now_s)

    def _take_in(self, name: str, process: Process, kept: Kept, findings: Findings) -> None:
        if findings.restored:
            self._tell(name, "component:limits-restored", {"limits": list(findings.restored)})
        if findings.refused:
            self._tell(name, "component:limits-refused", {"limits": list(findings.refused)})
        if process.limits != kept.words:
            process.limits = kept.words
            self._loop.records.report(name)

    # -- memory ---------------------------------------------------------------------------------

    def _look_at_memory(self, child: Child, process: Process, kept: Kept, now_s: float) -> None:
        assert process.pid is not None  # the caller has looked
        used = kept.memory_bytes(process.pid)
        if used is None:
            return
        name, limits = child.spec.id, child.spec.resources
        step = memory_step(limits, used, is_strained=bool(process.strain))
        fields: dict[str, Plain] = {"used_bytes": used}
        match step:
            case MemoryStep.HARD:
                assert limits.memory_hard_bytes is not None
                limit = limits.memory_hard_bytes
                sentence = f"used {megabytes(used)} of memory, of at most {size(limit)}"
                process.doom = ExitReason(kind=ExitKind.KILLED, detail=sentence, code=OUT_OF_MEMORY)
                self._tell(name, "component:memory-hard", {**fields, "limit_bytes": limit})
                self._stop(child, process, now_s)
            case MemoryStep.SOFT if not process.strain:
                assert limits.memory_soft_bytes is not None
                limit = limits.memory_soft_bytes
                process.strain = f"uses {megabytes(used)} of memory, more than {size(limit)}"
                self._tell(name, "component:memory-soft", {**fields, "limit_bytes": limit})
                self._loop.records.report(name)
            case MemoryStep.NONE if process.strain:
                process.strain = ""
                self._tell(name, "component:memory-recovered", fields)
                self._loop.records.report(name)
            case _:
                pass

    def _stop(self, child: Child, process: Process, now_s: float) -> None:
        """Have a child write its stacks, ask it to stop, and kill it if it does not."""
        spec = child.spec
        if spec.type is not ChildType.COMMAND:
            process.send_signal(stacks.SHOW_STACKS)
        timeout_s = _STOP_TIMEOUT_S if spec.shutdown_s is None else spec.shutdown_s
        self._kill_at_s[spec.id] = now_s + timeout_s
        if timeout_s > 0:
            self._loop.ask_stop(spec.id)

    def _blame_kernel(self, name: str, kept: Kept | None, reason: ExitReason) -> ExitReason:
        """Tell a kill for want of memory from others."""
        child = self._loop.machine.children.get(name)
        if child is None or child.state is ChildState.STOPPING or child.doom is not None:
            return reason  # it was us
        group = None if kept is None else kept.group
        if group is not None and cgroup.memory_events(group).oom_kill:
            limit = child.spec.resources.cgroup.memory_max_bytes
            detail = "SIGKILL, by the kernel: out of memory"
            detail += "" if limit is None else f", of at most {size(limit)}"
            return replace(reason, detail=detail, code=OUT_OF_MEMORY)
        if self._host_kills.took_place():
            detail = "SIGKILL, by the kernel it seems: the host ran out of memory"
            return replace(reason, detail=detail, code=OUT_OF_MEMORY)
        return reason

    # -- what is given --------------------------------------------------------------------------

    def _shared(self) -> frozenset[int]:
        """The CPUs of children without CPUs of their own; none where those they have are right.

        What a nested supervisor may run on is what its own supervisor keeps it to.
        """
        own = frozenset(os.sched_getaffinity(0))
        if self._loop.path != names.ROOT:
            return own if len(own) != os.cpu_count() else frozenset()
        if self._spec is not self._loop.machine.spec:
            self._reserve()
        return shared_cpus(own, self._reserved) if self._reserved else frozenset()

    def _reserve(self) -> None:
        """See which CPUs are reserved, also by children that were added by order."""
        self._spec = self._loop.machine.spec
        added = (cpu for child in self._loop.machine.children.values() for cpu in child.spec.cpus)
        self._reserved = reserved_cpus(self._spec) | frozenset(added)

    def _make_group(self, spec: ChildSpec, grant: Grant) -> tuple[Path | None, Grant]:
        try:
            if self._groups is None:
                self._groups = Groups(cgroup.find_base())
            created = self._groups.create(
                names.child_path(self._loop.path, spec.id),
                spec.resources.cgroup,
                is_supervisor=spec.type is ChildType.SUPERVISOR,
            )
        except NotDelegatedError as exc:
            return None, replace(grant, refused=(f"cgroup: {exc}",))
        except OSError as exc:
            sentence = f"cgroup: {exc.filename or ''}: {exc.strerror}"
            return None, replace(grant, refused=(sentence,))
        grant = replace(grant, group=str(created.entry), refused=created.refused)
        return created.directory, grant

    def _tell(self, name: str, event: str, fields: dict[str, Plain]) -> None:
        path = names.child_path(self._loop.path, name)
        self._log.warning(event.partition(":")[2].replace("-", "_"), child=name, **fields)
        self._loop.owner.happened(EventReport(name=event, component=path, fields=fields))


def megabytes(value: int) -> str:
    """Bytes for people, to one MiB."""
    return f"{value >> 20} MiB"
