"""Leases of machines and of their disks; light, because the command line reads them too."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

# A node that is not heard of for so long may be gone.
LEASE_TTL_S = 60.0
# How often it is renewed in that time.
RENEWALS = 3
# Who acquires what nobody has ordered: what runs already.
BY_NODE = "node"
# Leases in one reply; some 400 bytes each with their disks.
LEASES_LISTED_MAX = 1024


class DiskMode(enum.Enum):
    """How a machine uses a file or device."""

    READ = "read"
    SHARED = "shared"  # marked shareable: its guests agree among themselves who writes
    WRITE = "write"

    def is_compatible(self, other: DiskMode) -> bool:
        """Two machines may use it so at one time."""
        return self is other and self is not DiskMode.WRITE


class FenceAction(enum.Enum):
    """What is done to a machine that runs here and has lost its right to."""

    REPORT = "report"
    PAUSE = "pause"
    DESTROY = "destroy"


class LeaseState(enum.Enum):
    """What a lease is worth at a moment."""

    HELD = "held"
    EXPIRED = "expired"  # not renewed: its guest may run on, so it is not free
    FREE = "free"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is leased: a domain, the same on each node by its UUID."""

    uuid: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DiskUse:
    """One identity of a file or device that a machine uses.

    Attributes:
        key: equal for what is the same storage, whatever its path.
        path: for messages.
    """

    key: str
    mode: DiskMode
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run a machine; times are the database's, in Unix seconds.

    Attributes:
        node_id: who has it, or had it last.
        epoch: counts the holders; never falls, and no two holders have the same.
        acquired_by: who gave the order.
    """

    uuid: str
    name: str
    node_id: str
    epoch: int
    is_held: bool
    acquired_s: float
    renewed_s: float
    expires_s: float
    acquired_by: str = ""

    def state(self, now_s: float) -> LeaseState:
        """What it is worth at ``now_s``."""
        if not self.is_held:
            return LeaseState.FREE
        return LeaseState.HELD if now_s < self.expires_s else LeaseState.EXPIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a node asks for.

    Attributes:
        by: who gave the order.
        takeover: its giver has made sure that a node whose lease ran out is off.
        epoch_seen: of the domain on this host; a database that was restored may know less.
    """

    machine: Machine
    node_id: str
    by: str = ""
    takeover: bool = False
    epoch_seen: int = 0
    disks: tuple[DiskUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseInfo:
    """A lease in a list.

    Attributes:
        age_s: since it was acquired.
        renewed_ago_s: since its holder was heard of.
        is_running: whether the machine runs on the node that was asked.
        fenced: why the machine on the node that was asked may not run; "" if it may.
        disks: mode and path of each.
    """

    uuid: str
    name: str
    node_id: str
    epoch: int
    state: LeaseState
    age_s: float
    renewed_ago_s: float
    acquired_by: str = ""
    is_running: bool = False
    fenced: str = ""
    disks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseList:
    """Reply to ``vm.leases``.

    Attributes:
        node_id: who answers.
        is_stale: the database is away; these are this node's own, as last known.
        unleased: machines that run here without a lease, by UUID: name and reason.
        omitted: leases that did not fit.
    """

    node_id: str
    leases: tuple[LeaseInfo, ...] = ()
    is_stale: bool = False
    unleased: dict[str, str] = field(default_factory=dict)
    omitted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRequest:
    """Body of ``vm.assign``: another node gets the document of a stopped machine.

    Attributes:
        takeover: the node that had it last is off, and its lease has run out.
    """

    name: str
    node: str
    takeover: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignReply:
    """Reply to ``vm.assign``.

    Attributes:
        was: the node that had the document.
    """

    name: str
    node: str
    was: str
    epoch: int
    changed: bool
