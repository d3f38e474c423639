"""From the kernel's counters to what happened in between, and what to say about it; without I/O."""

from __future__ import annotations

from protocol.messages.metrics import MetricKind, MetricSample
from services.optional.workload.model import HostReading, HostSample

_DAY_S = 86_400.0


def sample_of(before: HostReading, after: HostReading) -> HostSample:
    """What the host did between two readings.

    A counter that is smaller than before was reset (a disk or card is gone), and counts nothing.
    """
    passed_s = after.at_s - before.at_s
    total_s = after.cpu_total_s - before.cpu_total_s
    busy_s = after.cpu_busy_s - before.cpu_busy_s
    share = min(max(busy_s / total_s, 0.0), 1.0) if total_s > 0 else 0.0
    return HostSample(
        cpu_percent=100.0 * share,
        load1=after.load1,
        load5=after.load5,
        load15=after.load15,
        memory_total_bytes=after.memory_total_bytes,
        memory_used_bytes=max(after.memory_total_bytes - after.memory_available_bytes, 0),
        disk_read_rate=_rate(before.disk_read_bytes, after.disk_read_bytes, passed_s),
        disk_written_rate=_rate(before.disk_written_bytes, after.disk_written_bytes, passed_s),
        network_received_rate=_rate(
            before.network_received_bytes, after.network_received_bytes, passed_s
        ),
        network_sent_rate=_rate(before.network_sent_bytes, after.network_sent_bytes, passed_s),
    )


def gauges_of(host: HostSample) -> tuple[MetricSample, ...]:
    """The sample as metrics, with Prometheus' base units."""
    values = {
        "novacron_host_cpu_ratio": host.cpu_percent / 100.0,
        "novacron_host_load1": host.load1,
        "novacron_host_memory_total_bytes": host.memory_total_bytes,
        "novacron_host_memory_used_bytes": host.memory_used_bytes,
        "novacron_host_disk_read_bytes_per_second": host.disk_read_rate,
        "novacron_host_disk_written_bytes_per_second": host.disk_written_rate,
        "novacron_host_network_received_bytes_per_second": host.network_received_rate,
        "novacron_host_network_sent_bytes_per_second": host.network_sent_rate,
    }
    return tuple(MetricSample(MetricKind.GAUGE, name, value) for name, value in values.items())


def next_tick_s(last_s: float, interval_s: float, now_s: float) -> float:
    """When the next sample is due: on the beat, leaving out beats that were missed."""
    due_s = last_s + interval_s
    if due_s >= now_s:
        return due_s
    missed = (now_s - last_s) // interval_s
    return last_s + (missed + 1) * interval_s


def oldest_kept_s(now_s: float, retention_days: int) -> float:
    """Samples from before this Unix time are deleted."""
    return now_s - retention_days * _DAY_S


def _rate(before: int, after: int, passed_s: float) -> float:
    return (after - before) / passed_s if passed_s > 0 and after > before else 0.0
