"""Snapshots and block jobs, asked of libvirt. Adapter; every method blocks."""

from __future__ import annotations

from typing import Any

import libvirt

from services.vm.errors import LibvirtRefusedError
from services.vm.operations.driver import Driver, Job
from services.vm.operations.snapshot_rules import Commit
from services.vm.operations.storage_model import SnapshotKind

_COMMITS = (
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT,
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT,
)


class SnapshotDriver:
    """Errors are those of ``Driver.domain``."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def create(self, uuid: str, xml: str, kind: SnapshotKind, *, quiesce: bool) -> None:
        """Take a snapshot of all disks or none."""
        flags = 0
        if kind is not SnapshotKind.INTERNAL:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        if kind is SnapshotKind.DISK:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        if quiesce:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
        self._driver.act(uuid, "take a snapshot", lambda d: d.snapshotCreateXML(xml, flags))

    def read(self, uuid: str) -> tuple[tuple[str, bool], ...]:
        """The XML of each snapshot, and whether the guest goes on from it."""

        def work(domain: Any) -> tuple[tuple[str, bool], ...]:  # Any: libvirt.virDomain
            return tuple(
                (snapshot.getXMLDesc(0), bool(snapshot.isCurrent(0)))
                for snapshot in domain.listAllSnapshots(0)
            )

        found: tuple[tuple[str, bool], ...] = self._driver.act(uuid, "list its snapshots", work)
        return found

    def revert(self, uuid: str, name: str) -> None:
        """Bring the guest back to a snapshot."""

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            domain.revertToSnapshot(domain.snapshotLookupByName(name, 0), 0)

        self._driver.act(uuid, f"go back to {name}", work)

    def forget(self, uuid: str, name: str, *, with_content: bool) -> None:
        """Remove a snapshot; of an internal one also what it holds."""
        flags = 0 if with_content else libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            domain.snapshotLookupByName(name, 0).delete(flags)

        self._driver.act(uuid, f"remove {name}", work)

    def begin_commit(self, uuid: str, commit: Commit) -> None:
        """Begin to write an overlay into the file below it."""
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if commit.is_active else 0
        self._driver.act(
            uuid,
            f"write {commit.top} into {commit.base}",
            lambda d: d.blockCommit(commit.target, commit.base, commit.top, 0, flags),
        )

    def block_job(self, uuid: str, target: str) -> Job | None:
        """How far a disk's job is; None once there is none."""

        def work(domain: Any) -> Job | None:  # Any: libvirt.virDomain
            info = domain.blockJobInfo(target, 0)
            if not info:
                return None
            if info["type"] not in _COMMITS:
                raise LibvirtRefusedError(f"another job is under way on {target}; let it end first")
            return Job(done=int(info["cur"]), total=int(info["end"]))

        found: Job | None = self._driver.act(uuid, f"ask for the job of {target}", work)
        return found

    def pivot(self, uuid: str, target: str) -> bool:
        """Move the guest to the file below; False while the job is not that far."""

        def work(domain: Any) -> bool:  # Any: libvirt.virDomain
            try:
                domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            except libvirt.libvirtError as exc:
                if exc.get_error_code() == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
                    return False
                raise
            return True

        return bool(self._driver.act(uuid, f"move {target} to the file below", work))

    def abort_block_job(self, uuid: str, target: str) -> None:
        """End a disk's job; the guest goes on with the files it has."""
        self._driver.act(uuid, f"end the job of {target}", lambda d: d.blockJobAbort(target, 0))
