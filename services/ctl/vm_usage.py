"""The screen of novacronctl vm top, and what vm status says; pure."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from services.ctl.amounts import age, size
from services.ctl.styled import Column, Line, Span, Tone, line, pad, printable, table
from services.vm.autostart.model import AutostartOutcome

if TYPE_CHECKING:
    from services.vm.autostart.model import AutostartRecord
    from services.vm.model import VmStatus
    from services.vm.statistics.model import DomainStatistics, StatisticsReply

# From here on a machine keeps each of its processors busy.
_BUSY_PERCENT = 90.0
_OUTCOME_TONES = {
    AutostartOutcome.WAITING: Tone.NOTE,
    AutostartOutcome.STARTING: Tone.NOTE,
    AutostartOutcome.STARTED: Tone.GOOD,
    AutostartOutcome.RUNNING: Tone.GOOD,
    AutostartOutcome.FAILED: Tone.BAD,
    AutostartOutcome.SKIPPED: Tone.CAUTION,
}
_AUTOSTART = (
    Column("MACHINE"),
    Column("PRIORITY", right=True, rank=1),
    Column("OUTCOME"),
    Column("TRIED", right=True, rank=2),
    Column("AGE", right=True, rank=3),
    Column("WHY"),
)


class VmSort(enum.Enum):
    """By what machines are ordered; most first, but for names."""

    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    NAME = "name"


KEYS = {
    "c": VmSort.CPU,
    "m": VmSort.MEMORY,
    "d": VmSort.DISK,
    "t": VmSort.NETWORK,
    "n": VmSort.NAME,
}


def vm_order(domains: Iterable[DomainStatistics], sort: VmSort) -> tuple[DomainStatistics, ...]:
    """The machines as they are to be shown; those that are equal stay ordered by name."""
    found = sorted(domains, key=lambda item: item.name)
    if sort is not VmSort.NAME:
        found.sort(key=lambda item: -_AMOUNTS[sort](item))
    return tuple(found)


def render_vm_top(
    reply: StatisticsReply, sort: VmSort, *, width: int, has_keys: bool = False
) -> list[Line]:
    """One line about all, then a table of the machines.

    Args:
        reply: the figures.
        sort: the order.
        width: cells of the screen. Columns that do not fit go, those sorted by last.
        has_keys: also say which keys do what.
    """
    lines = [_head(reply)]
    if reply.is_stale:
        lines.append(line(Span("stale", Tone.BAD), f": {printable(reply.reason)}"))
    if reply.omitted:
        lines.append(line(Span(f"{reply.omitted} machines more than are told", Tone.CAUTION)))
    if has_keys:
        lines.append(_key_line(sort))
    rows = [_row(item) for item in vm_order(reply.domains, sort)]
    return [*lines, (), *table(_columns(sort), rows, width=width)]


def render_vm_status(status: VmStatus, *, now_s: float, width: int) -> list[Line]:
    """libvirt, the machines by state, and what became of those that start with the host."""
    if status.is_connected:
        word = Span("connected", Tone.GOOD)
        detail = f" to {status.hypervisor} by libvirt {status.libvirt_version}"
    else:
        word, detail = Span("not connected", Tone.BAD), f": {printable(status.reason)}"
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status.domains.items()))
    lines = [
        line(Span(pad("libvirt", 10), Tone.FAINT), word, detail),
        line(Span(pad("", 10)), printable(status.libvirt_uri)),
        line(Span(pad("machines", 10), Tone.FAINT), counts or "none"),
        line(Span(pad("autostart", 10), Tone.FAINT), _autostart_text(status.autostart)),
    ]
    if status.disk_lock:
        lines.append(line(Span(pad("disk lock", 10), Tone.FAINT), printable(status.disk_lock)))
    record = status.autostart
    if record is not None and record.machines:
        rows = [
            (
                Span(printable(item.name)),
                Span(str(item.priority)),
                Span(item.outcome.value, _OUTCOME_TONES[item.outcome]),
                Span(str(item.attempts)),
                Span(age(now_s - item.time_s) if item.time_s else "-"),
                Span(printable(item.message)),
            )
            for item in record.machines
        ]
        lines += [(), *table(_AUTOSTART, rows, width=width)]
    return lines


def _autostart_text(record: AutostartRecord | None) -> str:
    if record is None:
        return "nothing is known of this boot of the host"
    if not record.machines:
        return "no machine to start in this boot of the host"
    if record.is_over:
        return "over for this boot of the host"
    open_ones = (AutostartOutcome.WAITING, AutostartOutcome.STARTING)
    left = sum(item.outcome in open_ones for item in record.machines)
    return f"under way: {left} of {len(record.machines)} machines to go"


def _head(reply: StatisticsReply) -> Line:
    if reply.time_s is None:
        return line("no figures yet")
    clock = time.strftime("%H:%M:%S", time.localtime(reply.time_s))
    percents = [item.cpu_percent for item in reply.domains if item.cpu_percent is not None]
    count = len(reply.domains) + reply.omitted
    assigned = sum(item.memory_assigned_bytes or 0 for item in reply.domains)
    return line(
        Span(f"{count} running", Tone.STRONG),
        f", CPU {sum(percents):.1f}%, memory {size(assigned)} assigned; {clock}",
    )


def _key_line(sort: VmSort) -> Line:
    spans: list[Span | str] = [Span("keys    ", Tone.FAINT)]
    for key, what in KEYS.items():
        spans += [key, Span(f" {what.value}  ", Tone.STRONG if what is sort else Tone.FAINT)]
    return line(*spans, "q", Span(" quit"))


def _columns(sort: VmSort) -> tuple[Column, ...]:
    """The columns; what is sorted by stays the longest."""
    disk = 0 if sort is VmSort.DISK else 2
    network = 0 if sort is VmSort.NETWORK else 3
    return (
        Column("MACHINE"),
        Column("STATE", rank=6),
        Column("CPU%", right=True),
        Column("CPUS", right=True, rank=8),
        Column("USED", right=True, rank=0 if sort is VmSort.MEMORY else 4),
        Column("ASSIGNED", right=True, rank=1),
        Column("MAXIMUM", right=True, rank=7),
        Column("READ/S", right=True, rank=disk),
        Column("WRITE/S", right=True, rank=disk),
        Column("IOPS R", right=True, rank=5),
        Column("IOPS W", right=True, rank=5),
        Column("RX/S", right=True, rank=network),
        Column("TX/S", right=True, rank=network),
        Column("DROPS/S", right=True, rank=5),
    )


def _row(item: DomainStatistics) -> tuple[Span, ...]:
    cpu, drops = item.cpu_percent, item.drops_s
    is_busy = cpu is not None and cpu >= _BUSY_PERCENT * (item.vcpus or 1)
    return (
        Span(printable(item.name) + (" (stale)" if item.is_stale else "")),
        Span(item.state.value, Tone.PLAIN if item.state.value == "running" else Tone.CAUTION),
        Span("-" if cpu is None else f"{cpu:.1f}", Tone.CAUTION if is_busy else Tone.PLAIN),
        Span("-" if item.vcpus is None else str(item.vcpus)),
        Span(_size(item.memory_used_bytes)),
        Span(_size(item.memory_assigned_bytes)),
        Span(_size(item.memory_maximum_bytes)),
        Span(_size(item.read_bytes_s)),
        Span(_size(item.written_bytes_s)),
        Span(_count(item.reads_s)),
        Span(_count(item.writes_s)),
        Span(_size(item.received_bytes_s)),
        Span(_size(item.sent_bytes_s)),
        Span(_count(drops), Tone.CAUTION if drops else Tone.PLAIN),
    )


def _size(amount: float | None) -> str:
    return "-" if amount is None else size(round(amount))


def _count(amount: float | None) -> str:
    if amount is None:
        return "-"
    return f"{amount:.1f}" if 0 < amount < 10 else f"{amount:.0f}"


def _memory(item: DomainStatistics) -> float:
    return float(item.memory_used_bytes or item.memory_assigned_bytes or 0)


def _disk(item: DomainStatistics) -> float:
    return (item.read_bytes_s or 0.0) + (item.written_bytes_s or 0.0)


def _network(item: DomainStatistics) -> float:
    return (item.received_bytes_s or 0.0) + (item.sent_bytes_s or 0.0)


_AMOUNTS: dict[VmSort, Callable[[DomainStatistics], float]] = {
    VmSort.CPU: lambda item: item.cpu_percent or 0.0,
    VmSort.MEMORY: _memory,
    VmSort.DISK: _disk,
    VmSort.NETWORK: _network,
}
