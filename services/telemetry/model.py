"""The telemetry component's settings, and what its health checks say."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.messages.status import NodeStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What the tree builder hands to the telemetry component.

    Attributes:
        host: address that both servers listen on.
        metrics_port: port of ``/metrics``; 0 takes a free one.
        health_port: port of ``/health/…``; 0 takes a free one.
        prometheus_enabled: False starts no metrics server; metrics still appear in
            ``/health/status``.
        platform_name, platform_version, node_id: shown until the root has answered.
        dwcp_enabled: False makes readiness pass over DWCP.
        database_enabled, cache_enabled: False where the node's roles have no such component.
        probe_timeout_s: all checks of one readiness probe together.
    """

    host: str = "127.0.0.1"
    metrics_port: int = 9090
    health_port: int = 8081
    prometheus_enabled: bool = True
    platform_name: str = "NovaCron"
    platform_version: str = ""
    node_id: str = ""
    dwcp_enabled: bool = True
    database_enabled: bool = True
    cache_enabled: bool = True
    probe_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What telemetry knows of the node.

    Attributes:
        status: the root's last answer; None before the first.
        age_s: seconds since that answer.
        error: why the last attempt to read it failed; "" when it did not.
    """

    status: NodeStatus | None = None
    age_s: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check of the readiness probe: ``status`` is healthy, degraded, unhealthy or disabled."""

    name: str
    status: str
    error: str = ""

    @property
    def is_passed(self) -> bool:
        """Whether the node may serve with this result."""
        return self.status != "unhealthy"
