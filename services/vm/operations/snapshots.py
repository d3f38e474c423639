"""Snapshots taken, listed, gone back to and removed while the guest runs."""

from __future__ import annotations

import asyncio
import time
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import TypeVar

from protocol.errors import NovacronError
from services.vm.errors import LibvirtRefusedError
from services.vm.leases.model import Machine
from services.vm.leases.part import Leases
from services.vm.operations import snapshot_rules as rules
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.desk import Progress
from services.vm.operations.device_xml import read_disks
from services.vm.operations.driver import Driver, Guest
from services.vm.operations.errors import (
    NoSpaceError,
    OperationFailedError,
    OperationRefusedError,
)
from services.vm.operations.lifecycle import SAVE_TIMEOUT_S, SHORT_TIMEOUT_S, Lifecycle
from services.vm.operations.model import Outcome
from services.vm.operations.places import confine
from services.vm.operations.snapshot_driver import SnapshotDriver
from services.vm.operations.storage_model import (
    SnapshotCreateRequest,
    SnapshotKind,
    SnapshotList,
    SnapshotRecord,
    SnapshotRequest,
)

T = TypeVar("T")
_POLL_S = 0.1
# A guest that writes faster than the disk takes is never ready; its snapshot stays then.
PIVOT_TIMEOUT_S = 600.0


