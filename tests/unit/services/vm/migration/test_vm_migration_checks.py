"""What stands against moving a guest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.vm.migration.checks import (
    OVERHEAD_BYTES,
    Cpu,
    Namesake,
    SourceFacts,
    TargetFacts,
    disks_to_copy,
    find_refusals,
)
from services.vm.migration.model import MigrateRequest, Storage
from services.vm.migration.needs import NeededDisk, Needs, read_needs

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
XML = f"""
<domain type='kvm' id='7'>
  <name>web1</name><uuid>{UUID}</uuid>
  <memory unit='KiB'>131072</memory>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><kernel>/boot/k</kernel></os>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='/images/a.qcow2'/>
      <backingStore/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='/data/b.img'/><target dev='vdb'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/><source file='/images/seed.iso'/><target dev='sda'/>
      <readonly/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sdb'/><readonly/></disk>
    <interface type='bridge'><source bridge='lab0'/></interface>
    <interface type='network'><source network='default' bridge='virbr0'/></interface>
  </devices>
</domain>
"""
NEEDS = read_needs(XML)
SOURCE = SourceFacts(
    needs=NEEDS,
    state="running",
    can_move=True,
    is_paused=False,
    is_persistent=True,
    snapshots=0,
    version=7_002_013,
    libvirt_version=9_000_000,
    host_uuid="here",
    disk_bytes={"vda": 100 << 20, "vdb": 10 << 20},
    disk_used_bytes={"vda": 60 << 20, "vdb": 10 << 20},
)
SHARING = TargetFacts(
    version=7_002_013,
    libvirt_version=9_000_000,
    host_uuid="there",
    cpu=Cpu.FITS,
    free_bytes=1 << 30,
    bridges=frozenset({"lab0"}),
    networks=frozenset({"default"}),
    file_bytes={"/boot/k": 1},
    shared=frozenset({"/images", "/data"}),
)
APART = replace(
    SHARING,
    shared=frozenset(),
    file_bytes={"/boot/k": 1, "/images/seed.iso": 1},
    room_bytes={"/images": 1 << 30, "/data": 1 << 30, "/boot": 0},
)
USUAL = MigrateRequest(domain="web1", node="b")
COPY = replace(USUAL, storage=Storage.COPY)


def test_the_needs_of_a_guest_are_read_from_its_xml() -> None:
    """Files, bridges, networks; a drive without a medium needs nothing."""
    assert (NEEDS.machine, NEEDS.virt_type, NEEDS.memory_bytes) == ("pc-q35-7.2", "kvm", 128 << 20)
    assert [disk.target for disk in NEEDS.disks] == ["vda", "vdb", "sda"]
    assert [disk.is_written for disk in NEEDS.disks] == [True, True, False]
    assert NEEDS.read_files == ("/boot/k", "/images/seed.iso")
    assert (NEEDS.bridges, NEEDS.networks, NEEDS.host_bound) == (("lab0",), ("default",), ())


@pytest.mark.parametrize("text", ["<domain/>", "<a><b/></a>"])
def test_what_is_no_domain_has_no_needs(text: str) -> None:
    """It is refused."""
    with pytest.raises(ValueError, match="no domain"):
        read_needs(text)


@pytest.mark.parametrize(
    "device",
    [
        "<hostdev mode='subsystem' type='pci'/>",
        "<filesystem type='mount'/>",
        "<interface type='direct'/>",
        "<disk type='block' device='disk'><source dev='/dev/sdb'/></disk>",
        "<disk type='volume' device='disk'/>",
        "<shmem name='a'/>",
    ],
)
def test_a_piece_of_the_host_can_not_move(device: str) -> None:
    """It is named, and is to be detached."""
    needs = read_needs(XML.replace("</devices>", f"{device}</devices>"))

    [refusal] = find_refusals(USUAL, replace(SOURCE, needs=needs), SHARING)

    assert "detach it first" in refusal


def test_two_hosts_that_fit_are_not_refused() -> None:
    """With shared storage, and with disks that are copied."""
    assert find_refusals(USUAL, SOURCE, SHARING) == ()
    assert find_refusals(COPY, SOURCE, APART) == ()
    assert disks_to_copy(USUAL, NEEDS, APART) == []
    assert [disk.target for disk in disks_to_copy(COPY, NEEDS, APART)] == ["vda", "vdb"]


def test_what_both_sides_share_is_not_copied_onto_itself() -> None:
    """Only the disk that is not on shared storage is."""
    mixed = replace(APART, shared=frozenset({"/images"}))

    assert [disk.target for disk in disks_to_copy(COPY, NEEDS, mixed)] == ["vdb"]
    assert find_refusals(COPY, SOURCE, mixed) == ()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (replace(SOURCE, can_move=False, state="shutoff"), "it is shutoff"),
        (replace(SOURCE, is_persistent=False), "transient"),
        (replace(SOURCE, snapshots=2), "2 snapshots"),
        (replace(SOURCE, version=8_000_000), "older hypervisor (7.2.13)"),
        (replace(SOURCE, libvirt_version=9_001_000), "older libvirt (9.0.0)"),
        (replace(SOURCE, host_uuid="there"), "is this host"),
    ],
)
def test_what_the_guest_stands_against(source: SourceFacts, expected: str) -> None:
    """One refusal each."""
    [refusal] = find_refusals(USUAL, source, SHARING)

    assert expected in refusal


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (replace(SHARING, unable="no such machine", cpu=Cpu.LACKS), "can't run it: no such"),
        (replace(SHARING, cpu=Cpu.LACKS), "processor lacks"),
        (replace(SHARING, free_bytes=(128 << 20) + OVERHEAD_BYTES - 1), "MiB of memory free"),
        (replace(SHARING, bridges=frozenset()), "no bridge lab0"),
        (replace(SHARING, networks=frozenset()), "no network default"),
        (replace(SHARING, file_bytes={}), "no /boot/k"),
        (
            replace(SHARING, namesakes=(Namesake(name="web1", uuid="x", is_active=False),)),
            "another guest named web1",
        ),
        (
            replace(SHARING, namesakes=(Namesake(name="x", uuid=UUID, is_active=False),)),
            "same UUID, named x",
        ),
        (
            replace(SHARING, namesakes=(Namesake(name="web1", uuid=UUID, is_active=True),)),
            "two would write one disk",
        ),
        (replace(SHARING, shared=frozenset({"/images"})), "--copy-storage"),
    ],
)
def test_what_the_target_lacks(target: TargetFacts, expected: str) -> None:
    """One refusal each, which names it."""
    [refusal] = find_refusals(USUAL, SOURCE, target)

    assert expected in refusal


def test_what_could_not_be_looked_at_is_libvirts_to_refuse() -> None:
    """Neither bridges nor memory nor directories that its libvirt does not show."""
    blind = replace(
        SHARING,
        cpu=Cpu.UNSAID,
        free_bytes=None,
        bridges=None,
        networks=None,
        file_bytes={},
        unlooked=frozenset({"/boot"}),
    )
    enough = replace(SHARING, free_bytes=(128 << 20) + OVERHEAD_BYTES)
    stopped = replace(SHARING, namesakes=(Namesake(name="web1", uuid=UUID, is_active=False),))

    for target in (blind, enough, stopped):
        assert find_refusals(USUAL, SOURCE, target) == ()


def test_a_copy_never_writes_over_what_is_there_unasked() -> None:
    """And onto an existing disk only where it has the same size."""
    there = replace(APART, file_bytes={**APART.file_bytes, "/data/b.img": 10 << 20})
    larger = replace(APART, file_bytes={**APART.file_bytes, "/data/b.img": 11 << 20})
    onto = replace(COPY, onto_existing=True)

    assert "--onto-existing" in find_refusals(COPY, SOURCE, there)[0]
    assert find_refusals(onto, SOURCE, there) == ()
    assert "11534336 bytes and not 10485760" in find_refusals(onto, SOURCE, larger)[0]


def test_a_copy_needs_room_and_whole_disks() -> None:
    """A full or missing directory, an overlay, and a disk that others write."""
    full = replace(APART, room_bytes={**APART.room_bytes, "/images": (60 << 20) - 1})
    missing = replace(APART, room_bytes={"/images": 1 << 30})

    def with_disk(**change: bool) -> SourceFacts:
        first: NeededDisk = replace(NEEDS.disks[0], **change)
        needs: Needs = replace(NEEDS, disks=(first, *NEEDS.disks[1:]))
        return replace(SOURCE, needs=needs)

    assert "/images on b has 59 MiB free" in find_refusals(COPY, SOURCE, full)[0]
    assert "/data is not there on b" in find_refusals(COPY, SOURCE, missing)[0]
    assert "overlay" in find_refusals(COPY, with_disk(has_backing=True), APART)[0]
    assert "by others" in find_refusals(COPY, with_disk(is_shareable=True), APART)[0]


def test_all_refusals_are_told_at_once() -> None:
    """Whoever mends one sees the next."""
    found = find_refusals(
        USUAL, replace(SOURCE, snapshots=1), replace(SHARING, bridges=frozenset(), free_bytes=0)
    )

    assert len(found) == 3
