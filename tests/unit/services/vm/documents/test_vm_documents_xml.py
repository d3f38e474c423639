"""Domain XML from documents and back."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from services.vm.documents.adopt import adopt_xml
from services.vm.documents.devices import Accelerator, Cpus, Disk, DiskBus, Memory, Nic
from services.vm.documents.errors import AdoptionError
from services.vm.documents.model import VmDocument
from services.vm.documents.xml import (
    Mark,
    VirtType,
    choose_type,
    domain_xml,
    mark_xml,
    target_names,
)
from tests.unit.services.vm.documents.vm_documents import documents

MARK = Mark(fingerprint="ab" * 32, epoch=7)
FOREIGN = """
<domain type='kvm'>
  <name>old</name>
  <uuid>7b7f5a1e-0a6a-4a5a-8a49-2f8e0f5b8a11</uuid>
  <memory unit='MiB'>512</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><hyperv mode='custom'/></features>
  <clock offset='localtime'><timer name='hypervclock' present='yes'/><timer name='pit'/></clock>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' io='native'/>
      <source file='/images/old.qcow2'/><target dev='hda' bus='ide'/>
    </disk>
    <disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='vdb' bus='virtio'/></disk>
    <interface type='direct'><mac address='52:54:00:aa:bb:cc'/><source dev='eth0'/></interface>
    <hostdev mode='subsystem' type='pci'/>
    <serial type='pty'/>
  </devices>
</domain>
"""


@given(documents())
@settings(max_examples=40, deadline=None)
def test_a_document_s_xml_says_the_document_again(document: VmDocument) -> None:
    """Adoption finds the very document, nothing left out, and the mark."""
    virt_type = choose_type(document.accelerator, frozenset({VirtType.KVM, VirtType.QEMU}))
    text = domain_xml(document, virt_type=virt_type, mark=MARK)

    found = adopt_xml(text)

    assert found.document == document
    assert found.left_out == ()
    assert found.mark == MARK
    assert domain_xml(document, virt_type=virt_type, mark=MARK) == text


def test_letters_of_xml_in_a_title_do_no_harm() -> None:
    """What looks like XML in a value stays a value."""
    document = VmDocument(name="v", title="</title><devices>&amp;'\"")

    root = ET.fromstring(domain_xml(document, virt_type=VirtType.QEMU))

    assert root.findtext("title") == document.title
    assert [child.tag for child in root].count("devices") == 1


def test_what_a_document_can_t_say_is_listed() -> None:
    """Adopting somebody else's domain names everything that a redefinition would lose."""
    found = adopt_xml(FOREIGN)

    assert found.mark is None
    assert found.document.disks == (Disk(path="/images/old.qcow2", bus=DiskBus.IDE),)
    assert found.document.memory == Memory(size="512MiB")
    assert found.document.uuid == "7b7f5a1e-0a6a-4a5a-8a49-2f8e0f5b8a11"
    listed = "\n".join(found.left_out)
    for word in ("block", "direct", "hostdev", "hyperv", "localtime", "hypervclock", "io=native"):
        assert word in listed
    assert "pit" not in listed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<domain", "can't be read"),
        ("<network/>", "no domain"),
        ("<!DOCTYPE x><domain/>", "document type"),
        ("<domain><name>a</name></domain>", "memory"),
        ("<domain><name>a b</name><memory>1024</memory></domain>", "name is"),
        ("<domain><name>a</name><memory>1024</memory><vcpu>x</vcpu></domain>", "can't be said"),
        ("<domain><name>a</name><memory unit='x'>1</memory></domain>", "unit"),
    ],
)
def test_what_is_no_domain_is_refused(text: str, expected: str) -> None:
    """Broken and odd XML ends in a named error."""
    with pytest.raises(AdoptionError, match=expected):
        adopt_xml(text)


def test_the_mark_names_the_segments() -> None:
    """Who guards the ports finds each card's label by its address."""
    document = VmDocument(name="v", networks=(Nic(bridge="br0", segment="web"),))

    port = ET.fromstring(mark_xml(document, MARK)).find("port")

    assert port is not None
    assert port.attrib == {"mac": document.mac(0), "segment": "web"}


def test_disks_are_named_by_bus() -> None:
    """Each bus counts for itself, but for those that share a prefix; z is followed by aa."""
    buses = [DiskBus.VIRTIO] * 27 + [DiskBus.SCSI, DiskBus.SATA]
    disks = tuple(Disk(path=f"/{number}", bus=bus) for number, bus in enumerate(buses))

    names = target_names(disks)

    assert names[:2] == ("vda", "vdb")
    assert names[25:] == ("vdz", "vdaa", "sda", "sdb")


@pytest.mark.parametrize(
    ("accelerator", "offered", "expected"),
    [
        (Accelerator.AUTO, {VirtType.KVM, VirtType.QEMU}, VirtType.KVM),
        (Accelerator.AUTO, {VirtType.QEMU}, VirtType.QEMU),
        (Accelerator.TCG, {VirtType.KVM, VirtType.QEMU}, VirtType.QEMU),
        (Accelerator.KVM, {VirtType.TEST}, VirtType.TEST),
    ],
)
def test_the_accelerator_follows_the_host(
    accelerator: Accelerator, offered: set[VirtType], expected: VirtType
) -> None:
    """KVM where it is there and nothing else is said."""
    assert choose_type(accelerator, frozenset(offered)) is expected


def test_an_accelerator_that_is_not_there_is_refused() -> None:
    """A document that wants KVM is not run slowly without it."""
    with pytest.raises(ValueError, match="offers qemu"):
        choose_type(Accelerator.KVM, frozenset({VirtType.QEMU}))


def test_a_seed_is_a_drive_that_can_t_be_written() -> None:
    """cloud-init's image hangs on a bus that the machine has."""
    for machine, bus in (("q35", "sata"), ("pc", "ide")):
        document = VmDocument(name="v", machine=machine, cpus=Cpus(count=2))

        root = ET.fromstring(domain_xml(document, virt_type=VirtType.QEMU, seed="/seed.iso"))

        target = root.find("devices/disk/target")
        assert target is not None
        assert target.get("bus") == bus
        assert root.find("devices/disk/readonly") is not None
