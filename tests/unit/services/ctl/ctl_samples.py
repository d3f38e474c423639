"""A node's answers as the tests of the renderers use them."""

from __future__ import annotations

from protocol.messages.health import HealthState
from protocol.messages.status import (
    SCHEMA,
    BootReport,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Timing,
    Verdict,
)


def component(
    path: str,
    level: str,
    *,
    phase: int = 4,
    state: HealthState = HealthState.HEALTHY,
    reason: str = "",
    pid: int | None = 4251,
    cpus: tuple[int, ...] = (),
    restarts: int = 0,
    uptime_s: float | None = 11_530.0,
    memory_bytes: int | None = 23 << 20,
    last_exit: str = "",
    retry_in_s: float | None = None,
) -> ComponentStatus:
    """A component with the fields that a test does not care about filled in."""
    return ComponentStatus(
        path=path,
        id=path.rpartition("/")[2],
        level=level,
        phase=phase,
        failure="critical",
        kind="service",
        state=state,
        reason=reason,
        pid=pid,
        cpus=cpus,
        restarts=restarts,
        uptime_s=uptime_s,
        memory_bytes=memory_bytes,
        last_exit=last_exit,
        retry_in_s=retry_in_s,
    )


COMPONENTS = (
    component("telemetry", "telemetry", phase=2),
    component("data", "data", phase=3),
    component("data/postgres", "data", phase=3, pid=1_234_251, memory_bytes=113 << 20),
    component("data/database", "data", phase=3, restarts=2, last_exit="killed by SIGKILL"),
    component("core", "core", memory_bytes=None),
    component(
        "core/vm",
        "vm",
        state=HealthState.DEGRADED,
        uptime_s=3.2,
        reason="libvirt does not answer: no socket at /var/run/libvirt/libvirt-sock, which is there"
        " while libvirtd runs",
        retry_in_s=4.0,
    ),
    component("core/dwcp", "dwcp"),
    component("core/dwcp/manager", "dwcp"),
    component("core/dwcp/transport.0", "dwcp", cpus=(0, 1, 2, 5)),
    component("optional", "optional"),
    component(
        "optional/workload",
        "optional",
        state=HealthState.STOPPED,
        pid=None,
        uptime_s=None,
        memory_bytes=None,
        last_exit="normal",
    ),
)


def node(
    verdict: Verdict = Verdict.DEGRADED,
    reason: str = "core/vm: libvirt does not answer",
    components: tuple[ComponentStatus, ...] = COMPONENTS,
    *,
    boot_s: float | None = 1.238,
) -> NodeStatus:
    """A whole node."""
    return NodeStatus(
        schema=SCHEMA,
        verdict=verdict,
        reason=reason,
        platform=PlatformStatus(
            name="NovaCron",
            version="0.1.0",
            node_id="node-001",
            environment="embedded",
            roles=("backend", "orchestration"),
            pid=4242,
            state_dir="/var/lib/novacron",
            started_s=1_700_000_000.0,
            uptime_s=11_532.0,
            boot_s=boot_s,
        ),
        phase=PhaseStatus(number=6, name="health", complete=boot_s is not None),
        components=components,
    )


def boot_report() -> BootReport:
    """A boot of a bit over a second."""
    phases = [
        ("preflight", 0.0, 0.05),
        ("configuration", 0.05, 0.06),
        ("logging", 0.11, 0.1),
        ("database", 0.21, 0.4),
        ("core", 0.61, 0.4),
        ("optional", 1.01, 0.1),
        ("health", 1.11, 0.13),
    ]
    return BootReport(
        total_s=1.24,
        phases=tuple(
            Timing(name=name, phase=number, start_s=start_s, duration_s=duration_s, outcome="ready")
            for number, (name, start_s, duration_s) in enumerate(phases)
        ),
        components=(
            Timing(name="core/vm", phase=4, start_s=0.7, duration_s=0.3, outcome="degraded"),
            Timing(name="data/postgres", phase=3, start_s=0.21, duration_s=0.2, outcome="ready"),
        ),
    )
