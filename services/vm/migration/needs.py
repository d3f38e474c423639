"""What a guest needs on the host that it is moved to, read from its XML. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import PurePosixPath

# Devices that are a piece of the host, or whose other end is a process of it.
_HOST_BOUND = {
    "./devices/hostdev": "a device of the host that is passed through",
    "./devices/filesystem": "a directory of the host that it shares",
    "./devices/interface[@type='hostdev']": "a network card of the host that is passed through",
    "./devices/interface[@type='direct']": "an interface that is tied to a card of the host",
    "./devices/interface[@type='vhostuser']": "an interface of a process of the host",
    "./devices/disk[@type='vhostuser']": "a disk of a process of the host",
    "./devices/disk[@type='nvme']": "an NVMe device of the host",
    "./devices/disk[@type='block']": "a block device of the host",
    "./devices/disk[@type='dir']": "a directory of the host as a disk",
    "./devices/disk[@type='volume']": "a volume of a pool of the host",
    "./devices/shmem": "memory that it shares with a process of the host",
    "./devices/memory[@model='nvdimm']": "a file of the host as memory",
}
_FIRMWARE = ("./os/kernel", "./os/initrd", "./os/dtb", "./os/loader")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededDisk:
    """A disk that is a file.

    Attributes:
        target: such as ``vda``.
        is_written: the guest writes to it.
        is_shareable: others may write to it at the same time.
        has_backing: it is an overlay of another file.
    """

    target: str
    file: str
    format: str
    is_written: bool
    is_shareable: bool = False
    has_backing: bool = False

    @property
    def directory(self) -> str:
        """Where it lies."""
        return str(PurePosixPath(self.file).parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """See the module.

    Attributes:
        virt_type: ``kvm`` or ``qemu``.
        cpu_xml: its processor; "" for the hypervisor's default.
        memory_bytes: at most.
        files: of the host, that it was started with and that are only read.
        host_bound: what it has that can't leave the host, in words.
    """

    name: str
    uuid: str
    virt_type: str
    emulator: str
    arch: str
    machine: str
    cpu_xml: str
    memory_bytes: int
    bridges: tuple[str, ...]
    networks: tuple[str, ...]
    disks: tuple[NeededDisk, ...]
    files: tuple[str, ...]
    host_bound: tuple[str, ...]

    @property
    def read_files(self) -> tuple[str, ...]:
        """All files that are only read: those it was started with, and read-only disks."""
        read = (disk.file for disk in self.disks if not disk.is_written)
        return tuple(sorted({*self.files, *read}))


def read_needs(domain_xml: str) -> Needs:
    """Read the XML of a running guest, which libvirt made.

    Raises:
        ValueError: it is no domain's.
    """
    root = ET.fromstring(domain_xml)  # noqa: S314 - libvirt made it
    kind = root.find("./os/type")
    name, uuid = root.findtext("name"), root.findtext("uuid")
    if kind is None or not name or not uuid:
        raise ValueError("it is no domain's XML")
    cpu = root.find("cpu")
    return Needs(
        name=name,
        uuid=uuid,
        virt_type=root.get("type", ""),
        emulator=root.findtext("./devices/emulator", ""),
        arch=kind.get("arch", ""),
        machine=kind.get("machine", ""),
        cpu_xml="" if cpu is None else ET.tostring(cpu, encoding="unicode"),
        memory_bytes=int(root.findtext("memory", "0")) << 10,
        bridges=_sources(root, "bridge"),
        networks=_sources(root, "network"),
        disks=tuple(
            disk
            for element in root.iterfind("./devices/disk[@type='file']")
            if (disk := _disk(element)) is not None
        ),
        files=tuple(text for path in _FIRMWARE if (text := root.findtext(path))),
        host_bound=tuple(
            words for path, words in _HOST_BOUND.items() if root.find(path) is not None
        ),
    )


def _disk(element: ET.Element) -> NeededDisk | None:
    """None for a drive without a medium."""
    source, target, driver = (element.find(name) for name in ("source", "target", "driver"))
    if source is None or target is None or not source.get("file"):
        return None
    backing = element.find("backingStore")
    is_read = element.find("readonly") is not None or element.get("device") in ("cdrom", "floppy")
    return NeededDisk(
        target=target.get("dev", ""),
        file=source.get("file", ""),
        format="raw" if driver is None else driver.get("type", "raw"),
        is_written=not is_read,
        is_shareable=element.find("shareable") is not None,
        has_backing=backing is not None and backing.get("type") is not None,
    )


def _sources(root: ET.Element, kind: str) -> tuple[str, ...]:
    found = root.iterfind(f"./devices/interface[@type='{kind}']/source")
    return tuple(sorted({name for source in found if (name := source.get(kind))}))
