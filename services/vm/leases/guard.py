"""The right to run a machine, asked for before it starts and given back when it has ended.

Order of a start: the disks are told from the XML, compared with what runs on this host and what is
being started, then the lease is taken, then the epoch is written into the definition, and then
libvirt is asked to start. A kill between any two of these leaves at most a lease without a guest,
which is freed when that is certain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from protocol.errors import NovacronError
from services.vm.documents.errors import DocumentElsewhereError, FencedError
from services.vm.errors import LibvirtLostError, LibvirtTimeoutError
from services.vm.leases import rules
from services.vm.leases.errors import (
    DiskLeasedError,
    LeasedElsewhereError,
    LeasesUnavailableError,
)
from services.vm.leases.host import Host
from services.vm.leases.locks import translate_lock
from services.vm.leases.model import Lease, Machine, Wanted
from services.vm.leases.reconcile import SETTLE_S
from services.vm.leases.remembered import Remembered
from services.vm.operations.errors import OperationRefusedError, OperationUnknownError
from supervisor.child.service import ServiceContext

if TYPE_CHECKING:
    from services.vm.leases.store import LeaseStore

_REFUSALS = (LeasedElsewhereError, DiskLeasedError, DocumentElsewhereError, LeasesUnavailableError)
_UNKNOWN = (OperationUnknownError, LibvirtLostError, LibvirtTimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The right to start a machine.

    Attributes:
        epoch: 0 on a node without a database.
        is_offline: by what this node remembers, as the database is away.
    """

    machine: Machine
    epoch: int
    is_offline: bool = False


