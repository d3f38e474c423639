"""The processes of a supervisor's children: handles, health, and how each appears to others."""

from __future__ import annotations

import contextlib
import os
import signal

from protocol import names
from protocol.dataclass import dataclass
from protocol.messages.control import ComponentRecord
from protocol.messages.health import HEALTHY, Health, HealthState
from supervisor.core.child import Child, ChildState
from supervisor.core.reason import (
    EXIT_CRITICAL,
    EXIT_DECLINED,
    EXIT_ESCALATED,
    ExitKind,
    ExitReason,
)
from supervisor.core.spec import SupervisorSpec
from supervisor.posix.board import LastWords

_KINDS = {
    EXIT_CRITICAL: ExitKind.CRITICAL,
    EXIT_DECLINED: ExitKind.DECLINED,
    EXIT_ESCALATED: ExitKind.ESCALATED,
}


@dataclass(slots=True)
class Process:
    """One process of a child.

    Attributes:
        incarnation: which of the child's processes.
        slot: its place on the board.
        pid, pidfd: once it runs; all signals go through the pidfd, so none can hit a stranger.
        identity: its address on the supervisor's ROUTER, once it said hello.
        health: what it last said.
        limits: what it is limited to, for people.
        strain: why it is degraded though it does not say so; "" when it is not.
        doom: the reason that replaces its exit status, when it was ended for one.
        update: a specification that it has still to be told, once it can be spoken to.
    """

    incarnation: int
    slot: int
    pid: int | None = None
    pidfd: int | None = None
    identity: bytes | None = None
    health: Health = HEALTHY
    update: SupervisorSpec | None = None
    limits: tuple[str, ...] = ()
    strain: str = ""
    doom: ExitReason | None = None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Release the pidfd."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def exit_reason(code: int, words: LastWords | None) -> ExitReason:
    """Put a wait status and the process's last words together.

    Args:
        code: exit code, or minus the signal's number.
        words: what the process left on the board.
    """
    if code < 0:
        kind, detail = ExitKind.KILLED, _signal_name(-code)
    else:
        default = ExitKind.NORMAL if code == 0 else ExitKind.CRASHED
        kind, detail = _KINDS.get(code, default), "" if code == 0 else f"exit code {code}"
    if words is None:
        return ExitReason(kind=kind, detail=detail)
    return ExitReason(
        kind=kind,
        detail=words.detail,
        code=words.code,
        origin=words.origin,
        phase=words.phase,
    )


def component_record(
    supervisor_path: str, child: Child, process: Process | None
) -> ComponentRecord:
    """What others are told of a child."""
    spec = child.spec
    health = _health(child, process)
    is_waiting = child.wanted and child.state in (ChildState.WAITING, ChildState.DEGRADED)
    return ComponentRecord(
        path=names.child_path(supervisor_path, spec.id),
        level=spec.level,
        phase=spec.phase,
        failure=spec.failure.value,
        kind=spec.type.value,
        state=health.state,
        reason=health.reason,
        pid=child.pid,
        cpus=spec.cpus,
        limits=() if process is None else process.limits,
        restarts=child.restarts,
        started_s=child.started_s if child.is_alive else None,
        up_s=child.up_s,
        last_exit=str(child.last_exit or ""),
        retry_at_s=child.not_before_s if is_waiting and child.last_exit else None,
    )


def _health(child: Child, process: Process | None) -> Health:
    reason = str(child.last_exit or "")
    match child.state:
        case ChildState.UP:
            health = process.health if process is not None else HEALTHY
            if process is not None and process.strain and health.state is HealthState.HEALTHY:
                return Health(HealthState.DEGRADED, process.strain)
            return health
        case ChildState.STARTING:
            said = "" if process is None else process.health.reason
            return Health(HealthState.STARTING, said or (reason and f"restarting after {reason}"))
        case ChildState.WAITING:
            return Health(HealthState.STARTING, reason and f"restarting after {reason}")
        case ChildState.DEGRADED:
            return Health(HealthState.DEGRADED, reason)
        case ChildState.STOPPING:
            state = HealthState.STARTING if child.wanted else HealthState.STOPPED
            return Health(state, "stopping")
        case ChildState.STOPPED:
            is_ours = child.last_exit is None or child.last_exit.kind is ExitKind.SHUTDOWN
            return Health(HealthState.STOPPED, "" if is_ours else reason)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
