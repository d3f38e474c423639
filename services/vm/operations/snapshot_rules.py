"""Snapshots: their XML, the chain that they make, and how one is taken out of it. Pure.

A snapshot of a disk freezes the file that the guest wrote to, and an overlay in a new file takes
what is written from then on. Removing the snapshot writes the overlay's content into the file
below and takes it out of the chain; where it is the file that the guest writes to, the guest is
moved to the file below at the end (pivot).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from services.vm.operations.device_xml import Disk
from services.vm.operations.errors import OperationRefusedError
from services.vm.operations.storage_model import SnapshotCreateRequest, SnapshotKind, SnapshotRecord

# Each read that the guest's newest file does not hold goes down the chain.
CHAIN_MAX = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPlan:
    """What taking a snapshot makes.

    Attributes:
        xml: for libvirt.
        files: the overlay of each disk, by target.
        memory: the file of the memory; "" for none.
    """

    xml: str
    files: dict[str, str]
    memory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One disk's step in removing a snapshot: write ``top`` into ``base``.

    Attributes:
        is_active: the guest writes to ``top``, and is moved to ``base`` at the end.
    """

    target: str
    top: str
    base: str
    is_active: bool


def plan_snapshot(
    request: SnapshotCreateRequest, guest: str, disks: Iterable[Disk], *, chain_max: int = CHAIN_MAX
) -> SnapshotPlan:
    """What is to be made.

    Args:
        request: what is asked.
        guest: its name.
        disks: of the guest as it runs.
        chain_max: files of a chain at most, the new one included.

    Raises:
        OperationRefusedError: the name is none, a disk can't be frozen, or a chain is full.
    """
    if not _NAME.fullmatch(request.snapshot):
        raise OperationRefusedError(
            f"{request.snapshot!r:.80} is no name of a snapshot: letters, digits, '.', '_', '-'"
        )
    root = ET.Element("domainsnapshot")
    ET.SubElement(root, "name").text = request.snapshot
    if request.description:
        ET.SubElement(root, "description").text = request.description
    if request.kind is SnapshotKind.INTERNAL:
        return SnapshotPlan(xml=ET.tostring(root, encoding="unicode"), files={}, memory="")
    files: dict[str, str] = {}
    listed = ET.Element("disks")
    for disk in disks:
        if disk.device != "disk" or disk.is_readonly:
            ET.SubElement(listed, "disk", name=disk.target, snapshot="no")
            continue
        files[disk.target] = _overlay(request.snapshot, disk, chain_max)
        element = ET.SubElement(listed, "disk", name=disk.target, snapshot="external")
        ET.SubElement(element, "driver", type="qcow2")
        ET.SubElement(element, "source", file=files[disk.target])
    if not files:
        raise OperationRefusedError(f"{guest} has no disk that could be frozen")
    memory = ""
    if request.kind is SnapshotKind.MEMORY:
        directory = PurePath(next(iter(files.values()))).parent
        memory = str(directory / f"{guest}.{request.snapshot}.memory")
        ET.SubElement(root, "memory", snapshot="external", file=memory)
    else:
        ET.SubElement(root, "memory", snapshot="no")
    root.append(listed)
    return SnapshotPlan(xml=ET.tostring(root, encoding="unicode"), files=files, memory=memory)


def parse_snapshot(snapshot_xml: str, *, is_current: bool) -> tuple[SnapshotRecord, str]:
    """A snapshot as libvirt describes it, and the file of its memory ("" for none)."""
    root = ET.fromstring(snapshot_xml)  # noqa: S314 - libvirt's own
    files: dict[str, str] = {}
    for disk in root.iterfind("./disks/disk"):
        source = disk.find("source")
        if disk.get("snapshot") == "external" and source is not None:
            files[disk.get("name", "")] = source.get("file", "")
    memory = root.find("memory")
    memory_file = ""
    if memory is not None and memory.get("snapshot") == "external":
        memory_file = memory.get("file", "")
    if memory_file:
        kind = SnapshotKind.MEMORY
    else:
        kind = SnapshotKind.DISK if files else SnapshotKind.INTERNAL
    record = SnapshotRecord(
        name=root.findtext("name") or "",
        kind=kind,
        state=root.findtext("state") or "",
        parent=root.findtext("./parent/name") or "",
        is_current=is_current,
        created_s=int(root.findtext("creationTime") or 0),
        description=root.findtext("description") or "",
        files=files,
    )
    return record, memory_file


def in_order(snapshots: Iterable[SnapshotRecord]) -> tuple[SnapshotRecord, ...]:
    """Each after the one that it goes on from; libvirt's times have whole seconds and may step."""
    known = {snapshot.name: snapshot for snapshot in snapshots}

    def depth(snapshot: SnapshotRecord) -> int:
        count = 0
        while snapshot.parent in known and count <= len(known):
            snapshot = known[snapshot.parent]
            count += 1
        return count

    ordered = sorted(known.values(), key=lambda item: (depth(item), item.created_s, item.name))
    return tuple(ordered)


def plan_removal(snapshot: SnapshotRecord, disks: Iterable[Disk]) -> tuple[Commit, ...]:
    """How each disk's overlay goes out of its chain; what is out already needs nothing.

    Args:
        snapshot: the one to remove.
        disks: of the guest as it runs, with their chains.

    Raises:
        OperationRefusedError: below an overlay there is nothing that could take its content.
    """
    steps = []
    for disk in disks:
        top = snapshot.files.get(disk.target)
        chain = (disk.file, *disk.backing)
        if top is None or top not in chain:
            continue
        place = chain.index(top)
        if place + 1 == len(chain):
            raise OperationRefusedError(
                f"{top} of {disk.target} is an overlay of nothing that libvirt knows; "
                "the snapshot stays"
            )
        steps.append(
            Commit(target=disk.target, top=top, base=chain[place + 1], is_active=place == 0)
        )
    return tuple(steps)


def _overlay(snapshot: str, disk: Disk, chain_max: int) -> str:
    if not disk.file:
        raise OperationRefusedError(f"{disk.target} is no file and can't be frozen")
    if 2 + len(disk.backing) > chain_max:
        raise OperationRefusedError(
            f"{disk.target} is a chain of {1 + len(disk.backing)} files and may have {chain_max}: "
            "remove a snapshot first"
        )
    path = PurePath(disk.file)
    # Of an overlay of an earlier snapshot, the name goes on from the first file's.
    base = PurePath(disk.backing[-1]) if disk.backing else path
    return str(path.with_name(f"{base.stem}.{snapshot}.qcow2"))
