"""The records of migrations: what is asked, how far one is, what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from services.vm.operations.model import DomainRequest

# libvirt and QEMU count the limit in MiB per second, and 0 means none to them.
BANDWIDTH_UNIT = 1 << 20
BANDWIDTH_MAX = 1 << 40
DOWNTIME_MAX_MS = 60_000
TIMEOUT_MAX_S = 7 * 86400.0
CONNECTIONS_MAX = 16
NODE_MAX = 63


class OnTimeout(enum.Enum):
    """What happens to a migration that is not done in its time."""

    CANCEL = "cancel"  # it ends, and the guest stays where it is
    FINISH = "finish"  # the guest stands still for as long as the rest takes


class Storage(enum.Enum):
    """Where the guest's disks are for the target."""

    SHARED = "shared"  # both nodes see the same files
    COPY = "copy"  # they are copied along


class Compression(enum.Enum):
    """How the memory's stream is made smaller."""

    NONE = "none"
    XBZRLE = "xbzrle"  # differences to pages that were sent before


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateRequest(DomainRequest):
    """Move a running guest to another node while it runs.

    Attributes:
        node: where to.
        bandwidth_bytes_s: at most, for the memory and for each disk; 0 = no limit.
        downtime_ms: how long it may stand still at the end, at most; approached in steps.
        auto_converge: slow its processors down when it writes faster than the line takes.
        timeout_s: for the copying; 0 = no limit.
        on_timeout: what happens then.
        stall_s: a migration that has sent nothing for so long is ended.
        storage: whether its disks are copied.
        onto_existing: disks that are there already on the target are written over.
        keeps_source: its definition stays here, too.
        compression: of its memory.
        connections: streams side by side for its memory; 0 = the usual single one.
    """

    node: str
    bandwidth_bytes_s: int = 0
    downtime_ms: int = 500
    auto_converge: bool = False
    timeout_s: float = 3600.0
    on_timeout: OnTimeout = OnTimeout.CANCEL
    stall_s: float = 60.0
    storage: Storage = Storage.SHARED
    onto_existing: bool = False
    keeps_source: bool = False
    compression: Compression = Compression.NONE
    connections: int = 0

    def __post_init__(self) -> None:
        DomainRequest.__post_init__(self)
        if not 0 < len(self.node) <= NODE_MAX:
            raise ValueError(f"node must be a node's name of 1 to {NODE_MAX} characters")
        check_bandwidth(self.bandwidth_bytes_s)
        check_downtime(self.downtime_ms)
        if not 0 <= self.timeout_s <= TIMEOUT_MAX_S:
            raise ValueError(f"timeout_s must be from 0 to {TIMEOUT_MAX_S:g}")
        if not 1 <= self.stall_s <= TIMEOUT_MAX_S:
            raise ValueError(f"stall_s must be from 1 to {TIMEOUT_MAX_S:g}")
        if not 0 <= self.connections <= CONNECTIONS_MAX:
            raise ValueError(f"connections must be from 0 to {CONNECTIONS_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRequest(DomainRequest):
    """Change the limits of a migration that is under way; None = as it is."""

    bandwidth_bytes_s: int | None = None
    downtime_ms: int | None = None

    def __post_init__(self) -> None:
        DomainRequest.__post_init__(self)
        if self.bandwidth_bytes_s is None and self.downtime_ms is None:
            raise ValueError("nothing to change: give bandwidth_bytes_s or downtime_ms")
        if self.bandwidth_bytes_s is not None:
            check_bandwidth(self.bandwidth_bytes_s)
        if self.downtime_ms is not None:
            check_downtime(self.downtime_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Reply to ``vm.migration.limit``: what holds now.

    Attributes:
        downtime_ms: the most that is allowed in the end.
    """

    bandwidth_bytes_s: int
    downtime_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How far a migration is, in bytes, milliseconds and bytes per second.

    Attributes:
        iteration: how often the memory has been gone through.
        dirty_bytes_s: memory that the guest writes anew.
        downtime_ms: how long it would stand still, or did; as QEMU expects or measured it.
        throttle_percent: how much its processors are slowed down.
    """

    elapsed_ms: int = 0
    total_bytes: int = 0
    sent_bytes: int = 0
    remaining_bytes: int = 0
    memory_sent_bytes: int = 0
    disk_sent_bytes: int = 0
    bytes_s: int = 0
    dirty_bytes_s: int = 0
    iteration: int = 0
    downtime_ms: int = 0
    throttle_percent: int = 0

    @property
    def fraction(self) -> float:
        """From 0 to 1; it may fall when the guest writes faster than the line takes."""
        return 1 - self.remaining_bytes / self.total_bytes if self.total_bytes else 0.0


def check_bandwidth(bandwidth_bytes_s: int) -> None:
    """Refuse a limit that libvirt can't express.

    Raises:
        ValueError: it is.
    """
    if bandwidth_bytes_s and not BANDWIDTH_UNIT <= bandwidth_bytes_s <= BANDWIDTH_MAX:
        raise ValueError("bandwidth_bytes_s must be 0 for no limit, or from 1 MiB to 1 TiB")


def check_downtime(downtime_ms: int) -> None:
    """Refuse a downtime that is none, or that nobody would call live.

    Raises:
        ValueError: it is.
    """
    if not 1 <= downtime_ms <= DOWNTIME_MAX_MS:
        raise ValueError(f"downtime_ms must be from 1 to {DOWNTIME_MAX_MS}")
