"""Snapshots as XML, their chains, and how they are removed."""

from __future__ import annotations

import pytest

from services.vm.operations.device_xml import Disk
from services.vm.operations.errors import OperationRefusedError
from services.vm.operations.snapshot_rules import (
    CHAIN_MAX,
    Commit,
    in_order,
    parse_snapshot,
    plan_removal,
    plan_snapshot,
)
from services.vm.operations.storage_model import SnapshotCreateRequest, SnapshotKind, SnapshotRecord


def disk(*backing: str, file: str = "/i/web1.qcow2", **fields: object) -> Disk:
    """A disk of a guest."""
    known = {"target": "vda", "format": "qcow2", "device": "disk", "is_readonly": False}
    return Disk(file=file, backing=backing, **{**known, **fields})  # type: ignore[arg-type] # a test's


def request(name: str = "one", kind: SnapshotKind = SnapshotKind.DISK) -> SnapshotCreateRequest:
    """A request for a snapshot."""
    return SnapshotCreateRequest(domain="web1", snapshot=name, kind=kind, description="<why>")


def test_each_written_disk_gets_an_overlay_beside_it() -> None:
    """Drives and read-only disks are left out; memory gets a file of its own."""
    disks = [
        disk(),
        disk(target="sda", device="cdrom", file=""),
        disk(target="vdb", is_readonly=True),
    ]
    plan = plan_snapshot(request(kind=SnapshotKind.MEMORY), "web1", disks)

    assert plan.files == {"vda": "/i/web1.one.qcow2"}
    assert plan.memory == "/i/web1.one.memory"
    assert '<disk name="sda" snapshot="no" />' in plan.xml
    assert "&lt;why&gt;" in plan.xml


def test_names_of_overlays_do_not_grow() -> None:
    """The overlay of an overlay is named after the first file."""
    plan = plan_snapshot(request("two"), "web1", [disk("/i/web1.qcow2", file="/i/web1.one.qcow2")])

    assert plan.files == {"vda": "/i/web1.two.qcow2"}


def test_a_chain_has_a_limit() -> None:
    """The last that fits is taken, the next refused with what to do."""
    full = [f"/i/{number}.qcow2" for number in range(CHAIN_MAX - 1)]
    plan_snapshot(request(), "web1", [disk(*full[1:])])

    with pytest.raises(OperationRefusedError, match="remove a snapshot first"):
        plan_snapshot(request(), "web1", [disk(*full)])


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "-x", "x" * 65])
def test_a_snapshot_needs_a_name_that_is_safe_in_a_path(name: str) -> None:
    """It becomes part of a file's name."""
    with pytest.raises(OperationRefusedError, match="no name of a snapshot"):
        plan_snapshot(request(name), "web1", [disk()])


def test_a_guest_without_disks_can_t_be_frozen() -> None:
    """Neither can a disk that is no file."""
    for disks in ([], [disk(file="")]):
        with pytest.raises(OperationRefusedError):
            plan_snapshot(request(), "web1", disks)


def test_libvirt_s_description_is_understood() -> None:
    """Kinds are told apart by where disks and memory are."""
    external = """<domainsnapshot><name>one</name><state>disk-snapshot</state>
      <creationTime>17</creationTime><parent><name>zero</name></parent><memory snapshot='no'/>
      <disks><disk name='vda' snapshot='external'><source file='/i/o'/></disk>
      <disk name='sda' snapshot='no'/></disks></domainsnapshot>"""
    record, memory = parse_snapshot(external, is_current=True)
    assert (record.kind, record.parent, record.created_s) == (SnapshotKind.DISK, "zero", 17)
    assert (record.files, memory) == ({"vda": "/i/o"}, "")

    with_memory = external.replace("snapshot='no'/>\n", "snapshot='external' file='/i/m'/>\n", 1)
    assert parse_snapshot(with_memory, is_current=False)[1] == "/i/m"
    internal = "<domainsnapshot><name>a</name><memory snapshot='internal'/></domainsnapshot>"
    assert parse_snapshot(internal, is_current=False)[0].kind is SnapshotKind.INTERNAL


def test_snapshots_of_one_second_are_in_the_order_in_which_they_were_taken() -> None:
    """Each comes after the one that it goes on from, whatever its name; a circle ends, too."""

    def snapshot(name: str, parent: str) -> SnapshotRecord:
        return SnapshotRecord(name=name, kind=SnapshotKind.DISK, parent=parent, created_s=7)

    found = in_order([snapshot("a", "b"), snapshot("b", "z"), snapshot("z", "")])

    assert [item.name for item in found] == ["z", "b", "a"]
    assert len(in_order([snapshot("x", "y"), snapshot("y", "x")])) == 2


def test_a_removal_writes_each_overlay_into_the_file_below() -> None:
    """Where the guest writes to the overlay it is moved at the end; what is out needs nothing."""
    snapshot = SnapshotRecord(
        name="one", kind=SnapshotKind.DISK, files={"vda": "/i/one", "vdb": "/i/gone"}
    )
    newest = disk("/i/base", file="/i/one")
    older = disk("/i/one", "/i/base", file="/i/two")

    for found, is_active in ((newest, True), (older, False)):
        assert plan_removal(snapshot, [found, disk(target="vdb", file="/i/b")]) == (
            Commit(target="vda", top="/i/one", base="/i/base", is_active=is_active),
        )
    with pytest.raises(OperationRefusedError, match="stays"):
        plan_removal(snapshot, [disk(file="/i/one")])
