"""What a child's process may use: processors, scheduling, memory, descriptors, and so on.

Nothing here touches a process. ``supervisor.posix.resources`` sets a process to it and reads back
what holds, ``unmet`` compares the two, and ``describe`` says it in words.

Source: sched(7), getrlimit(2), proc_pid_oom_score_adj(5), the kernel's cgroup-v2 document.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from protocol.dataclass import dataclass, field

INFINITY = -1
_PRIORITY_MAX = 99
_NICE = (-20, 19)
_OOM_SCORE_ADJUST = (-1000, 1000)
_WEIGHT_MAX = 10_000
# The kernel's default, and the shortest that does not cost more than it saves.
CPU_PERIOD_US = 100_000
_CPU_MAX_LEAST = 0.01
# A child that was over its soft limit is below it again at this share, so that it does not flap.
_RECOVERED = 0.95
# Names of getrlimit(2) in lower case, with their line in /proc/<pid>/limits.
RLIMITS = {
    "as": "Max address space",
    "core": "Max core file size",
    "cpu": "Max cpu time",
    "data": "Max data size",
    "fsize": "Max file size",
    "memlock": "Max locked memory",
    "msgqueue": "Max msgqueue size",
    "nice": "Max nice priority",
    "nofile": "Max open files",
    "nproc": "Max processes",
    "rtprio": "Max realtime priority",
    "rttime": "Max realtime timeout",
    "sigpending": "Max pending signals",
    "stack": "Max stack size",
}


class SchedulingClass(enum.Enum):
    """A policy of sched(7)."""

    OTHER = "other"
    BATCH = "batch"
    IDLE = "idle"
    FIFO = "fifo"
    ROUND_ROBIN = "round_robin"

    @property
    def is_realtime(self) -> bool:
        """Whether it has priorities."""
        return self in (SchedulingClass.FIFO, SchedulingClass.ROUND_ROBIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One limit of getrlimit(2); INFINITY for none.

    Attributes:
        soft: what holds.
        hard: up to which the process may raise it; None for the same.
    """

    soft: int
    hard: int | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """Soft and hard limit."""
        return self.soft, self.soft if self.hard is None else self.hard


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """Limits of a control group that the child and all below it have to themselves.

    They hold where cgroup v2 is delegated to the tree; None leaves one alone.

    Attributes:
        cpu_max: processor time per second of time, so 1.5 is one and a half CPUs.
        cpu_weight, io_weight: shares under contention, 1 to 10000; the kernel's default is 100.
        pids_max: processes and threads.
        memory_high_bytes: beyond it the kernel slows the group down and reclaims.
        memory_max_bytes: beyond it the kernel kills the whole group.
    """

    cpu_max: float | None = None
    cpu_weight: int | None = None
    io_weight: int | None = None
    pids_max: int | None = None
    memory_high_bytes: int | None = None
    memory_max_bytes: int | None = None

    def files(self) -> dict[str, str]:
        """The interface files to write, with their content."""
        found: dict[str, str] = {}
        if self.cpu_max is not None:
            found["cpu.max"] = f"{round(self.cpu_max * CPU_PERIOD_US)} {CPU_PERIOD_US}"
        if self.cpu_weight is not None:
            found["cpu.weight"] = str(self.cpu_weight)
        if self.io_weight is not None:
            found["io.weight"] = f"default {self.io_weight}"
        if self.pids_max is not None:
            found["pids.max"] = str(self.pids_max)
        if self.memory_high_bytes is not None:
            found["memory.high"] = str(self.memory_high_bytes)
        if self.memory_max_bytes is not None:
            found["memory.max"] = str(self.memory_max_bytes)
            found["memory.oom.group"] = "1"  # half a child is worth nothing
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a child's process is limited to; None leaves what it would have anyway.

    The CPUs are ``ChildSpec.cpus``.

    Attributes:
        scheduling: policy of all its threads.
        priority: of a real-time policy, 1 to 99; 0 with the others.
        nice: -20 to 19.
        rlimits: by the names in RLIMITS.
        oom_score_adjust: -1000 (never) to 1000 (first) when memory runs out.
        memory_soft_bytes: a child that uses more is degraded, and says so.
        memory_hard_bytes: a child that uses more is told to stop, and killed if it does not; that
            counts as a failure. Both are looked at every few seconds, and include what the child
            starts itself. For a limit at every moment see CgroupLimits.memory_max_bytes.
        cgroup: see CgroupLimits.
        required: what can't be had ends the child; else the child says so and goes on.
    """

    scheduling: SchedulingClass | None = None
    priority: int = 0
    nice: int | None = None
    rlimits: dict[str, Rlimit] = field(default_factory=dict)
    oom_score_adjust: int | None = None
    memory_soft_bytes: int | None = None
    memory_hard_bytes: int | None = None
    cgroup: CgroupLimits = CgroupLimits()
    required: bool = False

    @property
    def has_memory_limit(self) -> bool:
        """Whether the supervisor has to look at its memory."""
        return self.memory_soft_bytes is not None or self.memory_hard_bytes is not None


class MemoryStep(enum.Enum):
    """How far a child is beyond its limits of memory."""

    NONE = "none"
    SOFT = "soft"
    HARD = "hard"


NO_LIMITS = Resources()
NO_CGROUP = CgroupLimits()


class ResourcesError(ValueError):
    """Resources that no process can have; the message is the rule that is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What holds for a process, as the kernel says; None for what it does not say.

    Attributes:
        cpus: that it may run on.
        scheduling, priority, nice, rlimits, oom_score_adjust: as in Resources.
        cgroup: content of the interface files that were asked for.
    """

    cpus: frozenset[int] = frozenset()
    scheduling: SchedulingClass | None = None
    priority: int = 0
    nice: int | None = None
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    oom_score_adjust: int | None = None
    cgroup: dict[str, str] = field(default_factory=dict)


def check(resources: Resources) -> None:
    """Check that a process can have them.

    Raises:
        ResourcesError: names the rule that they break.
    """
    policy = resources.scheduling
    if policy is not None and policy.is_realtime:
        _check_range("priority", resources.priority, (1, _PRIORITY_MAX))
    elif resources.priority:
        raise ResourcesError(f"priority is {resources.priority}; 0, except for fifo, round_robin")
    _check_range("nice", resources.nice, _NICE)
    _check_range("oom_score_adjust", resources.oom_score_adjust, _OOM_SCORE_ADJUST)
    for name, limit in resources.rlimits.items():
        _check_rlimit(name, limit)
    soft, hard = resources.memory_soft_bytes, resources.memory_hard_bytes
    _check_steps("memory_soft_bytes", soft, "memory_hard_bytes", hard)
    _check_cgroup(resources.cgroup)


def describe(resources: Resources) -> tuple[str, ...]:
    """The resources for people, one limit each."""
    found: list[str] = []
    if resources.scheduling is not None:
        found.append(f"{resources.scheduling.value} {resources.priority or ''}".rstrip())
    if resources.nice is not None:
        found.append(f"nice {resources.nice}")
    if resources.oom_score_adjust is not None:
        found.append(f"oom score {resources.oom_score_adjust:+d}")
    for name, limit in resources.rlimits.items():
        found.append(f"{name} {_rlimit(limit.pair)}")
    if resources.memory_soft_bytes is not None:
        found.append(f"memory soft {size(resources.memory_soft_bytes)}")
    if resources.memory_hard_bytes is not None:
        found.append(f"memory hard {size(resources.memory_hard_bytes)}")
    files = resources.cgroup.files()
    files.pop("memory.oom.group", None)
    found += [f"{name} {_cgroup_value(name, value)}" for name, value in files.items()]
    return tuple(found)


def unmet(resources: Resources, cpus: Iterable[int], holding: Holding) -> tuple[str, ...]:
    """What was asked for and does not hold, one sentence each.

    Args:
        resources: what was asked for.
        cpus: likewise; empty for any.
        holding: what holds.
    """
    found: list[str] = []
    wanted = frozenset(cpus)
    if wanted and holding.cpus != wanted:
        found.append(f"cpus {_numbers(wanted)} (has {_numbers(holding.cpus)})")
    policy = resources.scheduling
    is_other = (policy, resources.priority) != (holding.scheduling, holding.priority)
    if policy is not None and is_other:
        has = "another" if holding.scheduling is None else holding.scheduling.value
        found.append(f"{policy.value} {resources.priority or ''}".rstrip() + f" (has {has})")
    if resources.nice is not None and resources.nice != holding.nice:
        found.append(f"nice {resources.nice} (has {holding.nice})")
    if resources.oom_score_adjust not in (None, holding.oom_score_adjust):
        has = str(holding.oom_score_adjust)
        found.append(f"oom score {resources.oom_score_adjust:+d} (has {has})")
    for name, limit in resources.rlimits.items():
        now = holding.rlimits.get(name)
        # Below its hard limit a process may set the soft one as it likes.
        if now is None or now[1] != limit.pair[1]:
            found.append(f"{name} {_rlimit(limit.pair)} (has {_rlimit(now) if now else 'none'})")
    for name, value in resources.cgroup.files().items():
        if _cgroup_differs(name, value, holding.cgroup.get(name)) and name != "memory.oom.group":
            found.append(f"{name} {_cgroup_value(name, value)}")
    return tuple(found)


def memory_step(resources: Resources, used_bytes: int, *, is_strained: bool) -> MemoryStep:
    """How far a child is beyond its limits of memory.

    Args:
        resources: its limits.
        used_bytes: what it uses.
        is_strained: it was beyond the soft limit the last time, and so has to be well below it.
    """
    soft, hard = resources.memory_soft_bytes, resources.memory_hard_bytes
    if hard is not None and used_bytes > hard:
        return MemoryStep.HARD
    if soft is not None and used_bytes > soft * (_RECOVERED if is_strained else 1):
        return MemoryStep.SOFT
    return MemoryStep.NONE


def size(value: int) -> str:
    """Bytes for people, exact."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 1 << shift and value % (1 << shift) == 0:
            return f"{value >> shift} {unit}"
    return f"{value} bytes"


