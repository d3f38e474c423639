"""Setting a process to its resources, and reading what holds for it.

All of it is done for every thread of the process: one that was forked ahead may have ZeroMQ's
threads already, and the kernel keeps CPUs, policy and nice for each thread by itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

from supervisor.core.resources import (
    INFINITY,
    RLIMITS,
    Holding,
    Resources,
    Rlimit,
    SchedulingClass,
)
from supervisor.posix import cgroup

_POLICIES = {
    SchedulingClass.OTHER: os.SCHED_OTHER,
    SchedulingClass.BATCH: os.SCHED_BATCH,
    SchedulingClass.IDLE: os.SCHED_IDLE,
    SchedulingClass.FIFO: os.SCHED_FIFO,
    SchedulingClass.ROUND_ROBIN: os.SCHED_RR,
}
_CLASSES = {number: policy for policy, number in _POLICIES.items()}
# A process that makes threads faster than we set them would keep us for ever.
_ROUNDS_MAX = 100
_LIMITS_NAME_WIDTH = 26
# The one limit of the kernel's that the module ``resource`` does not know.
_RLIMIT_RTTIME = 15


def apply(
    resources: Resources, cpus: Iterable[int] = (), *, pid: int = 0, group: str = ""
) -> list[str]:
    """Set a process to its resources; what is refused keeps nothing else from being set.

    Args:
        resources: what to set.
        cpus: CPUs that it may run on; empty to leave them.
        pid: the process; 0 for this one.
        group: directory of the control group to move it into; "" to leave it where it is.

    Returns:
        What was not applied, a sentence each with the reason.
    """
    refused: list[str] = []

    def attempt(what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as exc:
            refused.append(f"{what}: {exc.strerror}")

    if group:
        attempt(f"cgroup {group}", lambda: cgroup.enter(Path(group), pid))
    for name, limit in resources.rlimits.items():
        attempt(f"rlimit {name} {limit.soft}:{limit.pair[1]}", _rlimit_setter(pid, name, limit))
    if (score := resources.oom_score_adjust) is not None:
        attempt(f"oom score {score:+d}", lambda: set_oom_score(score, pid=pid))
    if (nice := resources.nice) is not None:
        attempt(f"nice {nice}", lambda: set_nice(nice, pid=pid))
    if (policy := resources.scheduling) is not None:
        priority = resources.priority
        what = f"{policy.value} {priority or ''}".rstrip()
        attempt(what, lambda: set_scheduling(policy, priority, pid=pid))
    if wanted := frozenset(cpus):
        what = f"cpus {','.join(map(str, sorted(wanted)))}"
        attempt(what, lambda: set_cpus(wanted, pid=pid))
    return refused


def set_cpus(cpus: frozenset[int], *, pid: int = 0) -> None:
    """Bind all threads of a process to some CPUs.

    Raises:
        OSError: none of them is there for it, or it belongs to somebody else.
    """
    _for_each_thread(pid, lambda thread: os.sched_setaffinity(thread, cpus))


def set_nice(nice: int, *, pid: int = 0) -> None:
    """Set the nice value of all threads of a process.

    Raises:
        OSError: it takes CAP_SYS_NICE or a higher RLIMIT_NICE.
    """
    _for_each_thread(pid, lambda thread: os.setpriority(os.PRIO_PROCESS, thread, nice))


def set_scheduling(policy: SchedulingClass, priority: int = 0, *, pid: int = 0) -> None:
    """Set the scheduling policy of all threads of a process.

    Raises:
        OSError: it takes CAP_SYS_NICE or a higher RLIMIT_RTPRIO.
    """
    number, parameter = _POLICIES[policy], os.sched_param(priority)
    _for_each_thread(pid, lambda thread: os.sched_setscheduler(thread, number, parameter))


def set_oom_score(score: int, *, pid: int = 0) -> None:
    """Set how likely the kernel kills a process when memory runs out.

    Raises:
        OSError: a lower one than it was started with takes CAP_SYS_RESOURCE.
    """
    _write(f"/proc/{pid or 'self'}/oom_score_adj", str(score))


def set_rlimit(name: str, limit: Rlimit, *, pid: int = 0) -> None:
    """Set a limit of a process, as far as it may be set.

    Raises:
        OSError: a hard limit can't be raised; what is below it is set all the same.
    """
    number = _rlimit_number(name)
    soft, hard = limit.pair
    try:
        resource.prlimit(pid, number, (soft, hard))
    except PermissionError:
        most = resource.prlimit(pid, number)[1]
        resource.prlimit(pid, number, (_lesser(soft, most), _lesser(hard, most)))
        raise


def holding(pid: int, resources: Resources, group: Path | None = None) -> Holding:
    """What holds for a process, as far as it was asked for.

    Args:
        pid: the process.
        resources: what was asked for.
        group: its control group, where it has one to itself.

    Raises:
        OSError: the process has ended.
    """
    policy = priority = nice = score = None
    if resources.scheduling is not None:
        policy = _CLASSES.get(os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK)
        priority = os.sched_getparam(pid).sched_priority
    if resources.nice is not None:
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    if resources.oom_score_adjust is not None:
        score = int(_read(f"/proc/{pid}/oom_score_adj"))
    cgroup_now: dict[str, str] = {}
    for name in resources.cgroup.files() if group is not None else ():
        assert group is not None
        with contextlib.suppress(OSError):
            cgroup_now[name] = _read(f"{group}/{name}").strip()
    return Holding(
        cpus=frozenset(os.sched_getaffinity(pid)),
        scheduling=policy,
        priority=priority or 0,
        nice=nice,
        rlimits=_rlimits(pid) if resources.rlimits else {},
        oom_score_adjust=score,
        cgroup=cgroup_now,
    )


def _for_each_thread(pid: int, act: Callable[[int], object]) -> None:
    directory = f"/proc/{pid or 'self'}/task"
    done: set[str] = set()
    for _ in range(_ROUNDS_MAX):
        found = set(os.listdir(directory)) - done  # noqa: PTH208 - on the way to every child
        if not found:
            return  # a thread that is made now has what its maker has
        for thread in found:
            with contextlib.suppress(ProcessLookupError):
                act(int(thread))
        done |= found


def _rlimit_setter(pid: int, name: str, limit: Rlimit) -> Callable[[], None]:
    return lambda: set_rlimit(name, limit, pid=pid)


def _rlimit_number(name: str) -> int:
    number = getattr(resource, f"RLIMIT_{name.upper()}", _RLIMIT_RTTIME)
    assert isinstance(number, int)
    return number


def _rlimits(pid: int) -> dict[str, tuple[int, int]]:
    """All limits of a process; other than prlimit(2), the file asks for no right to read."""
    names = {line: name for name, line in RLIMITS.items()}
    found: dict[str, tuple[int, int]] = {}
    for line in _read(f"/proc/{pid}/limits").splitlines():
        name = names.get(line[:_LIMITS_NAME_WIDTH].rstrip())
        if name is not None:
            soft, hard = line[_LIMITS_NAME_WIDTH:].split()[:2]
            found[name] = (_number(soft), _number(hard))
    return found


def _number(word: str) -> int:
    return INFINITY if word == "unlimited" else int(word)


def _lesser(one: int, other: int) -> int:
    if INFINITY in (one, other):
        return max(one, other)
    return min(one, other)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    with open(path, encoding="ascii", buffering=4096) as file:
        return file.read()
