"""From what the root knows of its components to what users are told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from protocol.messages.control import ComponentRecord
from protocol.messages.health import HealthState
from protocol.messages.status import ComponentStatus, Verdict
from supervisor.core.spec import FailureClass

_SEVERITY = {Verdict.READY: 0, Verdict.DEGRADED: 1, Verdict.NOT_READY: 2}


def verdict_of(records: Iterable[ComponentRecord], *, is_booted: bool) -> tuple[Verdict, str]:
    """The node in one word, and the worst cause as a sentence.

    A critical component that can't do its work makes the node not ready; every other component
    that can't do all of its work makes it degraded. The first one in start order is named.
    """
    worst, reason = Verdict.READY, ""
    for record in records:
        verdict = _verdict_of_one(record)
        if _SEVERITY[verdict] > _SEVERITY[worst]:
            worst, reason = verdict, _sentence(record)
    if not is_booted:
        return Verdict.NOT_READY, reason or "booting"
    return worst, reason


def component_status(
    record: ComponentRecord, *, now_s: float, memory_bytes: int | None
) -> ComponentStatus:
    """A component as users see it: ages instead of monotonic times."""
    return ComponentStatus(
        path=record.path,
        id=record.path.rpartition("/")[2],
        level=record.level,
        phase=record.phase,
        failure=record.failure,
        kind=record.kind,
        state=record.state,
        reason=record.reason,
        pid=record.pid,
        cpus=record.cpus,
        limits=record.limits,
        restarts=record.restarts,
        uptime_s=_age(record.started_s, now_s),
        memory_bytes=memory_bytes,
        last_exit=record.last_exit,
        retry_in_s=None if record.retry_at_s is None else max(0.0, record.retry_at_s - now_s),
    )


def memory_bytes(pid: int) -> int | None:
    """Proportional set size of a process; None when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return None
    except PermissionError:
        return _resident_bytes(pid)
    except OSError:
        return None


def _resident_bytes(pid: int) -> int | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * 4096


def _verdict_of_one(record: ComponentRecord) -> Verdict:
    if record.state is HealthState.HEALTHY:
        return Verdict.READY
    can_work = record.state is HealthState.DEGRADED
    if record.failure == FailureClass.CRITICAL.value and not can_work:
        return Verdict.NOT_READY
    return Verdict.DEGRADED


def _sentence(record: ComponentRecord) -> str:
    name = record.path.rpartition("/")[2]
    return f"{name} is {record.state.value}" + (f": {record.reason}" if record.reason else "")


def _age(since_s: float | None, now_s: float) -> float | None:
    return None if since_s is None else max(0.0, now_s - since_s)
