"""What this node remembers of its leases, and has in a file for when the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from services.vm.leases.model import DiskUse, Machine
from services.vm.leases.record import HeldLease, LeaseRecord, boot_id, read_record, write_record
from supervisor.child.service import ServiceContext


class Remembered:
    """The record of ``record``, read once and written at each change.

    Args:
        context: for the log.
        file: where it is.
        node_id: whose it is.
    """

    def __init__(self, context: ServiceContext, file: Path, node_id: str) -> None:
        self._context = context
        self._file = file
        self._node_id = node_id
        self._record: LeaseRecord | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> LeaseRecord:
        """All of it."""
        async with self._lock:
            return await self._read()

    async def held(self, uuid: str) -> HeldLease | None:
        """The lease of a machine."""
        return (await self.read()).held.get(uuid)

    async def put(self, machine: Machine, epoch: int, disks: Sequence[DiskUse]) -> None:
        """Remember a lease; who has one is not fenced."""
        lease = HeldLease(name=machine.name, epoch=epoch, disks=tuple(disks))
        async with self._lock:
            record = await self._read()
            held = {**record.held, machine.uuid: lease}
            fenced = {uuid: why for uuid, why in record.fenced.items() if uuid != machine.uuid}
            await self._keep(replace(record, held=held, fenced=fenced))

    async def drop(self, uuid: str, epoch: int) -> None:
        """Remember no lease of it, unless it has got another one since."""
        async with self._lock:
            record = await self._read()
            if uuid in record.held and record.held[uuid].epoch != epoch:
                return
            held = {key: lease for key, lease in record.held.items() if key != uuid}
            await self._keep(replace(record, held=held))

    async def set_fenced(self, fenced: Mapping[str, str]) -> None:
        """Remember which machines have lost their right, with the reasons; they have no lease."""
        async with self._lock:
            record = await self._read()
            held = {key: lease for key, lease in record.held.items() if key not in fenced}
            await self._keep(replace(record, held=held, fenced=dict(fenced)))

    async def _read(self) -> LeaseRecord:
        if self._record is None:
            try:
                self._record = await asyncio.to_thread(read_record, self._file, self._node_id)
            except ValueError as exc:
                self._context.log.warning("lease_record_refused", reason=str(exc))
                self._record = LeaseRecord(node_id=self._node_id, boot_id=boot_id())
        return self._record

    async def _keep(self, record: LeaseRecord) -> None:
        """Where it can't be written the right is none the less, while this process lives."""
        if record == self._record:
            return
        self._record = record
        try:
            await asyncio.to_thread(write_record, self._file, record)
        except OSError as exc:
            self._context.log.warning("lease_record_unwritten", reason=str(exc))
