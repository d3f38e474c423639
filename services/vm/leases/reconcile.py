"""What follows from the leases and from what runs on this host. Pure.

A machine that runs here and is leased to this node: all is well. One whose lease is free, or that
never had one, was started past the platform: it is claimed. One whose lease another node has, by a
later epoch than the one it was started by here, has been taken over: it is fenced. A lease of this
node whose machine does not run is freed, unless it was given a moment ago and the machine is about
to start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from services.vm.leases.model import DiskUse, Lease, LeaseState, Machine

# After a kill between lease and start libvirt may still be about to start the guest, and it probes
# its QEMU first: 48 s were seen on a busy machine.
SETTLE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A machine that runs on this host.

    Attributes:
        domain_id: libvirt's number of this run of it.
        epoch: that it was started by; 0 where nothing of ours says one.
        is_paused: its processors stand still.
    """

    machine: Machine
    domain_id: int
    epoch: int
    is_paused: bool = False
    disks: tuple[DiskUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the lease: it runs here without one."""

    running: Running


@dataclass(frozen=True, slots=True)
class Free:
    """Give the lease back: its machine has ended."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Fence:
    """The machine here has lost its right."""

    running: Running
    lease: Lease

    @property
    def reason(self) -> str:
        """In a sentence without its end."""
        lease = self.lease
        who = f"node {lease.node_id} has it" if lease.is_held else "it was taken from this node"
        return f"{who} since epoch {lease.epoch}, here it runs by epoch {self.running.epoch}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another node has the lease, and nothing says that the machine here has lost it.

    With the holder's own epoch, while that is heard of, it is the other end of a migration.
    """

    running: Running
    lease: Lease
    is_migration: bool


@dataclass(frozen=True, slots=True)
class Keep:
    """The lease is this node's, as it should be."""

    running: Running
    lease: Lease


Finding = Claim | Free | Fence | Conflict | Keep


def reconcile(
    running: Mapping[str, Running],
    leases: Iterable[Lease],
    *,
    node_id: str,
    now_s: float,
    busy: Collection[str] = (),
) -> tuple[Finding, ...]:
    """What is to be done, by UUID.

    Args:
        running: all that runs here, by UUID.
        leases: those of this node, and those of what runs here.
        node_id: of this node.
        now_s: the clock of the leases.
        busy: UUIDs that are being started or stopped; nothing is done about them.
    """
    by_uuid = {lease.uuid: lease for lease in leases}
    found: list[Finding] = []
    for uuid in sorted({*running, *by_uuid} - set(busy)):
        here, lease = running.get(uuid), by_uuid.get(uuid)
        if here is not None:
            found.append(_judge(here, lease, node_id, now_s))
        elif lease is not None and _is_over(lease, node_id, now_s):
            found.append(Free(lease))
    return tuple(found)


def _judge(here: Running, lease: Lease | None, node_id: str, now_s: float) -> Finding:
    if lease is None:
        return Claim(here)
    if lease.is_held and lease.node_id == node_id:
        return Keep(here, lease)
    if here.epoch and here.epoch < lease.epoch:
        return Fence(here, lease)
    if not lease.is_held:
        return Claim(here)
    is_heard_of = lease.state(now_s) is LeaseState.HELD
    return Conflict(here, lease, is_migration=is_heard_of and here.epoch == lease.epoch)


def _is_over(lease: Lease, node_id: str, now_s: float) -> bool:
    is_ours = lease.is_held and lease.node_id == node_id
    return is_ours and now_s >= lease.acquired_s + SETTLE_S
