"""Who gets a lease, and when one is lost. Pure; used inside the table's transactions.

A lease is one of three: held (renewed in time), expired, free.

    free     -> held      any node
    held     -> held      its own node: a restart; or ``hand_over`` to another, by the holder
    held     -> free      its own node, when the guest has ended
    expired  -> held      its own node; another one only by takeover
    expired  -> free      its own node; another one only by takeover

Each arrow to ``held`` that gives a right raises the epoch by one at least, and so does taking a
right away by takeover. Invariants: the epoch of a machine never falls; an epoch is given to one
node; a right is taken from a node only by itself, or after its lease ran out and a person has said
that the host is off, as a guest runs on when its platform dies.

Source: fencing tokens as in Burrows, The Chubby lock service (OSDI 2006), 2.4 "sequencers".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.vm.leases.errors import DiskLeasedError, LeasedElsewhereError, LeaseLostError
from services.vm.leases.model import LEASE_TTL_S, DiskMode, DiskUse, Lease, LeaseState, Wanted

_MINUTE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherUse:
    """A disk that another machine uses, and the lease that it does so by."""

    lease: Lease
    use: DiskUse


def grant(lease: Lease | None, wanted: Wanted, now_s: float, ttl_s: float = LEASE_TTL_S) -> Lease:
    """The lease that the node gets.

    Args:
        lease: as it is; None where the machine never had one.
        wanted: by whom, and how.
        now_s: the table's clock.
        ttl_s: how long it lasts without being renewed.

    Raises:
        LeasedElsewhereError: another node has it.
    """
    known = 0
    if lease is not None:
        known = lease.epoch
        if lease.is_held and lease.node_id != wanted.node_id:
            _check_takeover(lease, wanted, now_s)
    return Lease(
        uuid=wanted.machine.uuid,
        name=wanted.machine.name,
        node_id=wanted.node_id,
        epoch=max(known, wanted.epoch_seen) + 1,
        is_held=True,
        acquired_s=now_s,
        renewed_s=now_s,
        expires_s=now_s + ttl_s,
        acquired_by=wanted.by,
    )


def check_disks(wanted: Wanted, others: Iterable[OtherUse], now_s: float) -> tuple[Lease, ...]:
    """Whether the machine may use its disks so.

    Args:
        wanted: with its disks.
        others: uses of the same keys by other machines.
        now_s: the table's clock.

    Returns:
        Leases that are free from now on, as a takeover says that their hosts are off.

    Raises:
        DiskLeasedError: one of them stands against it.
    """
    modes = {use.key: use for use in wanted.disks}
    freed: dict[str, Lease] = {}
    for other in others:
        mine = modes.get(other.use.key)
        is_own = other.lease.uuid == wanted.machine.uuid
        if mine is None or is_own or not other.lease.is_held:
            continue
        if mine.mode.is_compatible(other.use.mode):
            continue
        is_gone = other.lease.state(now_s) is LeaseState.EXPIRED
        if wanted.takeover and is_gone and other.lease.node_id != wanted.node_id:
            freed[other.lease.uuid] = take_away(other.lease)
            continue
        raise _disk_refused(wanted, mine, other, now_s)
    return tuple(freed.values())


def take_away(lease: Lease) -> Lease:
    """A lease that nobody has any more; whoever had it is fenced by the epoch."""
    return replace(lease, is_held=False, epoch=lease.epoch + 1)


def hand_over(
    lease: Lease | None,
    *,
    uuid: str,
    from_node: str,
    to_node: str,
    epoch: int,
    now_s: float,
    ttl_s: float = LEASE_TTL_S,
) -> Lease:
    """The lease as the other node has it; asked again, it is the same.

    Args:
        lease: as it is.
        uuid: the machine's.
        from_node: who has it.
        to_node: who gets it.
        epoch: that ``from_node`` holds it by.
        now_s: the table's clock.
        ttl_s: how long it lasts without being renewed.

    Raises:
        LeaseLostError: ``from_node`` has no such lease; nothing is changed.
    """
    if lease is not None and lease.is_held:
        if lease.node_id == to_node and lease.epoch == epoch + 1:
            return lease
        if lease.node_id == from_node and lease.epoch == epoch:
            return replace(
                lease,
                node_id=to_node,
                epoch=epoch + 1,
                acquired_s=now_s,
                renewed_s=now_s,
                expires_s=now_s + ttl_s,
            )
    raise lost(lease, uuid, from_node, epoch)


def held_elsewhere(lease: Lease, *, is_takeover: bool = False) -> LeasedElsewhereError:
    """The error for a machine that another node has, which is heard of."""
    advice = "stop it there first"
    if is_takeover:
        advice = "a takeover is for a host that is off, and this one is heard of"
    return LeasedElsewhereError(
        f"{lease.name} belongs to node {lease.node_id} since {moment(lease.acquired_s)} "
        f"(epoch {lease.epoch}): {advice}",
        is_expired=False,
        node_id=lease.node_id,
        epoch=lease.epoch,
        since_s=lease.acquired_s,
    )


def lost(lease: Lease | None, uuid: str, node_id: str, epoch: int) -> LeaseLostError:
    """The error for a right that a node has not, or no longer."""
    if lease is None:
        return LeaseLostError(f"there is no lease of the machine {uuid}", uuid=uuid)
    words = f"is held by node {lease.node_id}" if lease.is_held else "is free"
    return LeaseLostError(
        f"the lease of {lease.name} {words} in epoch {lease.epoch}, and not held by {node_id} in "
        f"epoch {epoch}",
        uuid=uuid,
        node_id=lease.node_id,
        epoch=lease.epoch,
    )


def merged(disks: Sequence[DiskUse]) -> tuple[DiskUse, ...]:
    """A machine's own uses, each key once, in their order.

    Raises:
        DiskLeasedError: it has the same disk twice, and would write it.
    """
    found: dict[str, DiskUse] = {}
    for use in disks:
        known = found.setdefault(use.key, use)
        if known is not use and not known.mode.is_compatible(use.mode):
            raise DiskLeasedError(
                f"{known.path} and {use.path} are the same disk, and the machine would write it: "
                "name it once",
                path=use.path,
            )
    return strictest(disks)


def strictest(disks: Iterable[DiskUse]) -> tuple[DiskUse, ...]:
    """Each key once, in their order, by the use that leaves others the least."""
    order = list(DiskMode)
    found: dict[str, DiskUse] = {}
    for use in disks:
        known = found.get(use.key)
        if known is None or order.index(use.mode) > order.index(known.mode):
            found[use.key] = use
    return tuple(found[key] for key in sorted(found))


def _check_takeover(lease: Lease, wanted: Wanted, now_s: float) -> None:
    if lease.state(now_s) is LeaseState.HELD:
        raise held_elsewhere(lease, is_takeover=wanted.takeover)
    if not wanted.takeover:
        raise LeasedElsewhereError(
            f"{lease.name} belongs to node {lease.node_id} since {moment(lease.acquired_s)} (epoch "
            f"{lease.epoch}), which has not been heard of for {span(now_s - lease.renewed_s)}; its "
            "guest may run on. Make sure that the host is off, then say so with --takeover",
            is_expired=True,
            node_id=lease.node_id,
            epoch=lease.epoch,
            since_s=lease.acquired_s,
        )


def _disk_refused(wanted: Wanted, mine: DiskUse, other: OtherUse, now_s: float) -> DiskLeasedError:
    lease = other.lease
    where = "here" if lease.node_id == wanted.node_id else f"on node {lease.node_id}"
    verb = {"read": "reads", "shared": "shares", "write": "writes"}[other.use.mode.value]
    path = "" if other.use.path == mine.path else f" as {other.use.path}"
    text = f"{mine.path}: {lease.name} {verb} it {where}{path}"
    if lease.state(now_s) is LeaseState.EXPIRED and lease.node_id != wanted.node_id:
        text += (
            f", and that node has not been heard of for {span(now_s - lease.renewed_s)}: make sure "
            "that the host is off, then say so with --takeover"
        )
    else:
        text += "; two guests would destroy it: stop that one first"
    return DiskLeasedError(
        text, path=mine.path, other=lease.name, uuid=lease.uuid, node_id=lease.node_id
    )


def moment(time_s: float) -> str:
    """A time for messages."""
    return dt.datetime.fromtimestamp(time_s, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """A duration for messages."""
    if seconds < 2 * _MINUTE_S:
        return f"{max(seconds, 0.0):.0f} s"
    minutes = int(seconds // _MINUTE_S)
    return f"{minutes} min" if minutes < 2 * _MINUTE_S else f"{minutes // _MINUTE_S} h"
