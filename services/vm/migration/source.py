"""The guest's own side: what is known of it, the sending, its figures and limits. Adapter.

Every method blocks, ``migrate`` for as long as it takes.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import libvirt
import libvirt_qemu

from services.vm.domains import state_from_libvirt
from services.vm.migration.checks import SourceFacts
from services.vm.migration.model import (
    BANDWIDTH_UNIT,
    Compression,
    Figures,
    MigrateRequest,
)
from services.vm.migration.needs import NeededDisk, read_needs
from services.vm.migration.routes import Route
from services.vm.model import DomainState
from services.vm.operations.driver import Driver

# libvirt's largest number of MiB per second, which is no limit.
_NO_LIMIT = (1 << 63) // BANDWIDTH_UNIT - 1
_MOVABLE = (DomainState.RUNNING, DomainState.BLOCKED, DomainState.PAUSED)


class SourceDriver:
    """Errors are those of ``Driver.domain``."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def facts(self, uuid: str) -> SourceFacts:
        """All that the checks want to know.

        Raises:
            ValueError: libvirt's XML is none.
        """
        connection = self._driver.connection()
        with self._driver.domain(uuid, "look at it") as domain:
            state, _ = state_from_libvirt(*domain.state())
            needs = read_needs(domain.XMLDesc(0))
            sizes, used = {}, {}
            for disk in needs.disks if domain.isActive() else ():
                sizes[disk.target], used[disk.target], _ = map(int, domain.blockInfo(disk.target))
            return SourceFacts(
                needs=needs,
                state=state.value,
                can_move=state in _MOVABLE,
                is_paused=state is DomainState.PAUSED,
                is_persistent=bool(domain.isPersistent()),
                snapshots=_snapshots(domain),
                version=int(connection.getVersion()),
                libvirt_version=int(connection.getLibVersion()),
                host_uuid=host_uuid(connection),
                disk_bytes=sizes,
                disk_used_bytes=used,
            )

    def migrate(
        self, uuid: str, route: Route, request: MigrateRequest, copied: Sequence[NeededDisk]
    ) -> None:
        """Send the guest; returns once the target holds it, and this side has ended.

        The target does not let it go on by itself: see ``truth``.

        Raises:
            LibvirtRefusedError, LibvirtLostError: it was not sent, or nobody knows.
        """
        parameters: dict[str, Any] = {}  # Any: libvirt's typed parameters
        if request.bandwidth_bytes_s:
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = _mib(request.bandwidth_bytes_s)
        if copied:
            parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = [disk.target for disk in copied]
        if route.stream_uri:
            parameters[libvirt.VIR_MIGRATE_PARAM_URI] = route.stream_uri
        if route.disks_uri and copied:
            parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = route.disks_uri
        if request.connections:
            parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = request.connections
        if request.compression is not Compression.NONE:
            parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = request.compression.value
        flags = _flags(route, request, is_copying=bool(copied))
        self._driver.act(
            uuid, "move it", lambda d: d.migrateToURI3(route.libvirt_uri, parameters, flags)
        )

    def figures(self, uuid: str) -> Figures:
        """How far it is."""

        def work(domain: Any) -> Figures:  # Any: libvirt.virDomain
            # While its disks are copied libvirt does not count the memory that is to follow.
            return read_figures(domain.jobStats(), memory_bytes=int(domain.info()[1]) << 10)

        found: Figures = self._driver.act(uuid, "ask for its job", work)
        return found

    def sever(self, uuid: str) -> None:
        """Close the connections that it is being sent over, and no others.

        A migration that is ended otherwise waits for what it has sent. Over a line that is cut that
        is a quarter of an hour, as the kernel keeps trying, and where disks are copied QEMU's own
        loop waits, with the guest.
        """

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            asked = libvirt_qemu.qemuMonitorCommand(
                domain, json.dumps({"execute": "query-yank"}), 0
            )
            mine = [item for item in json.loads(asked)["return"] if _is_of_migration(item)]
            if mine:
                order = {"execute": "yank", "arguments": {"instances": mine}}
                libvirt_qemu.qemuMonitorCommand(domain, json.dumps(order), 0)

        self._driver.act(uuid, "close its connections", work)

    def abort(self, uuid: str) -> None:
        """End the sending; the guest goes on here."""
        self._driver.abort_job(uuid)

    def allow_downtime(self, uuid: str, downtime_ms: int) -> None:
        """Let it stand still for so long at the end."""
        self._driver.act(
            uuid, "set its downtime", lambda d: d.migrateSetMaxDowntime(downtime_ms, 0)
        )

    def limit_bandwidth(self, uuid: str, bandwidth_bytes_s: int) -> None:
        """Send the memory no faster than that, from now on; 0 = no limit.

        The copies of disks keep theirs: libvirt lets nobody change it while it migrates.
        """
        speed = _mib(bandwidth_bytes_s) or _NO_LIMIT
        self._driver.act(uuid, "limit its migration", lambda d: d.migrateSetMaxSpeed(speed, 0))