class Guard:
    """Gives and takes the rights of this node.

    Args:
        context: for events and the log.
        node_id: of this node.
        store: the table; None on a node without a database, where only machines of the one host
            are kept apart.
        host: what runs here.
        remembered: for what is to be known while the database is away.
    """

    def __init__(
        self,
        context: ServiceContext,
        *,
        node_id: str,
        store: LeaseStore | None,
        host: Host,
        remembered: Remembered,
    ) -> None:
        self._context = context
        self._node_id = node_id
        self._store = store
        self._host = host
        self._remembered = remembered

    @asynccontextmanager
    async def starting(
        self, ref: str, *, by: str, takeover: bool = False, xml: str = ""
    ) -> AsyncIterator[Grant]:
        """Hold the right to start a machine while it is started.

        Where the start fails the right is given back; where nobody knows, it is kept until it is
        known. libvirt's words about a locked disk are made ours.

        Args:
            ref: name or UUID.
            by: who gave the order.
            takeover: see ``Wanted``.
            xml: what it is started by, where that is not its definition.

        Raises:
            OperationRefusedError: it is being moved.
            LeasedElsewhereError, DocumentElsewhereError, DiskLeasedError: it may not run here.
            LeasesUnavailableError: the database is away, and this node remembers no right.
            DiskLockedError: another program has a disk open.
        """
        host = self._host
        machine, text = await host.machine(ref, xml)
        if machine.uuid in host.unsettled:
            raise OperationRefusedError(
                f"{machine.name} is being moved, and it is not known yet on which node it is"
            )
        disks = await host.run(partial(host.driver.uses, text), machine, "look at its disks")
        wanted = Wanted(
            machine=machine, node_id=self._node_id, by=by, takeover=takeover, disks=disks
        )
        async with self.refusing(machine), host.entering(machine, disks):
            grant = await self._take(wanted)
            try:
                if grant.epoch and not xml:
                    announce = partial(host.driver.announce_epoch, machine.uuid, grant.epoch)
                    await host.run(announce, machine, "write its epoch")
                yield grant
            except _UNKNOWN:
                raise
            except NovacronError as exc:
                await self._settle(grant)
                locked = translate_lock(exc, machine.name)
                if locked is not None:
                    raise locked from exc
                raise
            await self._settle(grant)

    @asynccontextmanager
    async def adding(
        self, machine: Machine, devices_xml: str, *, has_below: bool = False
    ) -> AsyncIterator[None]:
        """Hold the right to further disks of a machine that runs, while they are attached.

        Args:
            machine: which.
            devices_xml: the disks.
            has_below: it reads them already, as what its disks are overlays of, and is to write.

        Raises:
            DiskLeasedError: another machine uses one of them.
            LeasesUnavailableError: the database is away.
        """
        host = self._host
        text = f"<domain><devices>{devices_xml}</devices></domain>"
        more = await host.run(partial(host.driver.uses, text), machine, "look at the disk")
        here = (await host.look()).get(machine.uuid)
        disks = more if here is None else (*here.disks, *more)
        disks = rules.strictest(disks) if has_below else disks
        async with self.refusing(machine), host.entering(machine, disks):
            held = await self._remembered.held(machine.uuid)
            if self._store is not None and here is not None and held is not None:
                await self._store.set_disks(
                    machine.uuid, node_id=self._node_id, epoch=held.epoch, disks=disks
                )
                await self._remembered.put(machine, held.epoch, rules.merged(disks))
            try:
                yield
            except NovacronError:
                await self.refresh(machine)
                raise

    async def refresh(self, machine: Machine) -> None:
        """Have the lease say what disks the machine uses by now; later, where it can't be now."""
        host, uuid = self._host, machine.uuid
        host.running.pop(uuid, None)
        held = await self._remembered.held(uuid)
        if held is None or self._store is None:
            return
        try:
            here = (await host.look()).get(uuid)
            if here is not None and here.disks != held.disks:
                await self._store.set_disks(
                    uuid, node_id=self._node_id, epoch=held.epoch, disks=here.disks
                )
                await self._remembered.put(machine, held.epoch, here.disks)
        except NovacronError as exc:
            self._context.log.warning("lease_disks_refused", vm=machine.name, reason=exc.message)

    async def ended(self, uuid: str) -> None:
        """Give back the lease of a machine that has stopped; nothing where it has not.

        While the database is away the lease is kept, and given back later.
        """
        host = self._host
        host.running.pop(uuid, None)
        async with host.one_at_a_time(uuid):
            held = await self._remembered.held(uuid)
            if held is None or uuid in host.busy:
                return
            machine = Machine(uuid=uuid, name=held.name)
            try:
                active = partial(host.driver.is_active, uuid)
                if not await host.run(active, machine, "look at it"):
                    await self.release(machine, held.epoch)
            except NovacronError as exc:
                self._context.log.warning("lease_kept", vm=held.name, reason=exc.message)

    async def check_resume(self, ref: str) -> None:
        """Refuse a paused machine that has lost its right.

        While the database is away it may go on: it has its disks since it was started, and nothing
        says that it lost them.

        Raises:
            FencedError: it was taken over meanwhile.
            LeasedElsewhereError: another node has it.
        """
        machine, _ = await self._host.machine(ref)
        why = (await self._remembered.read()).fenced.get(machine.uuid)
        if why is not None:
            raise FencedError(f"{machine.name} is fenced: {why}")
        if self._store is None:
            return
        try:
            lease = await self._store.read(machine.uuid)
        except LeasesUnavailableError:
            return
        if lease is None or (lease.is_held and lease.node_id == self._node_id):
            return
        here = (await self._host.look()).get(machine.uuid)
        if here is not None and 0 < here.epoch < lease.epoch:
            raise FencedError(
                f"{machine.name} was taken over in epoch {lease.epoch}, and runs here by epoch "
                f"{here.epoch}: its disks are node {lease.node_id}'s",
                epoch=lease.epoch,
            )
        if lease.is_held:
            raise rules.held_elsewhere(lease)

    async def release(self, machine: Machine, epoch: int) -> None:
        """Free a lease of this node."""
        if self._store is not None:
            freed = await self._store.release(machine.uuid, node_id=self._node_id, epoch=epoch)
            if freed:
                self._context.emit("vm:lease-freed", vm=machine.name, uuid=machine.uuid)
        await self._remembered.drop(machine.uuid, epoch)

    @asynccontextmanager
    async def refusing(self, machine: Machine) -> AsyncIterator[None]:
        """Tell of a refusal."""
        try:
            yield
        except _REFUSALS as exc:
            fields = {"vm": machine.name, "uuid": machine.uuid, "code": exc.code}
            self._context.emit("vm:lease-refused", **fields, reason=exc.message)
            self._context.log.warning("lease_refused", **fields, reason=exc.message)
            raise

    async def _take(self, wanted: Wanted) -> Grant:
        machine = wanted.machine
        if self._store is None:
            return Grant(machine=machine, epoch=0)
        try:
            lease = await self.acquire(wanted)
        except LeasesUnavailableError as exc:
            epoch = (await self._remembered.read()).allows(machine, wanted.disks)
            if epoch:
                return Grant(machine=machine, epoch=epoch, is_offline=True)
            raise LeasesUnavailableError(
                f"{exc.message}; nothing says here that {machine.name} runs nowhere else, so it "
                "can be started when the database is back"
            ) from exc
        return Grant(machine=machine, epoch=lease.epoch)

    async def acquire(self, wanted: Wanted) -> Lease:
        """Take a lease, remember it and tell of it.

        Raises:
            LeasedElsewhereError, DocumentElsewhereError, DiskLeasedError: another has it.
            LeasesUnavailableError: the database is away.
        """
        assert self._store is not None
        here = self._host.running.get(wanted.machine.uuid)
        wanted = replace(wanted, epoch_seen=0 if here is None else here.epoch)
        try:
            granted = await self._store.acquire(wanted)
        except DiskLeasedError as exc:
            if not await self._free_ended(exc):
                raise
            granted = await self._store.acquire(wanted)
        for gone in granted.freed:
            self._context.log.warning("lease_taken_away", vm=gone.name, node_id=gone.node_id)
        lease = granted.lease
        await self._remembered.put(wanted.machine, lease.epoch, rules.merged(wanted.disks))
        fields = {"vm": lease.name, "uuid": lease.uuid, "epoch": lease.epoch}
        self._context.emit("vm:leased", **fields, caller=wanted.by, takeover=wanted.takeover)
        return lease

    async def _free_ended(self, error: DiskLeasedError) -> bool:
        """Free a lease of this node whose machine has ended without its being noticed."""
        assert self._store is not None
        uuid, host = str(error.fields.get("uuid", "")), self._host
        is_own = error.fields.get("node_id") == self._node_id
        if not is_own or uuid in await host.look() or uuid in host.busy:
            return False
        reading = await self._store.renew(self._node_id)
        for lease in reading.leases:
            if lease.uuid == uuid and reading.now_s >= lease.acquired_s + SETTLE_S:
                await self.release(Machine(uuid=uuid, name=lease.name), lease.epoch)
                return True
        return False

    async def _settle(self, grant: Grant) -> None:
        """After an attempt to start: what runs has the epoch, what does not has no lease.

        What can't be settled is later: what runs is leased, and what is leased and does not run is
        freed in time.
        """
        machine, host = grant.machine, self._host
        if not grant.epoch:
            return
        settle = partial(host.driver.settle_epoch, machine.uuid, grant.epoch)
        try:
            if not await host.run(settle, machine, "write its epoch") and not grant.is_offline:
                await self.release(machine, grant.epoch)
        except NovacronError as exc:
            self._context.log.warning("lease_unsettled", vm=machine.name, reason=exc.message)
