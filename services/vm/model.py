"""The records of the virtual machine level: settings, domains, their events, and the status."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocol.records import Plain
from services.vm.autostart.model import AutostartRecord
from services.vm.leases.model import LEASE_TTL_S, FenceAction


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSettings:
    """Settings of ``core/vm``.

    Attributes:
        libvirt_uri: where libvirt is, such as ``qemu:///system`` or ``test:///default``.
        connect_timeout_s: how long a start or reconnect waits before the component says that
            libvirt does not answer; short, as the node's boot waits for it.
        call_timeout_s: the same for a single request.
        keepalive_interval_s, keepalive_count: a silent libvirt counts as lost after
            interval x (count + 1) seconds.
        node_id: of this node; its documents are kept by it.
        state_dir: below it the last known documents are kept.
        postgres: wire form of PostgresSettings; None for no documents.
        retry_initial_s, retry_max_s: pauses between attempts to connect, doubling. libvirtd comes
            back within two seconds of a crash, and an attempt costs under a millisecond.
        image_dirs: the directories that guests' files may be in: images, seeds, saved memory.
        lease_ttl_s: how long the right to run a machine lasts without being renewed.
        fenced_guests: what is done to a machine that runs here and was taken over by another node.
        migration: wire form of services.vm.migration.routes.MigrationSettings.
        statistics_interval_s: between two readings of what machines use.
        autostart_enabled, autostart_parallel, autostart_delay_s, autostart_retry_s: how machines
            start with the host; see services.vm.autostart.part.
        boot_id_file: where the kernel tells which boot of the host this is.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    libvirt_uri: str
    connect_timeout_s: float = 1.0
    call_timeout_s: float = 5.0
    keepalive_interval_s: int = 5
    keepalive_count: int = 3
    retry_initial_s: float = 0.2
    retry_max_s: float = 5.0
    node_id: str = ""
    state_dir: str = ""
    postgres: Plain = None
    image_dirs: tuple[str, ...] = ("/var/lib/libvirt/images", "/var/lib/novacron/images")
    lease_ttl_s: float = LEASE_TTL_S
    fenced_guests: FenceAction = FenceAction.PAUSE
    migration: Plain = None
    statistics_interval_s: float = 10.0
    autostart_enabled: bool = True
    autostart_parallel: int = 2
    autostart_delay_s: float = 1.0
    autostart_retry_s: float = 15.0
    boot_id_file: str = "/proc/sys/kernel/random/boot_id"

    def __post_init__(self) -> None:
        if "://" not in self.libvirt_uri:
            raise ValueError(
                f"libvirt_uri is {self.libvirt_uri!r:.60}; expected a URI such as qemu:///system"
            )
        if not (self.connect_timeout_s > 0 and self.call_timeout_s > 0):
            raise ValueError("connect_timeout_s and call_timeout_s must be more than 0")
        if self.keepalive_interval_s < 1 or self.keepalive_count < 1:
            raise ValueError("keepalive_interval_s and keepalive_count must be at least 1")
        if not self.lease_ttl_s > 0:
            raise ValueError("lease_ttl_s must be more than 0")
        if not (self.statistics_interval_s > 0 and self.autostart_retry_s > 0):
            raise ValueError("statistics_interval_s and autostart_retry_s must be more than 0")
        if self.autostart_parallel < 1 or not self.autostart_delay_s >= 0:
            raise ValueError("autostart_parallel must be at least 1, autostart_delay_s at least 0")
        if not 0 < self.retry_initial_s <= self.retry_max_s:
            raise ValueError("retry_initial_s must be more than 0 and at most retry_max_s")
        if self.postgres is not None and not (self.node_id and self.state_dir.startswith("/")):
            raise ValueError("postgres needs node_id, and state_dir as an absolute path")


class DomainState(enum.Enum):
    """What a domain does, in libvirt's words."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting-down"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    PM_SUSPENDED = "pm-suspended"

    @property
    def is_active(self) -> bool:
        """The domain has a hypervisor process."""
        return self not in (DomainState.SHUTOFF, DomainState.CRASHED, DomainState.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRecord:
    """One domain as libvirt reports it.

    Attributes:
        reason: why it is in that state, in libvirt's words, such as ``booted`` or ``ioerror``.
        memory_bytes: what the guest may use at most.
        is_persistent: stays defined when it stops.
        autostart: libvirt starts it with the host.
    """

    name: str
    uuid: str
    state: DomainState
    reason: str = "unknown"
    vcpus: int = 0
    memory_bytes: int = 0
    autostart: bool = False
    is_persistent: bool = True


class DomainEventKind(enum.Enum):
    """What happened to a domain; the value is the second half of the event's name."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    STOPPED = "stopped"
    SHUT_DOWN = "shut-down"
    PM_SUSPENDED = "pm-suspended"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """Something happened to a domain.

    Attributes:
        detail: how or why, in libvirt's words, such as ``booted`` or ``destroyed``.
        is_observed: libvirt said so at the time; False when it was found on reading the domains
            after a gap.
    """

    kind: DomainEventKind
    uuid: str
    name: str
    detail: str = "unknown"
    is_observed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainList:
    """Reply to ``vm.list``.

    Attributes:
        domains: by name.
        is_stale: libvirt could not be asked; these are the last known.
        omitted: domains that did not fit into one message.
    """

    domains: tuple[DomainRecord, ...] = ()
    is_stale: bool = False
    omitted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VmStatus:
    """Reply to ``vm.status``.

    Attributes:
        reason: why libvirt is not connected or not answering; "" when it is.
        hypervisor: libvirt's driver, such as ``QEMU``; "" before the first connection.
        libvirt_version: of the daemon, such as ``9.0.0``.
        domains: number of domains by state, as last known.
        disk_lock: libvirt's own lock on disks, such as ``lockd``; "" for none that is known of.
        connections: connections made since the service started; the first one included.
        autostart: what became of the machines that start with the host; None while unknown.
    """

    libvirt_uri: str
    is_connected: bool
    reason: str = ""
    hypervisor: str = ""
    libvirt_version: str = ""
    domains: dict[str, int] = field(default_factory=dict)
    disk_lock: str = ""
    connections: int = 0
    autostart: AutostartRecord | None = None
