"""Devices as XML, and found in it."""

from __future__ import annotations

import pytest

from services.vm.operations.device_xml import (
    disk_xml,
    find_device,
    interface_xml,
    read_disks,
    read_limits,
    read_macs,
)
from services.vm.operations.errors import OperationRefusedError
from services.vm.operations.model import AttachDiskRequest, AttachInterfaceRequest
from services.vm.operations.storage_model import ImageFormat

GUEST = """
<domain type='kvm'>
  <name>web1</name><uuid>5b2bd5a0-6f6c-4f5b-9d6a-0d6c1f6a7a11</uuid>
  <memory unit='KiB'>65536</memory><vcpu current='1'>4</vcpu>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='/i/top.qcow2'/>
      <backingStore type='file'><format type='qcow2'/><source file='/i/mid.qcow2'/>
        <backingStore type='file'><format type='raw'/><source file='/i/base.raw'/>
          <backingStore/></backingStore></backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:AA:BB:CC'/><source bridge='br0'/></interface>
  </devices>
</domain>
"""


def test_disks_are_read_with_their_chains() -> None:
    """The nearest backing file first; an empty drive has no file."""
    first, second = read_disks(GUEST)

    assert (first.target, first.file) == ("vda", "/i/top.qcow2")
    assert first.backing == ("/i/mid.qcow2", "/i/base.raw")
    assert (second.device, second.file, second.is_readonly) == ("cdrom", "", True)
    assert read_limits(GUEST) == (64 << 20, 4)
    assert read_macs(GUEST) == ("52:54:00:aa:bb:cc",)


def test_a_disk_gets_the_next_target_and_its_proved_format() -> None:
    """No value can end its element."""
    made, target = disk_xml(
        AttachDiskRequest(domain="web1", file="/i/'><a>&.raw"), ImageFormat.RAW, GUEST
    )

    assert target == "vdb"
    assert 'type="raw"' in made
    assert "<a>" not in made


@pytest.mark.parametrize(
    "fields",
    [
        {"file": "/i/top.qcow2"},
        {"file": "/i/base.raw"},
        {"file": "/i/a.raw", "target": "vda"},
        {"file": "/i/a.raw", "bus": "floppy"},
        {"file": "/i/a.raw", "target": "../x"},
    ],
)
def test_a_disk_that_can_t_be_is_refused(fields: dict[str, str]) -> None:
    """A file of its chain, a taken target, no bus, no target."""
    with pytest.raises(OperationRefusedError):
        disk_xml(AttachDiskRequest(domain="web1", **fields), ImageFormat.RAW, GUEST)


def test_an_interface_gets_an_address_that_follows_from_the_guest() -> None:
    """The same question has the same answer, and the address is a local unicast one."""
    request = AttachInterfaceRequest(domain="web1", bridge="br0")
    made, mac = interface_xml(request, GUEST)

    assert (made, mac) == interface_xml(request, GUEST)
    assert mac.startswith("52:54:00:")
    assert mac not in read_macs(GUEST)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bridge": "br0", "network": "default"},
        {"bridge": "br 0"},
        {"bridge": "br0", "mac": "52:54:00:aa:bb:cc"},
        {"bridge": "br0", "mac": "01:00:5e:00:00:01"},
        {"bridge": "br0", "mac": "hello"},
        {"bridge": "br0", "interface_model": "<x/>"},
    ],
)
def test_an_interface_that_can_t_be_is_refused(fields: dict[str, str]) -> None:
    """Nowhere, twice, no name, a taken, multicast or wrong address, no model."""
    with pytest.raises(OperationRefusedError):
        interface_xml(AttachInterfaceRequest(domain="web1", **fields), GUEST)


def test_devices_are_found_by_target_file_and_address() -> None:
    """And nothing by an empty name, which an empty drive would have."""
    for name in ("vda", "/i/top.qcow2", "52:54:00:AA:bb:cc"):
        assert find_device(GUEST, name) is not None
    for name in ("", "vdb", "52:54:00:00:00:00"):
        assert find_device(GUEST, name) is None
