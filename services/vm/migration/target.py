"""The host that a guest is moved to, asked through its libvirt. Adapter; every method blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import libvirt

from services.vm.libvirt_adapter import translated
from services.vm.migration.checks import Cpu, Namesake, SourceFacts, TargetFacts
from services.vm.migration.needs import Needs
from services.vm.migration.source import host_uuid
from services.vm.migration.target_storage import Directory, look_into
from services.vm.operations.driver import Driver

T = TypeVar("T")
_CPU = {
    libvirt.VIR_CPU_COMPARE_INCOMPATIBLE: Cpu.LACKS,
    libvirt.VIR_CPU_COMPARE_IDENTICAL: Cpu.FITS,
    libvirt.VIR_CPU_COMPARE_SUPERSET: Cpu.FITS,
}


class TargetDriver:
    """Errors are those of ``Driver.connection`` and ``translated``.

    Args:
        driver: of the target's libvirt.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def facts(self, source: SourceFacts, probes: dict[str, str]) -> TargetFacts:
        """All that the checks want to know.

        Args:
            source: what is to come.
            probes: by directory the name of a file that this side has just made there.
        """
        connection = self._driver.connection()
        needs = source.needs
        with translated("look at the target"):
            unable = _unable(connection, needs)
            looked = _look_into_all(connection, needs, probes)
            found = {path: size for place in looked.values() for path, size in place.files.items()}
            return TargetFacts(
                version=int(connection.getVersion()),
                libvirt_version=int(connection.getLibVersion()),
                host_uuid=host_uuid(connection),
                unable=unable,
                cpu=Cpu.UNSAID if unable else _compare_cpu(connection, needs),
                free_bytes=_free_bytes(connection),
                bridges=_bridges(connection),
                networks=_networks(connection),
                namesakes=tuple(_namesakes(connection, needs)),
                file_bytes=found,
                shared=frozenset(path for path, place in looked.items() if place.has_probe),
                room_bytes={
                    path: place.room_bytes for path, place in looked.items() if place.is_there
                },
                unlooked=frozenset(path for path, place in looked.items() if not place.is_there),
            )


def _look_into_all(
    connection: Any,  # Any: libvirt.virConnect
    needs: Needs,
    probes: dict[str, str],
) -> dict[str, Directory]:
    wanted: dict[str, set[str]] = {}
    for file in (*needs.read_files, *(disk.file for disk in needs.disks)):
        directory, _, name = file.rpartition("/")
        wanted.setdefault(directory or "/", set()).add(name)
    return {
        directory: look_into(connection, directory, names, probes.get(directory, ""))
        for directory, names in wanted.items()
    }


def _unable(connection: Any, needs: Needs) -> str:  # Any: libvirt.virConnect
    try:
        connection.getDomainCapabilities(
            needs.emulator or None, needs.arch, needs.machine, needs.virt_type, 0
        )
    except libvirt.libvirtError as exc:
        code = exc.get_error_code()
        if code == libvirt.VIR_ERR_NO_SUPPORT:
            return ""
        if code in (
            libvirt.VIR_ERR_INVALID_ARG,
            libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
            libvirt.VIR_ERR_INTERNAL_ERROR,
            libvirt.VIR_ERR_SYSTEM_ERROR,
            libvirt.VIR_ERR_OPERATION_FAILED,
        ) and exc.get_error_domain() not in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
            return str(exc.get_error_message())
        raise
    return ""


def _compare_cpu(connection: Any, needs: Needs) -> Cpu:  # Any: libvirt.virConnect
    if not needs.cpu_xml:
        return Cpu.UNSAID
    try:
        found = connection.compareHypervisorCPU(
            needs.emulator or None, needs.arch, needs.machine, needs.virt_type, needs.cpu_xml, 0
        )
    except libvirt.libvirtError as exc:
        if exc.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
            raise
        return Cpu.UNSAID  # this libvirt can't tell; it will when it starts the guest
    return _CPU.get(found, Cpu.UNSAID)


def _free_bytes(connection: Any) -> int | None:  # Any: libvirt.virConnect
    def work() -> int:
        stats = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        return sum(int(stats.get(name, 0)) for name in ("free", "buffers", "cached")) << 10

    return _asked(work)


def _bridges(connection: Any) -> frozenset[str] | None:  # Any: libvirt.virConnect
    return _asked(lambda: frozenset(item.name() for item in connection.listAllInterfaces()))


def _networks(connection: Any) -> frozenset[str] | None:  # Any: libvirt.virConnect
    flag = libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE
    return _asked(lambda: frozenset(item.name() for item in connection.listAllNetworks(flag)))


def _namesakes(connection: Any, needs: Needs) -> Iterable[Namesake]:  # Any: libvirt.virConnect
    for domain in connection.listAllDomains(0):
        with contextlib.suppress(libvirt.libvirtError):  # gone since it was listed
            name, uuid = domain.name(), domain.UUIDString()
            if name == needs.name or uuid == needs.uuid:
                yield Namesake(name=name, uuid=uuid, is_active=bool(domain.isActive()))


def _asked(work: Callable[[], T]) -> T | None:
    """None where this libvirt has no driver for it."""
    try:
        return work()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return None
