"""What the configuration has to agree with on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts about the host.

    Attributes:
        rdma_devices: names of the RDMA devices, such as ``mlx5_0``.
        cpus: numbers of the CPUs that are online; None where the kernel does not say.
    """

    rdma_devices: tuple[str, ...] = ()
    cpus: frozenset[int] | None = None


def read_host(sys_dir: Path = Path("/sys")) -> HostFacts:
    """Read the facts from sysfs; what is missing there the host does not have.

    The CPUs are those online and not those of our affinity: CPUs that were set aside for the
    transport by ``isolcpus`` are not in it.
    """
    try:
        devices = sorted(entry.name for entry in (sys_dir / "class" / "infiniband").iterdir())
    except OSError:
        devices = []
    try:
        cpus = _parse_cpu_list((sys_dir / "devices/system/cpu/online").read_text())
    except (OSError, ValueError):
        cpus = None
    return HostFacts(tuple(devices), cpus)


def _parse_cpu_list(text: str) -> frozenset[int]:
    """Read the kernel's list format, such as ``0-3,8``."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)
