"""What the health endpoints answer, from what is known of the node; decided without I/O.

The shapes of ``/health/live``, ``/health/ready`` and ``/health/status`` are the platform's
requirements (section 9.1). Where those leave a choice, it was made here:

- **A degraded component passes.** It says itself that it works with reduced functions; its check
  reads ``"degraded"`` with the reason under ``"error"``.
- **The cache never makes the node unready.** The requirements list it among the checks, and also
  call Redis optional; the second wins, for a node that serves without its cache is degraded and
  not down. This holds for every component whose failure class is ``degraded``.
- **A part that this node does not have** is ``"disabled"`` and passes, so that the key is there
  in every answer.
- **While the node boots**, the answer is 503 and names the phase under ``"phase"``, whatever the
  checks say. Afterwards there is no such key.
- **A node whose own verdict is "not ready"** (another critical component is down) is not ready
  here either, so that this probe and ``novacronctl status`` never contradict each other. Then
  ``"reason"`` carries the verdict's sentence.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.messages.health import HealthState
from protocol.messages.status import ComponentStatus, NodeStatus, Verdict
from protocol.records import Plain
from services.telemetry.model import CheckResult, Reading, TelemetrySettings

OK = 200
UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the readiness probe.

    Attributes:
        name: as the answer calls it.
        path: the component that it is about.
        method: what to call there, so that the component itself answers now; "" where its
            pushed state has to do.
    """

    name: str
    path: str
    method: str = ""


def checks_of(settings: TelemetrySettings) -> tuple[tuple[Check, bool], ...]:
    """The three required checks, each with whether this node has such a component."""
    return (
        (Check("database", "data/database", "database.status"), settings.database_enabled),
        (Check("cache", "data/cache", "cache.status"), settings.cache_enabled),
        (Check("dwcp", "core/dwcp/manager", "dwcp.status"), settings.dwcp_enabled),
    )


def component_at(status: NodeStatus | None, path: str) -> ComponentStatus | None:
    """The component of that path, if the node has reported it."""
    components = status.components if status is not None else ()
    return next((item for item in components if item.path == path), None)


def is_worth_asking(check: Check, reading: Reading) -> bool:
    """Whether to call the component: not while its supervisor knows that it is down.

    A hung process costs the probe's whole time; a dead one is known at once.
    """
    component = component_at(reading.status, check.path)
    return bool(check.method) and component is not None and component.pid is not None


def judge(check: Check, reading: Reading, live_error: str = "") -> CheckResult:
    """The result of one check.

    Args:
        check: what is checked.
        reading: what the root says of the node.
        live_error: why the component's own answer is bad; "" when it is good or was not asked.
    """
    component = component_at(reading.status, check.path)
    if component is None:
        return CheckResult(check.name, "unhealthy", reading.error or "not started yet")
    if component.state is HealthState.HEALTHY and not live_error:
        return CheckResult(check.name, "healthy")
    error = live_error or component.reason or component.state.value
    passes = component.state is HealthState.DEGRADED and not live_error
    if passes or component.failure == "degraded":
        return CheckResult(check.name, "degraded", error)
    return CheckResult(check.name, "unhealthy", error)


def objection(answer: Plain) -> str:
    """What a component's own answer says against it; "" for nothing."""
    if isinstance(answer, Mapping) and answer.get("is_connected") is False:
        return "not connected to its server"
    return ""


def live(*, now_s: float) -> dict[str, object]:
    """The body of ``/health/live``."""
    return {"status": "alive", "timestamp": rfc3339(now_s)}


def ready(
    reading: Reading, results: Iterable[CheckResult], *, now_s: float
) -> tuple[int, dict[str, object]]:
    """Status code and body of ``/health/ready``."""
    checks: dict[str, dict[str, str]] = {}
    is_ready = True
    for result in results:
        checks[result.name] = {"status": result.status}
        if result.error:
            checks[result.name]["error"] = result.error
        is_ready = is_ready and result.is_passed
    extra = _objections(reading)
    is_ready = is_ready and not extra
    body: dict[str, object] = {"status": "ready" if is_ready else "not ready", "checks": checks}
    return OK if is_ready else UNAVAILABLE, {**body, **extra, "timestamp": rfc3339(now_s)}


def status(
    reading: Reading, settings: TelemetrySettings, metrics: Mapping[str, float], *, now_s: float
) -> dict[str, object]:
    """The body of ``/health/status``."""
    node = reading.status
    platform = {
        "name": node.platform.name if node else settings.platform_name,
        "version": node.platform.version if node else settings.platform_version,
        "uptime": duration(node.platform.uptime_s + reading.age_s if node else 0.0),
    }
    body: dict[str, object] = {
        "platform": platform,
        "components": {item.path: _component(item) for item in node.components} if node else {},
        "metrics": dict(metrics),
    }
    return {**body, **_objections(reading), "timestamp": rfc3339(now_s)}


def rfc3339(time_s: float) -> str:
    """Unix time as RFC 3339 in UTC, to the second."""
    moment = dt.datetime.fromtimestamp(int(time_s), tz=dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """A duration such as ``1h2m3.5s``."""
    minutes, rest = divmod(round(max(seconds, 0.0), 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.1f}s".replace(".0s", "s")
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _objections(reading: Reading) -> dict[str, object]:
    """What speaks against the node as a whole: the phase that it boots in, or its verdict."""
    node = reading.status
    found: dict[str, object] = {}
    if node is None:
        # Telemetry is the first component, so the node is in the phase that starts it.
        found["phase"] = {"number": 2, "name": "logging"}
    elif not node.phase.complete:
        found["phase"] = {"number": node.phase.number, "name": node.phase.name}
    elif node.verdict is Verdict.NOT_READY:
        found["reason"] = node.reason
    if reading.error:
        found["reason"] = reading.error
    return found


def _component(item: ComponentStatus) -> dict[str, object]:
    return {
        "status": item.state.value,
        "message": item.reason,
        "level": item.level,
        "phase": item.phase,
        "failure": item.failure,
        "pid": item.pid,
        "restarts": item.restarts,
        "uptime_s": item.uptime_s,
        "memory_bytes": item.memory_bytes,
        "last_exit": item.last_exit,
    }
