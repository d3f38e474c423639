"""A redefinition that leaves the devices where they are."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from services.vm.documents.devices import Disk, DiskBus, Firmware, FirmwareKind, Nic
from services.vm.documents.keep import keep_places
from services.vm.documents.model import VmDocument
from services.vm.documents.xml import VirtType, domain_xml

A, B = Disk(path="/a"), Disk(path="/b")
CARD = Nic(bridge="br0")


def as_libvirt(document: VmDocument, machine: str = "pc-q35-7.2") -> str:
    """The XML with the machine's version and an address for every device, as libvirt has it."""
    root = ET.fromstring(domain_xml(document, virt_type=VirtType.QEMU))
    kind = root.find("os/type")
    devices = root.find("devices")
    assert kind is not None
    assert devices is not None
    kind.set("machine", machine)
    for number, item in enumerate(devices, 1):
        ET.SubElement(item, "address", {"type": "pci", "bus": hex(number)})
    ET.SubElement(devices, "controller", {"type": "pci", "index": "1", "model": "pcie-root-port"})
    return ET.tostring(root, encoding="unicode")


def buses(text: str, tag: str) -> list[str | None]:
    """The PCI buses of the devices of a kind."""
    found = []
    for item in ET.fromstring(text).iterfind(f"devices/{tag}"):
        address = item.find("address")
        found.append(None if address is None else address.get("bus"))
    return found


def new(document: VmDocument) -> str:
    """The XML from a document alone."""
    return domain_xml(document, virt_type=VirtType.QEMU)


def test_devices_that_stay_keep_their_places() -> None:
    """A disk that goes away moves neither the other disk nor the card."""
    before = VmDocument(name="v", disks=(A, B), networks=(CARD,))

    text = keep_places(new(VmDocument(name="v", disks=(B,), networks=(CARD,))), as_libvirt(before))

    assert buses(text, "disk") == ["0x2"]
    assert buses(text, "interface") == ["0x3"]
    assert len(ET.fromstring(text).findall("devices/controller")) == 1


def test_new_devices_get_a_free_place_from_libvirt() -> None:
    """They have no address."""
    before = VmDocument(name="v", disks=(A,))

    text = keep_places(new(VmDocument(name="v", disks=(A, B))), as_libvirt(before))

    assert buses(text, "disk") == ["0x1", None]


def test_the_machine_keeps_its_version() -> None:
    """Within the family; another machine is a new one, with none of the old places."""
    before = as_libvirt(VmDocument(name="v", disks=(A,)))

    same = ET.fromstring(keep_places(new(VmDocument(name="v", disks=(A,))), before))
    other = keep_places(new(VmDocument(name="v", machine="pc", disks=(A,))), before)

    kind = same.find("os/type")
    assert kind is not None
    assert kind.get("machine") == "pc-q35-7.2"
    assert buses(other, "disk") == [None]
    assert "pcie-root-port" not in other


def test_the_variables_of_the_firmware_stay() -> None:
    """They hold what the guest's system told its firmware, such as its boot entries."""
    wanted = VmDocument(name="v", firmware=Firmware(kind=FirmwareKind.UEFI))
    variables = "<nvram>/var/lib/libvirt/qemu/nvram/v.fd</nvram></os>"
    before = as_libvirt(wanted).replace("</os>", variables)

    assert "v.fd" in keep_places(new(wanted), before)
    assert "v.fd" not in keep_places(new(VmDocument(name="v")), before)


def test_a_controller_is_not_there_twice() -> None:
    """Libvirt's own of the same kind and number takes the place of ours."""
    wanted = VmDocument(name="v", disks=(Disk(path="/a", bus=DiskBus.SCSI),))

    text = keep_places(new(wanted), as_libvirt(wanted))

    scsi = [item for item in ET.fromstring(text).iter("controller") if item.get("type") == "scsi"]
    assert len(scsi) == 1