def _check_range(name: str, value: int | None, limits: tuple[int, int]) -> None:
    least, most = limits
    if value is not None and not least <= value <= most:
        raise ResourcesError(f"{name} is {value}; {least} to {most}")


def _check_rlimit(name: str, limit: Rlimit) -> None:
    if name not in RLIMITS:
        raise ResourcesError(f"rlimit {name!r} is none of {', '.join(RLIMITS)}")
    soft, hard = limit.pair
    if min(soft, hard) < INFINITY:
        raise ResourcesError(f"rlimit {name} is {soft}:{hard}; at least 0, or -1 for none")
    if hard != INFINITY and (soft == INFINITY or soft > hard):
        raise ResourcesError(f"rlimit {name} is {soft}:{hard}; soft at most hard")


def _check_steps(low_name: str, low: int | None, high_name: str, high: int | None) -> None:
    for name, value in ((low_name, low), (high_name, high)):
        if value is not None and value <= 0:
            raise ResourcesError(f"{name} is {value}; more than 0")
    if low is not None and high is not None and low > high:
        raise ResourcesError(f"{low_name} is {low}; at most {high_name}, {high}")


def _check_cgroup(limits: CgroupLimits) -> None:
    if limits.cpu_max is not None and not limits.cpu_max >= _CPU_MAX_LEAST:
        raise ResourcesError(f"cpu_max is {limits.cpu_max}; at least {_CPU_MAX_LEAST}")
    _check_range("cpu_weight", limits.cpu_weight, (1, _WEIGHT_MAX))
    _check_range("io_weight", limits.io_weight, (1, _WEIGHT_MAX))
    if limits.pids_max is not None and limits.pids_max < 1:
        raise ResourcesError(f"pids_max is {limits.pids_max}; at least 1")
    high, most = limits.memory_high_bytes, limits.memory_max_bytes
    _check_steps("memory_high_bytes", high, "memory_max_bytes", most)


def _rlimit(pair: tuple[int, int]) -> str:
    words = ["unlimited" if value == INFINITY else str(value) for value in pair]
    return words[0] if words[0] == words[1] else ":".join(words)


def _numbers(cpus: Iterable[int]) -> str:
    return ",".join(map(str, sorted(cpus))) or "none"


def _cgroup_value(name: str, value: str) -> str:
    if name in ("memory.high", "memory.max"):
        return size(int(value))
    return value.replace(f" {CPU_PERIOD_US}", " us of 100 ms").removeprefix("default ")


def _cgroup_differs(name: str, value: str, now: str | None) -> bool:
    if now is None:
        return True
    if name in ("memory.high", "memory.max") and now != "max":
        return abs(int(now) - int(value)) >= 1 << 16  # rounded down to a page, which may be 64 KiB
    return now != value
