"""Renews the leases of this node, and finds what runs here without one or has lost it.

One look takes two statements, however many machines there are. Losing the database is degraded:
nothing is taken from a machine for it, as nobody can have said that it is another's.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import assert_never

from protocol.errors import NovacronError
from services.vm.leases.guard import Guard
from services.vm.leases.host import Host
from services.vm.leases.model import BY_NODE, FenceAction, Lease, Machine, Wanted
from services.vm.leases.reconcile import (
    Claim,
    Conflict,
    Fence,
    Finding,
    Free,
    Keep,
    Running,
    reconcile,
)
from services.vm.leases.remembered import Remembered
from services.vm.leases.store import LeaseStore, Reading
from supervisor.child.service import ServiceContext

# Disks that were attached past the platform are found by reading all XML again, now and then.
_READ_AGAIN_EACH = 3


class Watch:
    """The background of ``Guard``; ``look`` is called from time to time.

    Args:
        context: for events and the log.
        node_id: of this node.
        store: the table.
        host: what runs here.
        guard: takes and frees leases.
        remembered: leases and losses of this node.
        action: what is done to a machine that has lost its right.
    """

    def __init__(
        self,
        context: ServiceContext,
        *,
        node_id: str,
        store: LeaseStore,
        host: Host,
        guard: Guard,
        remembered: Remembered,
        action: FenceAction,
    ) -> None:
        self._context = context
        self._node_id = node_id
        self._store = store
        self._host = host
        self._guard = guard
        self._remembered = remembered
        self._action = action
        self._looks = 0
        self._lost = ""
        self.fenced: dict[str, str] = {}
        self.unleased: dict[str, str] = {}

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" while it is not."""
        if self._lost:
            return f"leases of machines are not renewed, guests run on: {self._lost}"
        if self.fenced:
            name, why = next(iter(self.fenced.values())).split(": ", 1)
            more = f", and {len(self.fenced) - 1} more" if len(self.fenced) > 1 else ""
            return f"{name} is fenced: {why}{more}"
        return ""

    async def look(self) -> None:
        """Renew, and do what follows from what is found.

        Errors of libvirt are the host's to tell of; it is looked at again the next time.
        """
        is_afresh = self._looks % _READ_AGAIN_EACH == 0
        self._looks += 1
        running: dict[str, Running] | None = None
        try:
            running = dict(await self._host.look(is_afresh=is_afresh))
        except NovacronError as exc:
            self._context.log.debug("leases_unlooked", reason=exc.message)
        reading = await self._renew(running or {})
        if reading is None or running is None:
            return
        found = reconcile(
            running,
            reading.leases,
            node_id=self._node_id,
            now_s=reading.now_s,
            busy={*self._host.busy, *self._host.unsettled},
        )
        unleased: dict[str, str] = {}
        fenced: dict[str, str] = {}
        for finding in found:
            await self._follow(finding, unleased, fenced)
        self._tell_unleased(unleased)
        self.fenced = fenced
        await self._remembered.set_fenced(fenced)

    async def _renew(self, running: Collection[str]) -> Reading | None:
        try:
            if self._looks == 1:
                await self._store.prune()
            reading = await self._store.renew(self._node_id, running)
        except NovacronError as exc:
            if not self._lost:
                self._context.log.warning("leases_not_renewed", reason=exc.message)
            self._lost = exc.message
            return None
        self._lost = ""
        return reading

    async def _follow(
        self, finding: Finding, unleased: dict[str, str], fenced: dict[str, str]
    ) -> None:
        match finding:
            case Claim(here):
                why = await self._claim(here)
                if why:
                    unleased[here.machine.uuid] = f"{here.machine.name}: {why}"
            case Keep(here, lease):
                await self._keep(here, lease)
            case Free(lease):
                await self._free(lease)
            case Conflict(here, lease, is_migration):
                if not is_migration:
                    why = f"node {lease.node_id} has it in epoch {lease.epoch}, and it runs here"
                    unleased[here.machine.uuid] = f"{here.machine.name}: {why} as well"
            case Fence(here, _):
                if await self._fence(finding):
                    fenced[here.machine.uuid] = f"{here.machine.name}: {finding.reason}"
            case _:
                assert_never(finding)

    async def _claim(self, here: Running) -> str:
        """Take the lease of what runs already; returns why it has none."""
        machine = here.machine
        wanted = Wanted(machine=machine, node_id=self._node_id, by=BY_NODE, disks=here.disks)
        try:
            async with self._host.one_at_a_time(machine.uuid):
                if machine.uuid in {*self._host.busy, *self._host.unsettled}:
                    return ""  # who makes it busy takes the lease too
                active = partial(self._host.driver.is_active, machine.uuid)
                if not await self._host.run(active, machine, "look at it"):
                    return ""  # it has ended since it was looked at
                lease = await self._guard.acquire(wanted)
                settle = partial(self._host.driver.settle_epoch, machine.uuid, lease.epoch)
                if not await self._host.run(settle, machine, "write its epoch"):
                    await self._guard.release(machine, lease.epoch)  # it has ended meanwhile
        except NovacronError as exc:
            return exc.message
        finally:
            self._host.running.pop(machine.uuid, None)
        return ""

    async def _keep(self, here: Running, lease: Lease) -> None:
        machine = here.machine
        held = await self._remembered.held(machine.uuid)
        is_known = held is not None and held.epoch == lease.epoch and held.disks == here.disks
        if is_known and here.epoch == lease.epoch:
            return
        try:
            if here.epoch != lease.epoch:
                settle = partial(self._host.driver.settle_epoch, machine.uuid, lease.epoch)
                await self._host.run(settle, machine, "write its epoch")
                self._host.running.pop(machine.uuid, None)
            if not is_known:
                await self._store.set_disks(
                    machine.uuid, node_id=self._node_id, epoch=lease.epoch, disks=here.disks
                )
                await self._remembered.put(machine, lease.epoch, here.disks)
        except NovacronError as exc:
            self._context.log.warning("lease_disks_refused", vm=machine.name, reason=exc.message)

    async def _free(self, lease: Lease) -> None:
        machine = Machine(uuid=lease.uuid, name=lease.name)
        try:
            active = partial(self._host.driver.is_active, lease.uuid)
            if not await self._host.run(active, machine, "look at it"):
                await self._guard.release(machine, lease.epoch)
        except NovacronError as exc:
            self._context.log.warning("lease_kept", vm=lease.name, reason=exc.message)

    async def _fence(self, found: Fence) -> bool:
        """Keep it from its disks; False where it is gone or has its right again."""
        machine, uuid = found.running.machine, found.running.machine.uuid
        fence = partial(self._host.driver.fence, uuid, found.lease.epoch, self._action)
        try:
            is_fenced = await self._host.run(fence, machine, "fence it")
        except NovacronError as exc:
            self._context.log.error("fence_failed", vm=machine.name, reason=exc.message)
            is_fenced = True
        finally:
            self._host.running.pop(uuid, None)
        if is_fenced and uuid not in self.fenced:
            fields = {"vm": machine.name, "uuid": uuid, "action": self._action.value}
            self._context.emit("vm:fenced", **fields, reason=found.reason)
            self._context.log.error("vm_fenced", **fields, reason=found.reason)
        return is_fenced

    def _tell_unleased(self, unleased: dict[str, str]) -> None:
        for uuid, why in unleased.items():
            if self.unleased.get(uuid) != why:
                name, _, reason = why.partition(": ")
                fields = {"vm": name, "uuid": uuid, "code": "vm.unleased"}
                self._context.emit("vm:lease-refused", **fields, reason=reason)
                self._context.log.warning("vm_unleased", **fields, reason=reason)
        self.unleased = unleased
