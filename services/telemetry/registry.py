"""Everything that ``/metrics`` shows.

Three sources: the node's status, turned into series when somebody scrapes; the journal, through
the meter; and the samples that components cast. ``prometheus_client``'s multi-process mode was
rejected: it keeps a file per process that ever lived, in a platform that restarts processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from protocol.messages.health import HealthState
from protocol.messages.journal import JournalRecord
from protocol.messages.metrics import MetricBatch, MetricKind, MetricSample
from protocol.messages.status import NodeStatus, Verdict
from services.telemetry.meter import (
    COMPONENT_INIT_SECONDS,
    ERRORS,
    INIT_SECONDS,
    JournalMeter,
)
from services.telemetry.series import Declared, Series

DECLARED = (
    Declared(
        name=INIT_SECONDS,
        kind=MetricKind.HISTOGRAM,
        text="Time from the program's start to a ready node.",
        buckets=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0, 18.0, 47.0, 120.0),
    ),
    Declared(
        name=COMPONENT_INIT_SECONDS,
        kind=MetricKind.HISTOGRAM,
        text="Time that a component took to come up.",
        labels=("component",),
        buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    ),
    Declared(
        name=ERRORS,
        kind=MetricKind.COUNTER,
        text="Errors by component and class: critical, recoverable, degraded or warning.",
        labels=("class", "component"),
    ),
    Declared(
        name="novacron_dwcp_bandwidth_bytes_per_second",
        kind=MetricKind.GAUGE,
        text="Payload that DWCP moves per second at the moment.",
    ),
    Declared(
        name="novacron_dwcp_latency_seconds",
        kind=MetricKind.HISTOGRAM,
        text="Round-trip time that DWCP measures to its peers.",
    ),
    Declared(
        name="novacron_dwcp_compression_ratio",
        kind=MetricKind.GAUGE,
        text="Bytes before compression divided by bytes after it, of the last transfer.",
    ),
    Declared(
        name="novacron_calls_refused_total",
        kind=MetricKind.COUNTER,
        text="Calls of a component that its policy, or the caller's identity, did not allow.",
    ),
    Declared(
        name="novacron_journal_records_lost_total",
        kind=MetricKind.COUNTER,
        text="Journal records that were gone before telemetry had read them.",
    ),
)

_HEALTH_VALUE = {
    HealthState.HEALTHY: 1.0,
    HealthState.DEGRADED: 0.5,
    HealthState.UNHEALTHY: 0.0,
    HealthState.STARTING: 0.0,
    HealthState.STOPPED: 0.0,
}
_UP = (HealthState.HEALTHY, HealthState.DEGRADED)
_VERDICT_VALUE = {Verdict.READY: 1.0, Verdict.DEGRADED: 0.5, Verdict.NOT_READY: 0.0}


class Metrics:
    """The registry and what fills it."""

    def __init__(self) -> None:
        # Each counter and histogram would get a second series with its time of birth.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own gap
        self._registry = CollectorRegistry()
        self._meter = JournalMeter()
        self._status: NodeStatus | None = None
        self._boot_id = ""
        self._is_boot_counted = False
        self.series = Series(self._registry)
        for declared in DECLARED:
            self.series.declare(declared)
        self._registry.register(_Collected(self))

    def show(self, status: NodeStatus) -> None:
        """Take in the node's status; the first one of a complete boot counts as that boot."""
        self._status = status
        boot_s = status.platform.boot_s
        if boot_s is not None and status.phase.complete and not self._is_boot_counted:
            self._is_boot_counted = True
            self.series.apply(MetricSample(MetricKind.HISTOGRAM, INIT_SECONDS, boot_s))

    def follow(self, boot_id: str, records: Iterable[JournalRecord], lost: int) -> None:
        """Take in a page of the journal."""
        if boot_id != self._boot_id:
            self._boot_id = boot_id
            self._meter.forget()
        if lost:
            self.series.apply(
                MetricSample(MetricKind.COUNTER, "novacron_journal_records_lost_total", lost)
            )
        for record in records:
            for sample in self._meter.take(record):
                self.series.apply(sample)
            if record.name == "component:exited":
                self.series.forget_ended(record.component)

    def take(self, batch: MetricBatch, *, component: str) -> int:
        """Apply samples that a component measured; returns how many were dropped."""
        return sum(not self.series.apply(item, component=component) for item in batch.samples)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Media type and body of a scrape.

        Args:
            accept: the request's Accept header; "" gives Prometheus' text format.
        """
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self._registry)

    def export(self) -> dict[str, float]:
        """Every series by its name with labels; of a histogram its count and sum."""
        found: dict[str, float] = {}
        for family in self._registry.collect():
            for sample in family.samples:
                if not sample.name.endswith("_bucket"):
                    labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
                    found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def collected(self) -> Iterator[Metric]:
        """The families that are made from the status at the moment of a scrape."""
        dropped = CounterMetricFamily(
            "novacron_telemetry_samples_dropped",
            "Samples that did not fit: their name, labels, kind or number.",
            labels=("reason",),
        )
        for reason, count in self.series.dropped.items():
            dropped.add_metric((reason,), count)
        yield dropped
        if self._status is not None:
            yield from node_families(self._status)
            yield from component_families(self._status)


class _Collected(Collector):
    """What prometheus_client asks at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.collected()


def node_families(status: NodeStatus) -> Iterator[Metric]:
    """The series of the node as a whole."""
    platform = status.platform
    info = GaugeMetricFamily(
        "novacron_node_info",
        "Always 1; its labels say which node this is.",
        labels=("name", "version", "node_id", "environment", "roles"),
    )
    roles = ",".join(platform.roles)
    info.add_metric(
        (platform.name, platform.version, platform.node_id, platform.environment, roles), 1
    )
    yield info
    yield GaugeMetricFamily(
        "novacron_uptime_seconds", "Since the node started.", value=platform.uptime_s
    )
    yield GaugeMetricFamily(
        "novacron_boot_phase", "Phase of the boot, 0 to 6.", value=status.phase.number
    )
    yield GaugeMetricFamily(
        "novacron_ready",
        "1 ready, 0.5 degraded, 0 not ready.",
        value=_VERDICT_VALUE[status.verdict],
    )


def component_families(status: NodeStatus) -> Iterator[Metric]:
    """The series of each component."""
    names = ("component",)
    up = GaugeMetricFamily("novacron_component_status", "1 up, 0 not up.", labels=names)
    health = GaugeMetricFamily(
        "novacron_component_health", "1 healthy, 0.5 degraded, 0 any other state.", labels=names
    )
    restarts = CounterMetricFamily(
        "novacron_component_restarts", "Restarts since the node started.", labels=names
    )
    uptime = GaugeMetricFamily(
        "novacron_component_uptime_seconds", "Since its process started.", labels=names
    )
    memory = GaugeMetricFamily(
        "novacron_component_memory_bytes",
        "Memory of its process, shared parts shared out.",
        labels=names,
    )
    for item in status.components:
        values = (item.path,)
        up.add_metric(values, float(item.state in _UP))
        health.add_metric(values, _HEALTH_VALUE[item.state])
        restarts.add_metric(values, item.restarts)
        if item.uptime_s is not None:
            uptime.add_metric(values, item.uptime_s)
        if item.memory_bytes is not None:
            memory.add_metric(values, item.memory_bytes)
    yield from (up, health, restarts, uptime, memory)
