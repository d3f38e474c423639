"""Files on another host, looked at, made and removed by its libvirt. Adapter; every method blocks.

libvirt shows files as volumes of pools. Where no pool has the directory, one is made for the
moment: it is never written down there, and taken away again; the files stay.
"""

from __future__ import annotations

import contextlib
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import libvirt

from services.vm.libvirt_adapter import translated
from services.vm.migration.needs import NeededDisk
from services.vm.operations.driver import Driver

_PREFIX = "novacron-"
# Another migration may take its momentary pool of the same directory away meanwhile.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory of the other host.

    Attributes:
        is_there: it could be looked at.
        files: size of each file that was asked for and is there, as a guest sees it, by path.
        has_probe: the file that this side has made is there, so both see the same directory.
    """

    is_there: bool
    files: dict[str, int] = field(default_factory=dict)
    has_probe: bool = False
    room_bytes: int = 0


def look_into(
    connection: Any,  # Any: libvirt.virConnect
    directory: str,
    names: Iterable[str],
    probe: str,
) -> Directory:
    """Look for files in a directory; "" for no probe."""
    for attempt in range(_ATTEMPTS):
        try:
            with _pool(connection, directory) as pool:
                pool.refresh(0)
                files = {
                    f"{directory.rstrip('/')}/{name}": size
                    for name in names
                    if (size := _size(pool, name)) is not None
                }
                return Directory(
                    is_there=True,
                    files=files,
                    has_probe=bool(probe) and _size(pool, probe) is not None,
                    room_bytes=int(pool.info()[3]),
                )
        except libvirt.libvirtError as exc:
            if exc.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
                raise
            if attempt == _ATTEMPTS - 1:
                break
    return Directory(is_there=False)


class TargetDisks:
    """The files that a guest's disks are copied into; errors are those of ``translated``.

    Args:
        driver: of the target's libvirt.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def make(self, disk: NeededDisk, size_bytes: int) -> None:
        """Make an empty disk; one that is there already is refused by libvirt."""
        connection = self._driver.connection()
        with (
            translated(f"make {disk.file} on the target"),
            _pool(connection, disk.directory) as pool,
        ):
            pool.createXML(_volume_xml(disk, size_bytes), 0)

    def remove(self, file: str) -> None:
        """Remove a file that was made; none is no error."""
        connection = self._driver.connection()
        directory, _, name = file.rpartition("/")
        with (
            translated(f"remove {file} from the target"),
            _pool(connection, directory or "/") as pool,
        ):
            pool.refresh(0)
            try:
                volume = pool.storageVolLookupByName(name)
            except libvirt.libvirtError as exc:
                if exc.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                    raise
                return
            volume.delete(0)


@contextlib.contextmanager
def _pool(connection: Any, directory: str) -> Iterator[Any]:  # Any: libvirt's objects
    pool = None
    with contextlib.suppress(libvirt.libvirtError):
        pool = connection.storagePoolLookupByTargetPath(directory)
    if pool is None:
        root = ET.Element("pool", type="dir")
        ET.SubElement(root, "name").text = f"{_PREFIX}{uuid.uuid4().hex[:12]}"
        ET.SubElement(ET.SubElement(root, "target"), "path").text = directory
        pool = connection.storagePoolCreateXML(ET.tostring(root, encoding="unicode"), 0)
    try:
        yield pool
    finally:
        # Also one that an interrupted migration has left.
        if pool.name().startswith(_PREFIX):
            with contextlib.suppress(libvirt.libvirtError):
                pool.destroy()


def _size(pool: Any, name: str) -> int | None:  # Any: libvirt.virStoragePool
    try:
        return int(pool.storageVolLookupByName(name).info()[1])
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise


def _volume_xml(disk: NeededDisk, size_bytes: int) -> str:
    root = ET.Element("volume")
    ET.SubElement(root, "name").text = disk.file.rpartition("/")[2]
    ET.SubElement(root, "capacity", unit="bytes").text = str(size_bytes)
    ET.SubElement(root, "allocation", unit="bytes").text = "0"
    ET.SubElement(ET.SubElement(root, "target"), "format", type=disk.format)
    return ET.tostring(root, encoding="unicode")