class Snapshots:
    """The operations; overlays and memory lie beside the disks, within ``roots``."""

    def __init__(
        self,
        driver: Driver,
        calls: DeadlineCalls,
        life: Lifecycle,
        roots: tuple[str, ...],
        leases: Leases,
    ) -> None:
        self._driver = driver
        self._snapshots = SnapshotDriver(driver)
        self._calls = calls
        self._life = life
        self._roots = roots
        self._leases = leases

    async def known(self, guest: Guest) -> SnapshotList:
        """All snapshots, the oldest first."""
        found = await self._records(guest)
        return SnapshotList(snapshots=rules.in_order(record for record, _ in found))

    async def create(
        self, guest: Guest, request: SnapshotCreateRequest, progress: Progress
    ) -> Outcome:
        """Take one.

        Raises:
            OperationRefusedError: the name is taken, the chain full, or the guest does not run
                and its memory is wanted.
            NoSpaceError: the disk is full; the guest goes on with the files it had.
        """
        guest = await self._life.look(guest.uuid)
        if request.kind is SnapshotKind.MEMORY and not guest.state.is_active:
            raise OperationRefusedError(f"{guest.name} does not run and has no memory to keep")
        if any(record.name == request.snapshot for record, _ in await self._records(guest)):
            raise OperationRefusedError(f"{guest.name} has a snapshot {request.snapshot} already")
        disks = read_disks(await self._xml(guest))
        plan = rules.plan_snapshot(request, guest.name, disks)
        made = [*plan.files.values(), *([plan.memory] if plan.memory else [])]
        await asyncio.to_thread(self._must_be_free, made)
        progress.step("taking it")
        work = partial(
            self._snapshots.create, guest.uuid, plan.xml, request.kind, quiesce=request.quiesce
        )
        try:
            await self._run(guest, "take a snapshot of", work, SAVE_TIMEOUT_S)
        except LibvirtRefusedError as exc:
            await self._clear(guest, made)
            if "space" in exc.message.lower():
                raise NoSpaceError(
                    f"no snapshot of {guest.name} was taken, there is no space left; "
                    "it goes on with the files it had"
                ) from exc
            raise
        await self._leases.refresh(Machine(uuid=guest.uuid, name=guest.name))
        return Outcome(
            note=f"{guest.name} has the snapshot {request.snapshot}", result=dict(plan.files)
        )

    async def revert(
        self, guest: Guest, request: SnapshotRequest, progress: Progress, *, by: str
    ) -> Outcome:
        """Go back to one, where libvirt can; what was written since is lost.

        A guest that is off may run afterwards, so it must have the right to.

        Raises:
            OperationRefusedError: there is none of that name, or libvirt can't.
        """
        record, _ = await self._record(guest, request.snapshot)
        progress.step("going back")
        work = partial(self._snapshots.revert, guest.uuid, request.snapshot)
        try:
            async with self._leases.starting(guest.uuid, by=by):
                await self._run(guest, "bring back", work, SAVE_TIMEOUT_S)
        except LibvirtRefusedError as exc:
            if record.kind is SnapshotKind.INTERNAL:
                raise
            raise OperationRefusedError(
                f"this libvirt can't go back to a snapshot of the kind {record.kind.value} "
                f"({exc.message}); {guest.name} is as it was"
            ) from exc
        return Outcome(note=f"{guest.name} is back at {request.snapshot}")

    async def delete(self, guest: Guest, request: SnapshotRequest, progress: Progress) -> Outcome:
        """Remove one and keep what was written since; the guest runs on meanwhile.

        Raises:
            OperationRefusedError: there is none of that name, or the guest does not run.
            DiskLeasedError: another guest's disk is an overlay of the file below, too.
            OperationFailedError: the disk does not keep up with the guest; the snapshot stays.
        """
        guest = await self._life.look(guest.uuid)
        record, memory = await self._record(guest, request.snapshot)
        if record.kind is not SnapshotKind.INTERNAL and not guest.state.is_active:
            raise OperationRefusedError(
                f"{guest.name} does not run: start it (paused will do) to remove the snapshot"
            )
        machine = Machine(uuid=guest.uuid, name=guest.name)
        gone = [memory] if memory else []
        for commit in rules.plan_removal(record, read_disks(await self._xml(guest))):
            progress.step(f"writing {commit.target} into the file below")
            below = f"<disk>{_file_source(commit.base)}</disk>"
            async with self._leases.adding(machine, below, has_below=True):
                await self._commit(guest, commit, progress)
            gone.append(commit.top)
        work = partial(
            self._snapshots.forget,
            guest.uuid,
            request.snapshot,
            with_content=record.kind is SnapshotKind.INTERNAL,
        )
        await self._run(guest, "remove a snapshot of", work, SAVE_TIMEOUT_S)
        await self._clear(guest, gone)
        await self._leases.refresh(machine)
        return Outcome(note=f"{guest.name} has the snapshot {request.snapshot} no more")

    async def _commit(self, guest: Guest, commit: rules.Commit, progress: Progress) -> None:
        ask = partial(self._snapshots.block_job, guest.uuid, commit.target)
        if await self._run(guest, "ask for the job of", ask) is None:
            begin = partial(self._snapshots.begin_commit, guest.uuid, commit)
            await self._run(guest, "begin to write back", begin)
        # Else one that was begun before, when this service or libvirt went: it is gone on with.
        try:
            await self._follow(guest, commit, progress)
        except (asyncio.CancelledError, OperationFailedError):
            abort = partial(self._snapshots.abort_block_job, guest.uuid, commit.target)
            await asyncio.shield(self._run(guest, "end the job of", abort))
            raise
        chains = {
            disk.target: (disk.file, *disk.backing) for disk in read_disks(await self._xml(guest))
        }
        if commit.top in chains.get(commit.target, ()):
            raise OperationFailedError(
                f"{commit.top} was not written into {commit.base}: is there room? The snapshot "
                "stays and the guest goes on"
            )

    async def _follow(self, guest: Guest, commit: rules.Commit, progress: Progress) -> None:
        ask = partial(self._snapshots.block_job, guest.uuid, commit.target)
        pivot = partial(self._snapshots.pivot, guest.uuid, commit.target)
        ready_s: float | None = None
        while (job := await self._run(guest, "ask for the job of", ask)) is not None:
            progress.at(job.fraction)
            if commit.is_active and job.total and job.done == job.total:
                ready_s = time.monotonic() if ready_s is None else ready_s
                if await self._run(guest, "move a disk of", pivot):
                    return
                if time.monotonic() - ready_s > PIVOT_TIMEOUT_S:
                    raise OperationFailedError(
                        f"{guest.name} writes faster than its disk takes; the snapshot stays"
                    )
            await asyncio.sleep(_POLL_S)

    async def _records(self, guest: Guest) -> tuple[tuple[SnapshotRecord, str], ...]:
        found = await self._run(guest, "look at", partial(self._snapshots.read, guest.uuid))
        return tuple(rules.parse_snapshot(xml, is_current=current) for xml, current in found)

    async def _record(self, guest: Guest, name: str) -> tuple[SnapshotRecord, str]:
        found = await self._records(guest)
        for record, memory in found:
            if record.name == name:
                return record, memory
        known = ", ".join(record.name for record, _ in found) or "none"
        raise OperationRefusedError(f"{guest.name} has no snapshot {name}; it has {known}")

    async def _xml(self, guest: Guest) -> str:
        return await self._run(guest, "look at", partial(self._driver.xml, guest.uuid))

    def _must_be_free(self, files: list[str]) -> None:
        for file in files:
            if confine(file, self._roots).exists():
                raise OperationRefusedError(
                    f"{file} is there already: name the snapshot otherwise, or remove the file"
                )

    async def _clear(self, guest: Guest, files: list[str]) -> None:
        """Remove files that the guest does not use, as far as they may be touched."""
        try:
            disks = read_disks(await self._xml(guest))
        except NovacronError:
            return  # rather a file too many than one that is needed
        used = {file for disk in disks for file in (disk.file, *disk.backing)}
        for file in files:
            if file not in used:
                place = await asyncio.to_thread(confine, file, self._roots)
                await asyncio.to_thread(_remove, place)

    async def _run(
        self, guest: Guest, verb: str, work: partial[T], timeout_s: float = SHORT_TIMEOUT_S
    ) -> T:
        return await self._calls.run(
            work, subject=guest.uuid, what=f"{verb} {guest.name}", timeout_s=timeout_s
        )


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _file_source(path: str) -> str:
    return ET.tostring(ET.Element("source", {"file": path}), encoding="unicode")
