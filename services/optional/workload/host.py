"""Reading the kernel's counters, through psutil."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from services.optional.workload.model import HostReading

_NETWORK = Path("/sys/class/net")


def read_host() -> HostReading:
    """The counters now; takes about a millisecond."""
    cpu = psutil.cpu_times()
    idle_s = cpu.idle + cpu.iowait
    # The kernel counts guest time inside user and nice already.
    total_s = sum(cpu) - cpu.guest - cpu.guest_nice
    load1, load5, load15 = psutil.getloadavg()
    memory = psutil.virtual_memory()
    disks = psutil.disk_io_counters()  # None on a host without any
    cards = psutil.net_io_counters(pernic=True)
    counted = cards_that_count(cards)
    return HostReading(
        at_s=time.monotonic(),
        cpu_busy_s=total_s - idle_s,
        cpu_total_s=total_s,
        load1=load1,
        load5=load5,
        load15=load15,
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_read_bytes=disks.read_bytes if disks else 0,
        disk_written_bytes=disks.write_bytes if disks else 0,
        network_received_bytes=sum(cards[name].bytes_recv for name in counted),
        network_sent_bytes=sum(cards[name].bytes_sent for name in counted),
    )


def cards_that_count(names: Iterable[str], root: Path = _NETWORK) -> list[str]:
    """The interfaces whose traffic leaves the host: those with hardware behind them.

    Bridges and taps carry the same bytes again. Where no interface has hardware, as in a
    container, all but the loopback count.

    Args:
        names: of all interfaces.
        root: the kernel's directory of interfaces.
    """
    others = [name for name in names if name != "lo"]
    hardware = [name for name in others if (root / name / "device").exists()]
    return hardware or others
