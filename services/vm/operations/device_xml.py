"""Devices of a guest as libvirt's XML, and found in it. Pure.

The XML that is read comes from libvirt; that which is made goes there, built as a tree, so that no
value can end its element.
"""

from __future__ import annotations

import hashlib
import re
import string
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from services.vm.operations.errors import OperationRefusedError
from services.vm.operations.model import AttachDiskRequest, AttachInterfaceRequest
from services.vm.operations.storage_model import ImageFormat

_PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LINK = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TARGET = re.compile(r"[a-z]{2,3}[a-z]{1,2}")
_MODEL = re.compile(r"[a-z0-9-]{1,32}")
# QEMU's own range of locally made addresses.
_MAC_PREFIX = "52:54:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of a guest.

    Attributes:
        file: "" where it is no file.
        backing: the files that ``file`` is an overlay of, the nearest first.
    """

    target: str
    file: str
    format: str
    device: str
    is_readonly: bool
    backing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A device that is to go: its XML, and how to see that it has gone."""

    xml: str
    label: str


def read_disks(domain_xml: str) -> tuple[Disk, ...]:
    """All disks, in the order of the document."""
    return tuple(_disk(element) for element in _root(domain_xml).iterfind("./devices/disk"))


def disk_xml(request: AttachDiskRequest, image: ImageFormat, domain_xml: str) -> tuple[str, str]:
    """The XML of a new disk, and its target.

    Args:
        request: with the real path of the file.
        image: the file's format, as proved.
        domain_xml: of the guest that gets it.

    Raises:
        OperationRefusedError: the guest has the file or the target already, or there is no such
            bus.
    """
    disks = read_disks(domain_xml)
    for disk in disks:
        if request.file in (disk.file, *disk.backing):
            raise OperationRefusedError(f"the guest has {request.file} already, as {disk.target}")
    taken = {disk.target for disk in disks}
    target = request.target or _free_target(request.bus, taken)
    if target in taken:
        raise OperationRefusedError(f"the guest has a disk {target} already; name another")
    if request.bus not in _PREFIXES or not _TARGET.fullmatch(target):
        known = ", ".join(_PREFIXES)
        raise OperationRefusedError(f"no disk {target} on the bus {request.bus}; buses are {known}")
    element = ET.Element("disk", type="file", device="disk")
    ET.SubElement(element, "driver", name="qemu", type=image.value, discard="unmap")
    ET.SubElement(element, "source", file=request.file)
    ET.SubElement(element, "target", dev=target, bus=request.bus)
    if request.is_readonly:
        ET.SubElement(element, "readonly")
    return ET.tostring(element, encoding="unicode"), target


def interface_xml(request: AttachInterfaceRequest, domain_xml: str) -> tuple[str, str]:
    """The XML of a new interface, and its MAC address.

    Raises:
        OperationRefusedError: its address is taken or none, or it is to be nowhere or twice.
    """
    if bool(request.bridge) == bool(request.network):
        raise OperationRefusedError("an interface is on a bridge or on a network: name one of them")
    for name in (request.bridge, request.network):
        if name and not _LINK.fullmatch(name):
            raise OperationRefusedError(f"{name!r:.80} is no name of a bridge or network")
    if not _MODEL.fullmatch(request.interface_model):
        raise OperationRefusedError(f"{request.interface_model!r:.40} is no model of an interface")
    taken = set(read_macs(domain_xml))
    mac = request.mac.lower() or _free_mac(domain_xml, taken)
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise OperationRefusedError(f"{mac} is no interface's address; one is 52:54:00:12:34:56")
    if mac in taken:
        raise OperationRefusedError(f"the guest has an interface with {mac} already")
    kind, name = ("bridge", request.bridge) if request.bridge else ("network", request.network)
    element = ET.Element("interface", type=kind)
    ET.SubElement(element, "mac", address=mac)
    ET.SubElement(element, "source", {kind: name})
    ET.SubElement(element, "model", type=request.interface_model)
    return ET.tostring(element, encoding="unicode"), mac


def read_macs(domain_xml: str) -> tuple[str, ...]:
    """The addresses of all interfaces."""
    found = _root(domain_xml).iterfind("./devices/interface/mac")
    return tuple(element.get("address", "").lower() for element in found)


def find_device(domain_xml: str, device: str) -> Found | None:
    """A disk by target or file, or an interface by MAC; None where there is none."""
    for element in _root(domain_xml).iterfind("./devices/*"):
        if element.tag == "disk":
            disk = _disk(element)
            names: tuple[str, ...] = (disk.target, disk.file)
        elif element.tag == "interface":
            mac = element.find("mac")
            names = ("" if mac is None else mac.get("address", "").lower(),)
        else:
            continue
        if device and device.lower() in {name.lower() for name in names}:
            xml = ET.tostring(element, encoding="unicode")
            return Found(xml=xml, label=f"{element.tag} {names[0]}")
    return None


def read_limits(domain_xml: str) -> tuple[int, int]:
    """The most memory in bytes and processors that a guest may have without a new start."""
    root = _root(domain_xml)
    memory = root.find("memory")
    vcpu = root.find("vcpu")
    kib = 0 if memory is None else int(memory.text or 0)  # libvirt writes KiB
    return kib << 10, 1 if vcpu is None else int(vcpu.text or 1)


def _disk(element: ET.Element) -> Disk:
    def value(path: str, name: str) -> str:
        found = element.find(path)
        return "" if found is None else found.attrib.get(name, "")

    backing, below = [], element.find("backingStore")
    while below is not None:
        source = below.find("source")
        if source is not None and source.get("file"):
            backing.append(source.get("file", ""))
        below = below.find("backingStore")
    return Disk(
        target=value("target", "dev"),
        file=value("source", "file"),
        format=value("driver", "type"),
        device=element.get("device", "disk"),
        is_readonly=element.find("readonly") is not None,
        backing=tuple(backing),
    )


def _free_target(bus: str, taken: set[str]) -> str:
    prefix = _PREFIXES.get(bus, "vd")
    letters = string.ascii_lowercase
    for name in (*letters, *(first + second for first in letters for second in letters)):
        target = f"{prefix}{name}"
        if target not in taken:
            return target
    raise OperationRefusedError(f"the guest has no room for another disk on the bus {bus}")


def _free_mac(domain_xml: str, taken: set[str]) -> str:
    """An address that follows from the guest and the number of its interfaces."""
    uuid = _root(domain_xml).findtext("uuid") or ""
    number = len(taken)
    while True:
        digest = hashlib.sha256(f"{uuid}/{number}".encode()).hexdigest()
        mac = f"{_MAC_PREFIX}:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"
        if mac not in taken:
            return mac
        number += 1


def _root(domain_xml: str) -> ET.Element:
    return ET.fromstring(domain_xml)  # noqa: S314 - libvirt's own
