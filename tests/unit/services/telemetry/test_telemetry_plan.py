"""The answers of the health endpoints, without a server."""

from __future__ import annotations

import dataclasses
import re

import pytest

from protocol.messages.health import HealthState
from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Verdict,
)
from services.telemetry import plan
from services.telemetry.model import CheckResult, Reading, TelemetrySettings

DATABASE, CACHE, DWCP = (check for check, _here in plan.checks_of(TelemetrySettings()))
RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")


def component(
    path: str,
    state: HealthState = HealthState.HEALTHY,
    *,
    reason: str = "",
    failure: str = "critical",
    pid: int | None = 10,
) -> ComponentStatus:
    """A component of the given state."""
    return ComponentStatus(
        path=path,
        id=path.rpartition("/")[2],
        level="data",
        phase=3,
        failure=failure,
        kind="service",
        state=state,
        reason=reason,
        pid=pid,
    )


def node(*components: ComponentStatus, verdict: Verdict = Verdict.READY) -> NodeStatus:
    """A node that has booted."""
    return NodeStatus(
        schema=SCHEMA,
        verdict=verdict,
        reason="",
        platform=PlatformStatus(
            name="NovaCron",
            version="1.0.0",
            node_id="node-001",
            environment="embedded",
            roles=("backend",),
            pid=1,
            state_dir="/s",
            started_s=0.0,
            uptime_s=3723.5,
            boot_s=1.2,
        ),
        phase=PhaseStatus(number=6, name="health", complete=True),
        components=components,
    )


@pytest.mark.parametrize(
    ("state", "failure", "expected"),
    [
        (HealthState.HEALTHY, "critical", "healthy"),
        (HealthState.DEGRADED, "critical", "degraded"),
        (HealthState.UNHEALTHY, "critical", "unhealthy"),
        (HealthState.STARTING, "critical", "unhealthy"),
        (HealthState.STOPPED, "recoverable", "unhealthy"),
        (HealthState.UNHEALTHY, "degraded", "degraded"),
        (HealthState.STOPPED, "degraded", "degraded"),
    ],
)
def test_check_follows_state_and_failure_class(
    state: HealthState, failure: str, expected: str
) -> None:
    """A check passes for what works at least in part, and for what the node can do without."""
    reading = Reading(node(component("data/database", state, failure=failure)))

    result = plan.judge(DATABASE, reading)

    assert result.status == expected


def test_failed_check_says_why() -> None:
    """The component's own reason becomes the check's error."""
    item = component("data/database", HealthState.UNHEALTHY, reason="connection refused")

    result = plan.judge(DATABASE, Reading(node(item)))

    assert result == CheckResult("database", "unhealthy", "connection refused")


def test_live_error_outweighs_pushed_health() -> None:
    """A component that says it is healthy and answers nobody is unhealthy."""
    reading = Reading(node(component("data/database")))

    result = plan.judge(DATABASE, reading, "no answer in 5 s")

    assert result == CheckResult("database", "unhealthy", "no answer in 5 s")


def test_live_error_of_an_optional_component_passes() -> None:
    """The cache never makes the node unready, even when it hangs."""
    reading = Reading(node(component("data/cache", failure="degraded")))

    assert plan.judge(CACHE, reading, "hangs").is_passed


def test_unknown_component_is_not_started() -> None:
    """A component that the root does not list yet fails its check and says so."""
    assert plan.judge(DWCP, Reading(node())) == CheckResult("dwcp", "unhealthy", "not started yet")


@pytest.mark.parametrize(("pid", "expected"), [(10, True), (None, False)])
def test_dead_component_is_not_asked(pid: int | None, expected: bool) -> None:
    """Only a component with a process is called, so that a dead one costs no waiting."""
    reading = Reading(node(component("data/database", pid=pid)))

    assert plan.is_worth_asking(DATABASE, reading) is expected


def test_component_without_a_method_is_not_asked() -> None:
    """Where there is nothing to call, the pushed state has to do."""
    silent = plan.Check("cache", "data/cache")

    assert not plan.is_worth_asking(silent, Reading(node(component("data/cache"))))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"is_connected": True}, ""),
        ({"is_connected": False}, "not connected to its server"),
        ({}, ""),
    ],
)
def test_answer_may_object(answer: dict[str, bool], expected: str) -> None:
    """A component may answer and still say that it has lost its server."""
    assert plan.objection(answer) == expected


