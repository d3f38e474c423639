"""What the journal and the status become on the metrics page."""

from __future__ import annotations

import dataclasses

from protocol.messages.health import HealthState
from protocol.messages.journal import JournalRecord
from protocol.messages.metrics import MetricBatch, MetricKind, MetricSample
from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Verdict,
)
from protocol.records import Plain
from services.telemetry.registry import Metrics

NODE = NodeStatus(
    schema=SCHEMA,
    verdict=Verdict.DEGRADED,
    reason="data/cache is degraded",
    platform=PlatformStatus(
        name="NovaCron",
        version="1.0.0",
        node_id="node-001",
        environment="embedded",
        roles=("backend", "orchestration"),
        pid=1,
        state_dir="/s",
        started_s=0.0,
        uptime_s=5.0,
        boot_s=1.25,
    ),
    phase=PhaseStatus(number=6, name="health", complete=True),
    components=(
        ComponentStatus(
            path="data/database",
            id="database",
            level="data",
            phase=3,
            failure="critical",
            kind="service",
            state=HealthState.HEALTHY,
            restarts=2,
            uptime_s=4.0,
            memory_bytes=1024,
        ),
        ComponentStatus(
            path="data/cache",
            id="cache",
            level="data",
            phase=3,
            failure="degraded",
            kind="service",
            state=HealthState.DEGRADED,
        ),
    ),
)
REQUIRED = (
    "novacron_init_duration_seconds_count",
    "novacron_component_init_seconds_count",
    "novacron_component_status",
    "novacron_component_health",
    "novacron_errors_total",
    "novacron_dwcp_bandwidth_bytes_per_second",
    "novacron_dwcp_latency_seconds_count",
    "novacron_dwcp_compression_ratio",
)


def record(seq: int, name: str, component: str, **fields: Plain) -> JournalRecord:
    """A journal record, a tenth of a second after the one before."""
    return JournalRecord(seq=seq, time_s=seq / 10, name=name, component=component, fields=fields)


def start_of(component: str, first: int = 1, failure: str = "critical") -> list[JournalRecord]:
    """The records of a component that comes up in 0.2 s."""
    return [
        record(first, "component:state", component, state="starting", failure=failure),
        record(first + 2, "component:state", component, state="healthy", failure=failure),
    ]


def test_every_required_metric_is_there() -> None:
    """Each metric that the requirements name appears once its source has spoken."""
    metrics = Metrics()
    metrics.show(NODE)
    metrics.follow("b", [*start_of("core/vm"), record(9, "init:failed", "novacron")], 0)

    names = {key.partition("{")[0] for key in metrics.export()}

    assert set(REQUIRED) <= names


def test_status_becomes_series() -> None:
    """Health, restarts, uptime and memory are shown per component."""
    metrics = Metrics()

    metrics.show(NODE)

    found = metrics.export()
    assert found['novacron_component_health{component="data/database"}'] == 1.0
    assert found['novacron_component_health{component="data/cache"}'] == 0.5
    assert found['novacron_component_status{component="data/cache"}'] == 1.0
    assert found['novacron_component_restarts_total{component="data/database"}'] == 2.0
    assert found['novacron_component_memory_bytes{component="data/database"}'] == 1024.0
    assert found["novacron_ready"] == 0.5


def test_components_that_are_gone_leave_no_series() -> None:
    """The next status without a component takes its series away."""
    metrics = Metrics()
    metrics.show(NODE)

    metrics.show(dataclasses.replace(NODE, components=NODE.components[:1]))

    assert not [key for key in metrics.export() if "data/cache" in key]


def test_one_boot_counts_once() -> None:
    """However often a complete node is shown, its boot is one observation."""
    metrics = Metrics()
    booting = dataclasses.replace(NODE, phase=PhaseStatus(number=5, name="optional"))

    for status in (booting, NODE, NODE):
        metrics.show(status)

    assert metrics.export()["novacron_init_duration_seconds_count"] == 1.0
    assert metrics.export()["novacron_init_duration_seconds_sum"] == 1.25


def test_component_init_time_is_from_starting_to_up() -> None:
    """Each start of a component is one observation."""
    metrics = Metrics()

    metrics.follow("b", start_of("core/vm"), 0)

    found = metrics.export()
    assert found['novacron_component_init_seconds_count{component="core/vm"}'] == 1.0
    assert abs(found['novacron_component_init_seconds_sum{component="core/vm"}'] - 0.2) < 1e-9


def test_start_that_fails_is_no_init_time() -> None:
    """A component that ends while starting is counted as an error only."""
    metrics = Metrics()

    metrics.follow(
        "b",
        [
            record(1, "component:state", "core/vm", state="starting", failure="critical"),
            record(2, "component:exited", "core/vm", reason="start_failed: no libvirt"),
        ],
        0,
    )

    found = metrics.export()
    assert 'novacron_component_init_seconds_count{component="core/vm"}' not in found
    assert found['novacron_errors_total{class="critical",component="core/vm"}'] == 1.0


def test_orderly_end_is_no_error() -> None:
    """Shutdown and normal ends are not counted."""
    metrics = Metrics()

    ends = [
        record(n, "component:exited", "core/vm", reason=r)
        for n, r in ((1, "normal"), (2, "shutdown: asked"))
    ]
    metrics.follow("b", ends, 0)

    assert not [key for key in metrics.export() if key.startswith("novacron_errors_total")]


def test_becoming_degraded_is_one_error() -> None:
    """Repeating the state with another reason does not count again."""
    metrics = Metrics()
    states = ("degraded", "degraded", "healthy", "degraded")

    metrics.follow(
        "b", [record(n, "component:state", "data/cache", state=s) for n, s in enumerate(states)], 0
    )

    assert metrics.export()['novacron_errors_total{class="degraded",component="data/cache"}'] == 2.0


def test_lost_records_are_counted() -> None:
    """What the journal no longer held is visible."""
    metrics = Metrics()

    metrics.follow("b", [], 7)

    assert metrics.export()["novacron_journal_records_lost_total"] == 7.0


def test_batch_is_applied_and_what_was_dropped_is_told() -> None:
    """A component's batch changes its series; a bad sample in it harms no other."""
    metrics = Metrics()
    batch = MetricBatch(
        (
            MetricSample(MetricKind.GAUGE, "novacron_dwcp_compression_ratio", 3.5),
            MetricSample(MetricKind.GAUGE, "BAD", 1.0),
            MetricSample(MetricKind.GAUGE, "novacron_vm_domains", 4.0, {"state": "running"}),
        )
    )

    dropped = metrics.take(batch, component="core/vm")

    found = metrics.export()
    assert dropped == 1
    assert found["novacron_dwcp_compression_ratio"] == 3.5
    assert found['novacron_vm_domains{component="core/vm",state="running"}'] == 4.0
    assert found['novacron_telemetry_samples_dropped_total{reason="name"}'] == 1.0


def test_page_is_prometheus_text() -> None:
    """The scrape has the text format's media type, help texts and no creation times."""
    metrics = Metrics()
    metrics.show(NODE)

    content_type, body = metrics.render()

    assert content_type.startswith("text/plain; version=")
    assert b"# HELP novacron_component_health " in body
    assert b"_created" not in body
