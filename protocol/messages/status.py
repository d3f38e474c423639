"""The state of a whole node, as the root supervisor answers the call ``status``.

``novacronctl status --json`` prints this record, so its field names are a public interface:
a change of meaning takes a new ``schema``.
"""

from __future__ import annotations

import enum

from protocol.dataclass import dataclass
from protocol.messages.health import HealthState

SCHEMA = "novacron.status/1"


class Verdict(enum.Enum):
    """The node in one word; novacronctl's exit codes 0, 1 and 2."""

    READY = "ready"
    DEGRADED = "degraded"
    NOT_READY = "not_ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """The node as a whole. Times are Unix seconds, durations seconds.

    ``boot_s`` is the time from exec to ready; None while the node boots.
    """

    name: str
    version: str
    node_id: str
    environment: str
    roles: tuple[str, ...]
    pid: int
    state_dir: str
    started_s: float
    uptime_s: float
    boot_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStatus:
    """The boot phase that the node is in; ``complete`` once the last one has ended."""

    number: int
    name: str
    complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentStatus:
    """One process of the tree.

    Attributes:
        path: place in the tree, such as ``core/vm``; ``id`` is its last part.
        level: level of the tree, for people.
        phase: boot phase it belongs to.
        failure: critical, recoverable or degraded.
        kind: service, loop, command or supervisor.
        state, reason: what it can do, and why not more.
        pid: None while it does not run.
        cpus: CPUs it is pinned to; empty for all that others are not pinned to.
        limits: what its process is limited to, for people, such as ``memory hard 200 MiB``, and
            what of it does not hold, such as ``not applied: nice -5 (has 0)``.
        restarts: since the node started.
        uptime_s: of this process; None while it does not run.
        memory_bytes: proportional set size, or the resident size where that can't be read.
        last_exit: how the process before this one ended; "" when there was none.
        retry_in_s: seconds until it is tried again; None when nothing is planned.
    """

    path: str
    id: str
    level: str
    phase: int
    failure: str
    kind: str
    state: HealthState
    reason: str = ""
    pid: int | None = None
    cpus: tuple[int, ...] = ()
    limits: tuple[str, ...] = ()
    restarts: int = 0
    uptime_s: float | None = None
    memory_bytes: int | None = None
    last_exit: str = ""
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """Everything about a node; components in start order, supervisors before their children."""

    schema: str
    verdict: Verdict
    reason: str
    platform: PlatformStatus
    phase: PhaseStatus
    components: tuple[ComponentStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one phase or component of the boot took.

    Attributes:
        name: of the phase, or the component's path.
        phase: its number.
        start_s: seconds after exec.
        duration_s: until it was ready; until now while it is not.
        outcome: ready, degraded, failed or running.
    """

    name: str
    phase: int
    start_s: float
    duration_s: float
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BootReport:
    """Where the time of the last boot went; the root's answer to the call ``boot``."""

    total_s: float | None
    phases: tuple[Timing, ...]
    components: tuple[Timing, ...]
