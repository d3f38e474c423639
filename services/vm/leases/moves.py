"""Machines that go to another node, or come from one: what is left alone, and who has it then."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from services.vm.leases import rules
from services.vm.leases.guard import Guard
from services.vm.leases.host import Host
from services.vm.leases.model import BY_NODE, Machine, Wanted
from services.vm.leases.reconcile import Running
from services.vm.leases.remembered import Remembered
from supervisor.child.service import ServiceContext

if TYPE_CHECKING:
    from services.vm.leases.store import LeaseStore


class Moves:
    """What a migration asks; see ``Guard`` for the arguments."""

    def __init__(
        self,
        context: ServiceContext,
        *,
        node_id: str,
        store: LeaseStore | None,
        host: Host,
        guard: Guard,
        remembered: Remembered,
    ) -> None:
        self._context = context
        self._node_id = node_id
        self._store = store
        self._host = host
        self._guard = guard
        self._remembered = remembered

    async def claim(self, machine: Machine) -> int:
        """The epoch that this node has a running machine by; taken where nobody has it.

        From then on until ``leave`` nothing is done about it here.

        Raises:
            LeasedElsewhereError: another node has it.
            LeasesUnavailableError: the database is away.
        """
        host, uuid = self._host, machine.uuid
        async with host.one_at_a_time(uuid):
            here = (await host.look()).get(uuid)
            host.busy[uuid] = machine, () if here is None else here.disks
            try:
                return await self._claim(machine, here)
            except BaseException:
                self._watch_again(uuid)  # what is held stays so: it may run elsewhere
                raise

    async def hand_over(self, uuid: str, *, to_node: str, epoch: int) -> None:
        """Give lease and document to another node; see ``LeaseStore.hand_over``."""
        if self._store is None or not epoch:
            return
        lease = await self._store.hand_over(
            uuid, from_node=self._node_id, to_node=to_node, epoch=epoch
        )
        await self._remembered.drop(uuid, epoch)
        fields = {"vm": lease.name, "uuid": uuid, "node": to_node, "epoch": lease.epoch}
        self._context.emit("vm:lease-handed-over", **fields)

    def hold(self, uuid: str) -> None:
        """Have it started by nobody until ``leave``: it may run on another node."""
        self._host.unsettled.add(uuid)

    def leave(self, uuid: str) -> None:
        """It is looked at here again, and may be started."""
        self._host.unsettled.discard(uuid)
        self._watch_again(uuid)

    def _watch_again(self, uuid: str) -> None:
        self._host.busy.pop(uuid, None)
        self._host.running.pop(uuid, None)

    async def _claim(self, machine: Machine, here: Running | None) -> int:
        host, uuid = self._host, machine.uuid
        if self._store is None:
            return 0
        lease = await self._store.read(uuid)
        if lease is None or not lease.is_held:
            _, disks = host.busy[uuid]
            wanted = Wanted(machine=machine, node_id=self._node_id, by=BY_NODE, disks=disks)
            lease = await self._guard.acquire(wanted)
        elif lease.node_id != self._node_id:
            raise rules.held_elsewhere(lease)
        if here is not None and here.epoch != lease.epoch:
            settle = partial(host.driver.settle_epoch, uuid, lease.epoch)
            await host.run(settle, machine, "write its epoch")
        return lease.epoch
