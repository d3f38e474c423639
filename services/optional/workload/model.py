"""The workload monitor's settings, and what it measures."""

from __future__ import annotations

from dataclasses import dataclass

from services.data.model import PostgresSettings
from services.vm.model import DomainRecord
from services.vm.statistics.model import DomainStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSettings:
    """What the tree builder hands to the workload monitor.

    Attributes:
        node_id: whose samples these are.
        postgres: how to reach the database; one connection is held.
        sample_interval_s: between two samples.
        retention_days: older samples of this node are deleted.
        domains_enabled: False where the node's roles have no virtual machines.
        pending_max: samples kept while the database is away, the newest ones; an hour's by
            default.
        call_timeout_s: for the list of domains.
        store_timeout_s: for one round with the database.
    """

    node_id: str
    postgres: PostgresSettings
    sample_interval_s: float = 10.0
    retention_days: int = 7
    domains_enabled: bool = True
    pending_max: int = 360
    call_timeout_s: float = 3.0
    store_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.sample_interval_s > 0 or self.retention_days < 1 or self.pending_max < 1:
            raise ValueError(
                "sample_interval_s is above 0, retention_days and pending_max are at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReading:
    """The kernel's counters at one moment; only differences and levels mean something.

    Attributes:
        at_s: monotonic.
        cpu_busy_s, cpu_total_s: of all CPUs, since boot.
        load1, load5, load15: the load averages.
        memory_total_bytes, memory_available_bytes: as the kernel estimates them.
        disk_read_bytes, disk_written_bytes: of all disks, since boot.
        network_received_bytes, network_sent_bytes: of the network cards, since boot.
    """

    at_s: float
    cpu_busy_s: float
    cpu_total_s: float
    load1: float
    load5: float
    load15: float
    memory_total_bytes: int
    memory_available_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """What the host did between two readings; rates are bytes per second."""

    cpu_percent: float
    load1: float
    load5: float
    load15: float
    memory_total_bytes: int
    memory_used_bytes: int
    disk_read_rate: float
    disk_written_rate: float
    network_received_rate: float
    network_sent_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSample:
    """One sample.

    Attributes:
        time_s: Unix time.
        host: of the host.
        domains: the running domains; None when nobody could tell.
        statistics: what they use, without their devices; of some none where nobody could tell.
    """

    time_s: float
    host: HostSample
    domains: tuple[DomainRecord, ...] | None
    statistics: tuple[DomainStatistics, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadStatus:
    """Reply to ``workload.latest``.

    Attributes:
        sample: the newest; None before the first.
        stored: samples in the database since the process started.
        pending: samples that wait for the database.
        dropped: samples that waited too long and are lost.
        reason: why the component is not healthy; "" when it is.
    """

    sample: WorkloadSample | None = None
    stored: int = 0
    pending: int = 0
    dropped: int = 0
    reason: str = ""
