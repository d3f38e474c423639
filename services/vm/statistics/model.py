"""What a running machine uses, as it is told to others. Light: the command line reads it too."""

from __future__ import annotations

from dataclasses import dataclass

from services.vm.model import DomainState

# A domain without its devices takes some 700 bytes on the wire and a message holds 1 MiB.
DOMAINS_LISTED_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRequest:
    """Body of ``vm.statistics``.

    Attributes:
        domain: name or UUID of one machine, which is told with its devices; "" for all.
        age_max_s: figures that are older are read anew.
    """

    domain: str = ""
    age_max_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.age_max_s <= 3600:
            raise ValueError("age_max_s must be from 0 to 3600")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskStatistics:
    """One disk; rates are None until there are two readings.

    Attributes:
        target: what the machine knows it by, such as ``vda``.
        read_bytes, written_bytes: since the hypervisor started.
        capacity_bytes, allocated_bytes: of its image: what the guest sees, what it takes.
    """

    target: str
    read_bytes_s: float | None = None
    written_bytes_s: float | None = None
    reads_s: float | None = None
    writes_s: float | None = None
    read_bytes: int = 0
    written_bytes: int = 0
    capacity_bytes: int | None = None
    allocated_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStatistics:
    """One interface, as the guest sees it; rates are None until there are two readings.

    Attributes:
        link: its link on the host, such as ``vnet0``.
        received_bytes, sent_bytes, drops, errors: since the hypervisor started.
    """

    link: str
    received_bytes_s: float | None = None
    sent_bytes_s: float | None = None
    received_packets_s: float | None = None
    sent_packets_s: float | None = None
    drops_s: float | None = None
    errors_s: float | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    drops: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainStatistics:
    """One running machine; a figure is None where nobody can tell, rates until two readings.

    Attributes:
        cpu_percent: of one processor, so up to 100 for each of ``vcpus``.
        memory_assigned_bytes: what it has at the moment, by its balloon.
        memory_maximum_bytes: what it may have.
        memory_used_bytes: what its system uses of that; its balloon's driver tells.
        memory_resident_bytes: what its hypervisor takes of the host.
        read_bytes_s … writes_s: of all its disks.
        received_bytes_s … errors_s: of all its interfaces, as it sees them.
        is_stale: a part of it could not be read and is as it was before.
        disks, interfaces: left out where all machines are listed.
    """

    name: str
    uuid: str
    state: DomainState
    vcpus: int | None = None
    cpu_percent: float | None = None
    memory_assigned_bytes: int | None = None
    memory_maximum_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_resident_bytes: int | None = None
    read_bytes_s: float | None = None
    written_bytes_s: float | None = None
    reads_s: float | None = None
    writes_s: float | None = None
    received_bytes_s: float | None = None
    sent_bytes_s: float | None = None
    received_packets_s: float | None = None
    sent_packets_s: float | None = None
    drops_s: float | None = None
    errors_s: float | None = None
    is_stale: bool = False
    disks: tuple[DiskStatistics, ...] = ()
    interfaces: tuple[InterfaceStatistics, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsReply:
    """Reply to ``vm.statistics``.

    Attributes:
        domains: by name.
        time_s: Unix time of the reading; None before the first.
        interval_s: since the reading before; None for the first.
        is_stale: libvirt could not be asked; these are the last figures.
        reason: why; "" when they are not stale.
        omitted: machines that did not fit into one message.
    """

    domains: tuple[DomainStatistics, ...] = ()
    time_s: float | None = None
    interval_s: float | None = None
    is_stale: bool = False
    reason: str = ""
    omitted: int = 0
