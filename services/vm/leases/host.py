"""What runs on this host, what is about to, and whether their disks go together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar
from xml.etree import ElementTree as ET

from services.vm.leases import rules
from services.vm.leases.driver import LeaseDriver
from services.vm.leases.model import DiskUse, Lease, Machine, Wanted
from services.vm.leases.reconcile import Running
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.errors import OperationUnknownError
from supervisor.child.service import ServiceContext

# A few hundred domains are read, and their files looked at on storage that may be slow.
LOOK_TIMEOUT_S = 30.0
SHORT_TIMEOUT_S = 15.0
T = TypeVar("T")


class Host:
    """Asks libvirt, each call within its deadline.

    Args:
        context: for the log.
        node_id: of this node.
        driver: closed with this.
        changed: called when ``reason`` may be another.

    Attributes:
        running: what ran when it was last looked at, by UUID.
        busy: what is being started or moved, with the disks that it will use.
        unsettled: machines of which it is not known on which of two nodes they are, by UUID.
    """

    def __init__(
        self,
        context: ServiceContext,
        *,
        node_id: str,
        driver: LeaseDriver,
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._node_id = node_id
        self.driver = driver
        self._calls = DeadlineCalls(changed)
        self._entry = asyncio.Lock()
        self._alone: dict[str, tuple[asyncio.Lock, int]] = {}
        self.running: dict[str, Running] = {}
        self.busy: dict[str, tuple[Machine, tuple[DiskUse, ...]]] = {}
        self.unsettled: set[str] = set()

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" when all answers came."""
        return self._calls.reason

    async def close(self) -> None:
        """Close the connection."""
        await self._calls.abandon(self.driver.close)

    @asynccontextmanager
    async def entering(self, machine: Machine, disks: tuple[DiskUse, ...]) -> AsyncIterator[None]:
        """Have a machine among the busy ones; a second one waits for the first.

        Raises:
            DiskLeasedError: another machine of this host uses one of the disks.
        """
        async with self.one_at_a_time(machine.uuid):
            async with self._entry:
                await self.check(Wanted(machine=machine, node_id=self._node_id, disks=disks))
                self.busy[machine.uuid] = machine, disks
            try:
                yield
            finally:
                self.busy.pop(machine.uuid, None)
                self.running.pop(machine.uuid, None)  # it is another run, or has other disks

    async def look(self, *, is_afresh: bool = False) -> dict[str, Running]:
        """What runs now.

        Args:
            is_afresh: also what is known is read again, as its disks may be others by now.
        """
        known = {} if is_afresh else dict(self.running)
        found = await self._calls.run(
            partial(self.driver.look, known),
            subject="leases",
            what="read what runs here",
            timeout_s=LOOK_TIMEOUT_S,
        )
        self.running = found.running
        for uuid, reason in found.faults.items():
            self._context.log.warning("disks_unknown", uuid=uuid, reason=reason)
        return found.running

    async def check(self, wanted: Wanted) -> None:
        """Compare a machine's disks with those of what runs or is about to.

        Raises:
            DiskLeasedError: another machine uses one of them.
        """
        rules.merged(wanted.disks)
        try:
            running = await self.look()
        except OperationUnknownError:  # storage that hangs under one machine keeps no other
            running = self.running
        users = [(here.machine, here.disks) for here in running.values()]
        users += self.busy.values()
        others = [
            rules.OtherUse(lease=_as_lease(machine, self._node_id), use=use)
            for machine, uses in users
            for use in uses
        ]
        rules.check_disks(wanted, others, 0.0)

    async def machine(self, ref: str, xml: str = "") -> tuple[Machine, str]:
        """A machine by name or UUID, and the XML that it would be started by.

        Args:
            ref: name or UUID.
            xml: where that is known.
        """
        if xml:
            root = ET.fromstring(xml)  # noqa: S314 - libvirt's answer
            name, uuid = root.findtext("name") or "", root.findtext("uuid") or ""
            return Machine(uuid=uuid, name=name), xml
        return await self._calls.run(
            partial(self.driver.definition, ref),
            subject=ref,
            what=f"read the definition of {ref}",
            timeout_s=SHORT_TIMEOUT_S,
        )

    async def run(self, work: Callable[[], T], machine: Machine, what: str) -> T:
        """Run a blocking call about a machine."""
        return await self._calls.run(
            work,
            subject=machine.uuid,
            what=f"{what} ({machine.name})",
            timeout_s=SHORT_TIMEOUT_S,
        )

    @asynccontextmanager
    async def one_at_a_time(self, uuid: str) -> AsyncIterator[None]:
        """Have nobody else change anything about a machine's lease."""
        lock, users = self._alone.get(uuid, (asyncio.Lock(), 0))
        self._alone[uuid] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._alone.pop(uuid)
            if users > 1:
                self._alone[uuid] = lock, users - 1


def _as_lease(machine: Machine, node_id: str) -> Lease:
    return Lease(
        uuid=machine.uuid,
        name=machine.name,
        node_id=node_id,
        epoch=1,
        is_held=True,
        acquired_s=0.0,
        renewed_s=0.0,
        expires_s=1.0,
    )
