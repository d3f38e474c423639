"""What machines use, as metrics. Pure.

Each series carries the machine's name and no more: devices are summed up, as their names come and
go with every start. Counters travel as increments; a machine that is gone takes its series along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from protocol.messages.metrics import MetricKind, MetricSample
from services.vm.statistics.rates import Change

# With all their series some 1,800 samples in an interval, of the 2,000 that a process may send in
# one batch and of the 4,096 series that a node shows.
MACHINES_MEASURED_MAX = 128
# A metric's label may not be longer; libvirt allows it for a name.
NAME_LENGTH_MAX = 128
LABEL = "vm"

_GAUGES = {
    "novacron_vm_memory_assigned_bytes": "memory_assigned_bytes",
    "novacron_vm_memory_used_bytes": "memory_used_bytes",
    "novacron_vm_memory_resident_bytes": "memory_resident_bytes",
}
_COUNTERS = {
    "novacron_vm_cpu_seconds_total": "cpu.cpu_seconds",
    "novacron_vm_disk_read_bytes_total": "disks.read_bytes",
    "novacron_vm_disk_written_bytes_total": "disks.written_bytes",
    "novacron_vm_disk_reads_total": "disks.reads",
    "novacron_vm_disk_writes_total": "disks.writes",
    "novacron_vm_network_received_bytes_total": "interfaces.received_bytes",
    "novacron_vm_network_sent_bytes_total": "interfaces.sent_bytes",
    "novacron_vm_network_received_packets_total": "interfaces.received_packets",
    "novacron_vm_network_sent_packets_total": "interfaces.sent_packets",
    "novacron_vm_network_dropped_packets_total": "interfaces.drops",
    "novacron_vm_network_errors_total": "interfaces.errors",
}
UNMEASURED = "novacron_vm_unmeasured"


def measured(
    changes: Iterable[Change], *, already: frozenset[str] = frozenset()
) -> tuple[list[Change], int]:
    """The machines that get series, and how many get none.

    Those that have series keep them, then the first ones by name.
    """
    fitting, left_out = [], 0
    for change in changes:
        if len(change.reading.name) <= NAME_LENGTH_MAX:
            fitting.append(change)
        else:
            left_out += 1
    fitting.sort(key=lambda change: (change.reading.name not in already, change.reading.name))
    return fitting[:MACHINES_MEASURED_MAX], left_out + max(len(fitting) - MACHINES_MEASURED_MAX, 0)


def samples_of(change: Change, *, is_new: bool) -> Iterator[MetricSample]:
    """The samples of one machine.

    Args:
        change: what it did.
        is_new: it has no series yet, so each counter is sent, even where it did not grow.
    """
    labels = {LABEL: change.reading.name}
    for name, field in _GAUGES.items():
        value = getattr(change.statistics, field)
        if value is not None:
            yield MetricSample(MetricKind.GAUGE, name, float(value), labels)
    known = _known(change)
    for name, key in _COUNTERS.items():
        grown = change.grown.get(key, 0.0)
        if grown or (is_new and key in known):
            yield MetricSample(MetricKind.COUNTER, name, grown, labels)


def samples_gone(name: str) -> Iterator[MetricSample]:
    """What takes the series of a machine away."""
    for family in (*_GAUGES, *_COUNTERS):
        yield MetricSample(MetricKind.FORGET, family, 0.0, {LABEL: name})


def _known(change: Change) -> frozenset[str]:
    """The counters that the machine has, as they are called in ``Change.grown``."""
    reading = change.reading
    devices: Mapping[str, tuple[object, ...]] = {
        "disks.": tuple((reading.disks or {}).values()),
        "interfaces.": tuple((reading.interfaces or {}).values()),
        "cpu.": () if reading.cpu is None else (reading.cpu,),
    }
    return frozenset(
        key
        for key in _COUNTERS.values()
        if any(key.startswith(kind) and found for kind, found in devices.items())
    )