def test_live_has_the_required_shape() -> None:
    """Liveness is a status and a timestamp."""
    assert plan.live(now_s=0.9) == {"status": "alive", "timestamp": "1970-01-01T00:00:00Z"}


def test_ready_has_the_required_shape() -> None:
    """A ready node answers 200 with status, checks and timestamp and nothing else."""
    results = (CheckResult("database", "healthy"), CheckResult("cache", "degraded", "gone"))

    code, body = plan.ready(Reading(node()), results, now_s=0.0)

    assert code == 200
    assert body == {
        "status": "ready",
        "checks": {
            "database": {"status": "healthy"},
            "cache": {"status": "degraded", "error": "gone"},
        },
        "timestamp": "1970-01-01T00:00:00Z",
    }


def test_failed_check_makes_the_node_not_ready() -> None:
    """One unhealthy check is enough for 503."""
    code, body = plan.ready(Reading(node()), [CheckResult("dwcp", "unhealthy", "x")], now_s=0.0)

    assert (code, body["status"]) == (503, "not ready")


def test_booting_node_names_its_phase() -> None:
    """Until the boot is complete the answer is 503 with the phase, whatever the checks say."""
    booting = dataclasses.replace(node(), phase=PhaseStatus(number=3, name="database"))

    code, body = plan.ready(Reading(booting), [CheckResult("database", "healthy")], now_s=0.0)

    assert code == 503
    assert body["phase"] == {"number": 3, "name": "database"}


def test_unknown_node_is_in_the_phase_of_telemetry() -> None:
    """Before the root's first answer the node is in phase 2."""
    code, body = plan.ready(Reading(), [], now_s=0.0)

    assert code == 503
    assert body["phase"] == {"number": 2, "name": "logging"}


def test_verdict_of_the_node_counts() -> None:
    """A node that is not ready for another reason is not ready here, with that reason."""
    down = dataclasses.replace(node(verdict=Verdict.NOT_READY), reason="core/vm is unhealthy")

    code, body = plan.ready(Reading(down), [CheckResult("database", "healthy")], now_s=0.0)

    assert code == 503
    assert body["reason"] == "core/vm is unhealthy"


def test_degraded_node_is_ready() -> None:
    """A degraded node serves."""
    assert plan.ready(Reading(node(verdict=Verdict.DEGRADED)), [], now_s=0.0)[0] == 200


def test_silent_root_makes_the_node_not_ready() -> None:
    """An old picture of a healthy node does not count when the root has stopped answering."""
    code, body = plan.ready(Reading(node(), 9.0, "the root did not answer"), [], now_s=0.0)

    assert code == 503
    assert body["reason"] == "the root did not answer"


def test_status_has_the_required_shape() -> None:
    """The detailed status holds platform, components, metrics and timestamp."""
    body = plan.status(
        Reading(node(component("data/database"))), TelemetrySettings(), {"m": 1.0}, now_s=5.0
    )

    assert list(body) == ["platform", "components", "metrics", "timestamp"]
    assert body["platform"] == {"name": "NovaCron", "version": "1.0.0", "uptime": "1h2m3.5s"}
    assert body["metrics"] == {"m": 1.0}
    assert isinstance(body["components"], dict)
    assert body["components"]["data/database"]["status"] == "healthy"
    assert RFC3339.fullmatch(str(body["timestamp"]))


def test_status_before_the_first_answer_uses_the_settings() -> None:
    """Name and version are there from the start."""
    settings = TelemetrySettings(platform_name="NovaCron", platform_version="2.0")

    body = plan.status(Reading(), settings, {}, now_s=0.0)

    assert body["platform"] == {"name": "NovaCron", "version": "2.0", "uptime": "0s"}
    assert body["components"] == {}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0s"),
        (0.25, "0.2s"),
        (59.96, "1m0s"),
        (60.0, "1m0s"),
        (3600.0, "1h0m0s"),
        (-1.0, "0s"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    """Durations read as hours, minutes and seconds."""
    assert plan.duration(seconds) == expected