def completed_figures(driver: Driver, uuid: str) -> Figures:
    """Of the last migration of a guest, which either side remembers for a while."""

    def work(domain: Any) -> Figures:  # Any: libvirt.virDomain
        return read_figures(domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED))

    found: Figures = driver.act(uuid, "ask for its last job", work)
    return found


def read_figures(
    stats: dict[str, Any],  # Any: libvirt's typed parameters
    *,
    memory_bytes: int = 0,
) -> Figures:
    """Figures as libvirt tells them; what it does not tell is 0.

    Args:
        stats: as of ``jobStats``.
        memory_bytes: what is to be sent where libvirt has not begun to count it.
    """

    def number(name: str) -> int:
        return int(stats.get(name, 0) or 0)

    total = number(libvirt.VIR_DOMAIN_JOB_DATA_TOTAL)
    later = memory_bytes if total and not number(libvirt.VIR_DOMAIN_JOB_MEMORY_TOTAL) else 0
    return Figures(
        elapsed_ms=number(libvirt.VIR_DOMAIN_JOB_TIME_ELAPSED),
        total_bytes=total + later,
        sent_bytes=number(libvirt.VIR_DOMAIN_JOB_DATA_PROCESSED),
        remaining_bytes=number(libvirt.VIR_DOMAIN_JOB_DATA_REMAINING) + later,
        memory_sent_bytes=number(libvirt.VIR_DOMAIN_JOB_MEMORY_PROCESSED),
        disk_sent_bytes=number(libvirt.VIR_DOMAIN_JOB_DISK_PROCESSED),
        bytes_s=number(libvirt.VIR_DOMAIN_JOB_MEMORY_BPS) + number(libvirt.VIR_DOMAIN_JOB_DISK_BPS),
        dirty_bytes_s=number(libvirt.VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE)
        * number(libvirt.VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE),
        iteration=number(libvirt.VIR_DOMAIN_JOB_MEMORY_ITERATION),
        downtime_ms=number(libvirt.VIR_DOMAIN_JOB_DOWNTIME),
        throttle_percent=number(libvirt.VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE),
    )


def _is_of_migration(instance: dict[str, Any]) -> bool:  # Any: QEMU's JSON
    """Whether QEMU's connection is the migration's; libvirt names its copies of disks so."""
    if instance["type"] == "migration":
        return True
    return instance["type"] == "block-node" and str(instance["node-name"]).startswith("migration-")


def host_uuid(connection: Any) -> str:  # Any: libvirt.virConnect
    """What libvirt tells its host by; "" where it does not."""
    root = ET.fromstring(connection.getCapabilities())  # noqa: S314 - libvirt made it
    return root.findtext("./host/uuid", "")


def _flags(route: Route, request: MigrateRequest, *, is_copying: bool) -> int:
    flags = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_PAUSED
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    )
    for is_wanted, flag in (
        (is_copying, libvirt.VIR_MIGRATE_NON_SHARED_DISK),
        (request.auto_converge, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
        (request.connections > 0, libvirt.VIR_MIGRATE_PARALLEL),
        (request.compression is not Compression.NONE, libvirt.VIR_MIGRATE_COMPRESSED),
        (route.is_encrypted, libvirt.VIR_MIGRATE_TLS),
        (route.is_tunnelled, libvirt.VIR_MIGRATE_TUNNELLED),
    ):
        flags |= flag if is_wanted else 0
    return int(flags)


def _snapshots(domain: Any) -> int:  # Any: libvirt.virDomain
    try:
        return int(domain.snapshotNum(0))
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return 0
        raise


def _mib(bandwidth_bytes_s: int) -> int:
    return -(-bandwidth_bytes_s // BANDWIDTH_UNIT)
