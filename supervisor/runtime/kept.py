"""One process kept to what its specification says: what is looked at, and set again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from protocol.dataclass import dataclass, replace
from supervisor.core.resources import NO_LIMITS, describe, unmet
from supervisor.core.spec import ChildSpec
from supervisor.posix import cgroup, resources
from supervisor.posix.memory import MemoryGauge
from supervisor.posix.processes import descendants_of

# What takes opening a file to see is looked at every so many looks.
_LOOKS_BETWEEN = 3


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look has found new.

    Attributes:
        restored: what was lost and holds again, a sentence each.
        refused: what does not hold and could not be set.
    """

    restored: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Kept:
    """What one process is kept to.

    Args:
        spec: of the child.
        incarnation: which of its processes.
        cpus: CPUs that it was told to run on; empty for any.
        group: its control group; None where it has none to itself.
    """

    def __init__(
        self, spec: ChildSpec, incarnation: int, cpus: frozenset[int], group: Path | None
    ) -> None:
        self.incarnation = incarnation
        self.cpus = cpus
        self.group = group
        self._spec = spec
        # Nobody takes rlimits away, and the process itself may change them.
        self._lasting = replace(spec.resources, rlimits={})
        # Memory is looked at by itself.
        unlimited = replace(self._lasting, memory_soft_bytes=None, memory_hard_bytes=None)
        self._has_lasting = unlimited != NO_LIMITS
        self._seen_cpus: frozenset[int] | None = None
        self._refused_for_good: frozenset[str] = frozenset()
        self._refused: frozenset[str] = frozenset()
        self._gauge: MemoryGauge | None = None
        self._looks = 0
        self._glance: tuple[int, int] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The limits for people, and which of them do not hold."""
        refused = sorted(self._refused_for_good | self._refused)
        return (*describe(self._spec.resources), *(f"not applied: {it}" for it in refused))

    def look_first(self, pid: int) -> Findings:
        """See what a process that has just come up has set itself to.

        Raises:
            OSError: it has ended.
        """
        wanted = self._spec.resources
        now = resources.holding(pid, wanted, self.group)
        self._seen_cpus = now.cpus
        problems = frozenset(unmet(wanted, self._spec.cpus, now))
        self._refused = frozenset(unmet(self._lasting, (), now))
        self._refused_for_good = problems - self._refused
        return Findings(refused=tuple(sorted(problems)))

    def look(self, pid: int, cpus: frozenset[int]) -> Findings:
        """See what holds now, and set again what was taken away.

        Args:
            pid: the process.
            cpus: that it is to run on now; empty for any.

        Raises:
            OSError: it has ended.
        """
        restored, refused = self._look_at_cpus(pid, cpus)
        if self._has_lasting and self._is_due(pid):
            problems = self._problems(pid)
            if lost := problems - self._refused:
                self._apply(pid)
                problems = self._problems(pid)
            restored += sorted(lost - problems)
            refused += sorted(problems - self._refused)
            self._refused = problems
        return Findings(tuple(restored), tuple(refused))

    def memory_bytes(self, pid: int) -> int | None:
        """What the process and all below it use; None if it has ended."""
        if self.group is not None:
            used = cgroup.memory_bytes(self.group)
            if used is not None:
                return used
        if self._gauge is None:
            try:
                self._gauge = MemoryGauge(pid)
            except OSError:
                return None
        wanted = self._spec.resources
        limit = wanted.memory_soft_bytes or wanted.memory_hard_bytes
        assert limit is not None  # else nobody asks
        return self._gauge.look(limit)

    def close(self) -> None:
        """The process has ended."""
        if self._gauge is not None:
            self._gauge.close()
            self._gauge = None

    def _look_at_cpus(self, pid: int, cpus: frozenset[int]) -> tuple[list[str], list[str]]:
        now = frozenset(os.sched_getaffinity(pid))
        if cpus != self.cpus:  # the CPUs of others were reserved, or given back
            self.cpus = cpus
            self._seen_cpus = _move(pid, cpus or frozenset(os.sched_getaffinity(0)))
            return [], []
        if not cpus or self._seen_cpus is None:
            return [], []
        # One that shares CPUs may restrict itself further; one that is pinned may not.
        is_lost = now != self._seen_cpus if self._spec.cpus else not now <= self._seen_cpus
        if not is_lost:
            return [], []
        before, self._seen_cpus = self._seen_cpus, _move(pid, cpus)
        sentence = f"cpus {_numbers(before)} (had {_numbers(now)})"
        return ([], [sentence]) if self._seen_cpus == now else ([sentence], [])

    def _is_due(self, pid: int) -> bool:
        """Whether to look closely: what is often changed has, or it was not done for a while."""
        self._looks += 1
        glance = os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid)
        is_same, self._glance = glance == self._glance, glance
        return not is_same or self._looks % _LOOKS_BETWEEN == 0

    def _problems(self, pid: int) -> frozenset[str]:
        return frozenset(
            unmet(self._lasting, (), resources.holding(pid, self._lasting, self.group))
        )

    def _apply(self, pid: int) -> None:
        if self.group is not None:
            cgroup.limit(self.group, self._lasting.cgroup)
        resources.apply(self._lasting, pid=pid)


def _move(pid: int, cpus: frozenset[int]) -> frozenset[int]:
    """Bind a process and all below it to some CPUs; returns those that it has then."""
    for process in (pid, *descendants_of(pid)):
        with contextlib.suppress(OSError):
            resources.set_cpus(cpus, pid=process)
    return frozenset(os.sched_getaffinity(pid))


def _numbers(cpus: Iterable[int]) -> str:
    return ",".join(map(str, sorted(cpus)))
