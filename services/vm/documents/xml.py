"""A VM document as libvirt's domain XML. Pure: equal arguments give equal text.

Ours is marked by an element in the domain's metadata that names the document's fingerprint and
the epoch of its owner; what is not marked was made by somebody else.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

from services.vm.documents.devices import (
    Accelerator,
    Cpus,
    Discard,
    Disk,
    DiskBus,
    DiskCache,
    DiskDevice,
    DiskFormat,
    Nic,
)
from services.vm.documents.model import Console, Graphics, VmDocument, is_uefi

MARK_NAMESPACE = "urn:novacron:vm:1"
MARK_PREFIX = "novacron"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
MODES = frozenset({"host-model", "host-passthrough", "maximum"})
DEFAULT_MODEL = "default"
_PREFIXES = {
    DiskBus.VIRTIO: "vd",
    DiskBus.SCSI: "sd",
    DiskBus.SATA: "sd",
    DiskBus.USB: "sd",
    DiskBus.IDE: "hd",
}
# How often the guest tells of its memory, for the metrics.
_BALLOON_PERIOD_S = "10"


class VirtType(enum.Enum):
    """libvirt's type of a domain."""

    KVM = "kvm"
    QEMU = "qemu"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What says that a domain is ours.

    Attributes:
        fingerprint: of the document that it was defined from.
        epoch: of the owner that defined it; one with a smaller epoch must not touch it.
    """

    fingerprint: str
    epoch: int


def choose_type(accelerator: Accelerator, offered: frozenset[VirtType]) -> VirtType:
    """The type for a document on a host.

    Args:
        accelerator: as the document says.
        offered: the types in libvirt's capabilities.

    Raises:
        ValueError: the host does not offer what is said.
    """
    if VirtType.TEST in offered:
        return VirtType.TEST
    if accelerator is Accelerator.AUTO:
        return VirtType.KVM if VirtType.KVM in offered else VirtType.QEMU
    wanted = VirtType.KVM if accelerator is Accelerator.KVM else VirtType.QEMU
    if wanted not in offered:
        words = ", ".join(sorted(kind.value for kind in offered)) or "nothing"
        raise ValueError(f"accelerator is {accelerator.value}; this host offers {words}")
    return wanted


def domain_xml(
    document: VmDocument, *, virt_type: VirtType, mark: Mark | None = None, seed: str = ""
) -> str:
    """The domain XML.

    Args:
        document: what is wanted.
        virt_type: see ``choose_type``.
        mark: None to leave it unmarked.
        seed: path of the image that cloud-init reads; "" for none.
    """
    domain = ET.Element("domain", {"type": virt_type.value})
    _text(domain, "name", document.name)
    _text(domain, "uuid", document.domain_uuid)
    if document.title:
        _text(domain, "title", document.title)
    if mark is not None:
        ET.SubElement(domain, "metadata").append(_mark_element(document, mark))
    _memory(domain, document)
    _cpus(domain, document.cpus)
    _system(domain, document, virt_type)
    devices = ET.SubElement(domain, "devices")
    _disks(devices, document, seed)
    for index, nic in enumerate(document.networks):
        _nic(devices, nic, document.mac(index))
    _channels(devices, document)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def mark_xml(document: VmDocument, mark: Mark) -> str:
    """The mark alone, for ``virDomainSetMetadata``, which adds the namespace to it."""
    return ET.tostring(_mark_element(document, mark, prefix=""), encoding="unicode")


def read_mark(domain: ET.Element) -> Mark | None:
    """The mark of a domain; None where it has none that can be read."""
    found = domain.find(f"metadata/{{{MARK_NAMESPACE}}}vm")
    if found is None:
        return None
    epoch = found.get("epoch", "")
    if not epoch.isdecimal():
        return None
    return Mark(fingerprint=found.get("document", ""), epoch=int(epoch))


def with_seed(document: VmDocument, seed: str) -> VmDocument:
    """The document with the image that cloud-init reads as its last disk; as it is without one."""
    if not seed:
        return document
    bus = DiskBus.SATA if "q35" in document.machine else DiskBus.IDE
    image = Disk(path=seed, device=DiskDevice.CDROM, format=DiskFormat.RAW, bus=bus)
    return replace(document, cloud_init=None, disks=(*document.disks, image))


def target_names(disks: tuple[Disk, ...]) -> tuple[str, ...]:
    """The names of the disks on their buses: as vda, vdb, sda."""
    counts: dict[str, int] = {}
    found = []
    for disk in disks:
        prefix = _PREFIXES[disk.bus]
        number = counts.get(prefix, 0)
        counts[prefix] = number + 1
        found.append(prefix + _letters(number))
    return tuple(found)


def _mark_element(document: VmDocument, mark: Mark, prefix: str = MARK_PREFIX) -> ET.Element:
    # Written with its prefix: registering one with ElementTree would be state of the module.
    declared = {f"xmlns:{prefix}": MARK_NAMESPACE} if prefix else {}
    element = ET.Element(f"{prefix}:vm" if prefix else "vm", declared)
    element.set("document", mark.fingerprint)
    element.set("epoch", str(mark.epoch))
    for index, nic in enumerate(document.networks):
        if nic.segment:
            place = {"mac": document.mac(index), "segment": nic.segment}
            ET.SubElement(element, "port", place)
    return element


def _memory(domain: ET.Element, document: VmDocument) -> None:
    memory = document.memory
    _text(domain, "memory", str(memory.bytes_max >> 10), unit="KiB")
    _text(domain, "currentMemory", str(memory.bytes >> 10), unit="KiB")


def _cpus(domain: ET.Element, cpus: Cpus) -> None:
    count = {"current": str(cpus.count)} if cpus.most != cpus.count else {}
    _text(domain, "vcpu", str(cpus.most), **count)
    if cpus.pinning:
        tune = ET.SubElement(domain, "cputune")
        for number, allowed in enumerate(cpus.pinning):
            ET.SubElement(tune, "vcpupin", {"vcpu": str(number), "cpuset": allowed})


def _system(domain: ET.Element, document: VmDocument, virt_type: VirtType) -> None:
    firmware = {"firmware": "efi"} if is_uefi(document) else {}
    system = ET.SubElement(domain, "os", firmware)
    is_real = virt_type is not VirtType.TEST  # the test driver has no such machines
    machine = {"arch": "x86_64", "machine": document.machine} if is_real else {}
    _text(system, "type", "hvm", **machine)
    is_secure = document.firmware.secure_boot
    if is_uefi(document):
        features = ET.SubElement(system, "firmware")
        for name in ("enrolled-keys", "secure-boot"):
            enabled = "yes" if is_secure else "no"
            ET.SubElement(features, "feature", {"enabled": enabled, "name": name})
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if is_secure:
        ET.SubElement(features, "smm", {"state": "on"})
    _model(domain, document.cpus)
    ET.SubElement(domain, "clock", {"offset": "utc"})
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", document.on_crash.value)


def _model(domain: ET.Element, cpus: Cpus) -> None:
    if cpus.model in MODES:
        cpu = ET.SubElement(domain, "cpu", {"mode": cpus.model})
    elif cpus.model != DEFAULT_MODEL:
        cpu = ET.SubElement(domain, "cpu", {"mode": "custom", "match": "exact"})
        _text(cpu, "model", cpus.model, fallback="forbid")
    elif cpus.topology is not None:
        cpu = ET.SubElement(domain, "cpu")
    else:
        return
    if cpus.topology is not None:
        given = cpus.topology
        place = {"sockets": str(given.sockets), "dies": "1", "cores": str(given.cores)}
        ET.SubElement(cpu, "topology", {**place, "threads": str(given.threads)})


def _disks(devices: ET.Element, document: VmDocument, seed: str) -> None:
    disks = with_seed(document, seed).disks
    for disk, target in zip(disks, target_names(disks), strict=True):
        _disk(devices, disk, target)
    if any(disk.bus is DiskBus.SCSI for disk in disks):
        scsi = {"type": "scsi", "index": "0", "model": "virtio-scsi"}
        ET.SubElement(devices, "controller", scsi)


def _disk(devices: ET.Element, disk: Disk, target: str) -> None:
    kind = "volume" if disk.pool else "file"
    element = ET.SubElement(devices, "disk", {"type": kind, "device": disk.device.value})
    driver = {"name": "qemu", "type": disk.format.value}
    if disk.cache is not DiskCache.DEFAULT:
        driver["cache"] = disk.cache.value
    if disk.discard is not Discard.IGNORE:
        driver["discard"] = disk.discard.value
    ET.SubElement(element, "driver", driver)
    if disk.pool:
        ET.SubElement(element, "source", {"pool": disk.pool, "volume": disk.volume})
    elif disk.path:
        ET.SubElement(element, "source", {"file": disk.path})
    ET.SubElement(element, "target", {"dev": target, "bus": disk.bus.value})
    if disk.read_only or disk.device is DiskDevice.CDROM:
        ET.SubElement(element, "readonly")
    if disk.serial:
        _text(element, "serial", disk.serial)
    if disk.boot:
        ET.SubElement(element, "boot", {"order": str(disk.boot)})


def _nic(devices: ET.Element, nic: Nic, mac: str) -> None:
    kind = "bridge" if nic.bridge else "network"
    element = ET.SubElement(devices, "interface", {"type": kind})
    ET.SubElement(element, "mac", {"address": mac})
    ET.SubElement(element, "source", {kind: nic.bridge or nic.network})
    ET.SubElement(element, "model", {"type": nic.model.value})
    if nic.boot:
        ET.SubElement(element, "boot", {"order": str(nic.boot)})


def _channels(devices: ET.Element, document: VmDocument) -> None:
    if document.console is not Console.NONE:
        kind = document.console.value
        if document.console is Console.SERIAL:
            serial = ET.SubElement(devices, "serial", {"type": "pty"})
            ET.SubElement(serial, "target", {"port": "0"})
        console = ET.SubElement(devices, "console", {"type": "pty"})
        ET.SubElement(console, "target", {"type": kind, "port": "0"})
    if document.guest_agent:
        channel = ET.SubElement(devices, "channel", {"type": "unix"})
        ET.SubElement(channel, "target", {"type": "virtio", "name": AGENT_CHANNEL})
    if document.graphics is not Graphics.NONE:
        screen = {"type": document.graphics.value, "autoport": "yes", "listen": "127.0.0.1"}
        graphics = ET.SubElement(devices, "graphics", screen)
        ET.SubElement(graphics, "listen", {"type": "address", "address": "127.0.0.1"})
        ET.SubElement(ET.SubElement(devices, "video"), "model", {"type": "virtio"})
    balloon = ET.SubElement(devices, "memballoon", {"model": "virtio"})
    ET.SubElement(balloon, "stats", {"period": _BALLOON_PERIOD_S})
    rng = ET.SubElement(devices, "rng", {"model": "virtio"})
    _text(rng, "backend", "/dev/urandom", model="random")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _letters(number: int) -> str:
    """0 is a, 25 z, 26 aa."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
