"""From two readings to what happened in between. Pure.

A counter that is smaller than before began anew: the machine was started again, and all that it
shows now happened since. A group of counters that libvirt did not tell this time is carried over
with its own moment and its last rates, so that the next rate spans the gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from services.vm.model import DomainState
from services.vm.statistics.model import DiskStatistics, DomainStatistics, InterfaceStatistics
from services.vm.statistics.readings import Counted, DomainReading, Memory

_GROUPS = ("cpu", "memory", "disks", "interfaces")
_DISK_RATES = ("read_bytes_s", "written_bytes_s", "reads_s", "writes_s")
_INTERFACE_RATES = (
    "received_bytes_s",
    "sent_bytes_s",
    "received_packets_s",
    "sent_packets_s",
    "drops_s",
    "errors_s",
)
_PERCENT = 100.0
_NOTHING = Counted(0.0, {})
_NOBODY = DomainReading(name="", uuid="", state=DomainState.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one machine did between two readings.

    Attributes:
        reading: the later one, completed by the earlier where it lacks something.
        statistics: its rates and levels.
        grown: by how much its counters grew, by name; of all disks and interfaces together. Of a
            machine that the earlier reading did not have, all that they show.
    """

    reading: DomainReading
    statistics: DomainStatistics
    grown: Mapping[str, float]


def change_between(
    before: Change | None, after: DomainReading, *, is_first: bool = False
) -> Change:
    """What a machine did.

    Args:
        before: of the earlier reading; None for a machine that it did not have.
        after: the later reading.
        is_first: there was no earlier reading, so what the counters show may be of any age.
    """
    lacks = _lacks(before, after)
    reading = _complete(before, after, lacks)
    earlier = _NOBODY if before is None else before.reading
    statistics = _statistics(earlier, reading)
    if before is not None and lacks:
        known = before.statistics
        statistics = replace(
            statistics,
            is_stale=True,
            cpu_percent=known.cpu_percent if "cpu" in lacks else statistics.cpu_percent,
            disks=known.disks if "disks" in lacks else statistics.disks,
            interfaces=known.interfaces if "interfaces" in lacks else statistics.interfaces,
        )
    grown = {} if is_first else _grown(earlier, reading)
    return Change(reading=reading, statistics=_with_sums(statistics), grown=grown)


def without_devices(statistics: DomainStatistics) -> DomainStatistics:
    """As it is told where all machines are listed."""
    return replace(statistics, disks=(), interfaces=())


def _statistics(before: DomainReading, after: DomainReading) -> DomainStatistics:
    cpu = _rates(before.cpu, after.cpu).get("cpu_seconds")
    memory = after.memory or Memory()
    return DomainStatistics(
        name=after.name,
        uuid=after.uuid,
        state=after.state,
        vcpus=after.vcpus,
        cpu_percent=None if cpu is None else round(_PERCENT * cpu, 1),
        memory_assigned_bytes=memory.assigned,
        memory_maximum_bytes=memory.maximum,
        memory_used_bytes=memory.used,
        memory_resident_bytes=memory.resident,
        disks=tuple(
            _disk(target, (before.disks or {}).get(target), now, after.sizes.get(target))
            for target, now in (after.disks or {}).items()
        ),
        interfaces=tuple(
            _interface(link, (before.interfaces or {}).get(link), now)
            for link, now in (after.interfaces or {}).items()
        ),
    )


def _with_sums(statistics: DomainStatistics) -> DomainStatistics:
    sums = {name: _sum(getattr(item, name) for item in statistics.disks) for name in _DISK_RATES}
    sums |= {
        name: _sum(getattr(item, name) for item in statistics.interfaces)
        for name in _INTERFACE_RATES
    }
    return replace(statistics, **sums)  # type: ignore[arg-type] # rates, by their names above


def _lacks(before: Change | None, after: DomainReading) -> tuple[str, ...]:
    """The groups that the earlier reading had and the later one has not."""
    if before is None:
        return ()
    return tuple(
        name
        for name in _GROUPS
        if getattr(after, name) is None and getattr(before.reading, name) is not None
    )


def _complete(before: Change | None, after: DomainReading, lacks: tuple[str, ...]) -> DomainReading:
    if before is None or not lacks:
        return after
    known = before.reading
    sizes = known.sizes if "disks" in lacks else after.sizes
    return replace(after, sizes=sizes, **{name: getattr(known, name) for name in lacks})


def _grown(before: DomainReading, after: DomainReading) -> dict[str, float]:
    grown = {f"cpu.{name}": value for name, value in _growth(before.cpu, after.cpu).items()}
    for kind in ("disks", "interfaces"):
        earlier: Mapping[str, Counted] = getattr(before, kind) or {}
        later: Mapping[str, Counted] = getattr(after, kind) or {}
        for device, now in later.items():
            for name, value in _growth(earlier.get(device), now).items():
                key = f"{kind}.{name}"
                grown[key] = grown.get(key, 0.0) + value
    return grown


def _growth(before: Counted | None, after: Counted | None) -> dict[str, float]:
    """By how much each counter grew."""
    earlier = (before or _NOTHING).values
    return {
        name: value - earlier.get(name, 0.0) if value >= earlier.get(name, 0.0) else value
        for name, value in (after or _NOTHING).values.items()
    }


def _rates(before: Counted | None, after: Counted | None) -> dict[str, float]:
    """Growth per second; empty where there are no two moments."""
    if before is None or after is None or after.at_s <= before.at_s:
        return {}
    passed_s = after.at_s - before.at_s
    return {name: value / passed_s for name, value in _growth(before, after).items()}


def _disk(
    target: str,
    before: Counted | None,
    after: Counted,
    sizes: tuple[int | None, int | None] | None,
) -> DiskStatistics:
    rates = _rates(before, after)
    capacity, allocated = sizes or (None, None)
    return DiskStatistics(
        target=target,
        read_bytes_s=rates.get("read_bytes"),
        written_bytes_s=rates.get("written_bytes"),
        reads_s=rates.get("reads"),
        writes_s=rates.get("writes"),
        read_bytes=int(after.values.get("read_bytes", 0)),
        written_bytes=int(after.values.get("written_bytes", 0)),
        capacity_bytes=capacity,
        allocated_bytes=allocated,
    )


def _interface(link: str, before: Counted | None, after: Counted) -> InterfaceStatistics:
    rates, now = _rates(before, after), after.values
    return InterfaceStatistics(
        link=link,
        received_bytes_s=rates.get("received_bytes"),
        sent_bytes_s=rates.get("sent_bytes"),
        received_packets_s=rates.get("received_packets"),
        sent_packets_s=rates.get("sent_packets"),
        drops_s=rates.get("drops"),
        errors_s=rates.get("errors"),
        received_bytes=int(now.get("received_bytes", 0)),
        sent_bytes=int(now.get("sent_bytes", 0)),
        drops=int(now.get("drops", 0)),
        errors=int(now.get("errors", 0)),
    )


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
