"""What differs between a domain as it is and as its document wants it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.vm.documents.adopt import Adopted
from services.vm.documents.devices import Accelerator, Cpus, Disk, DiskBus, Memory
from services.vm.documents.model import Placement, Power, VmDocument
from services.vm.documents.xml import DEFAULT_MODEL, with_seed

# A machine without a version is the newest one at the time of definition, and stays that.
_FAMILIES = {"q35": "pc-q35-", "pc": "pc-i440fx-"}
_TEXT_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value: the key's path, what it is, and what it should be."""

    path: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.path}: {self.found} -> {self.wanted}"


def in_xml(document: VmDocument) -> VmDocument:
    """Only what the domain's XML says of a document; the rest is the platform's own."""
    return replace(
        document,
        uuid="",
        cloud_init=None,
        placement=Placement(),
        power=Power.KEEP,
        autostart=False,
        priority=500,
        labels={},
    )


def follow_snapshots(wanted: VmDocument, adopted: Adopted) -> VmDocument:
    """The document with each disk as the file that its guest writes to now.

    After a snapshot that is an overlay above the document's file. Going back to the file below
    would lose what was written since, so the overlay counts as the document's disk.
    """
    tops = {file: top for top, files in adopted.below.items() for file in files}
    formats = {disk.path: disk.format for disk in adopted.document.disks}
    there = {disk.source for disk in adopted.document.disks}
    disks = tuple(
        replace(disk, path=tops[disk.path], format=formats[tops[disk.path]])
        if disk.path not in there and tops.get(disk.path) in formats
        else disk
        for disk in wanted.disks
    )
    return wanted if disks == wanted.disks else replace(wanted, disks=disks)


def differences(adopted: Adopted, wanted: VmDocument, seed: str = "") -> tuple[Difference, ...]:
    """What a redefinition would change, by the document's order."""
    found = in_xml(adopted.document)
    target = in_xml(with_seed(follow_snapshots(wanted, adopted), seed))
    target = _as_libvirt_keeps(found, target)
    others = (replace(found, disks=()), replace(target, disks=()))
    changes = (*_compare(*others, ""), *_compare_disks(found.disks, target.disks))
    return tuple(change for change in changes if not _is_open(change, adopted.document, wanted))


def _as_libvirt_keeps(found: VmDocument, wanted: VmDocument) -> VmDocument:
    """Take over what libvirt fills in where the document leaves it open."""
    if wanted.cpus.model == DEFAULT_MODEL:
        wanted = replace(wanted, cpus=replace(wanted.cpus, model=found.cpus.model))
    size = Memory(size=_normal(wanted.memory.bytes), maximum=_normal(wanted.memory.bytes_max))
    found_size = Memory(size=_normal(found.memory.bytes), maximum=_normal(found.memory.bytes_max))
    if size == found_size:  # 1GiB and 1024MiB, or a maximum that is the size
        wanted = replace(wanted, memory=found.memory)
    if _normal_cpus(wanted.cpus) == _normal_cpus(found.cpus):
        wanted = replace(wanted, cpus=found.cpus)
    networks = tuple(
        replace(card, mac=_shown_mac(wanted, index)) for index, card in enumerate(wanted.networks)
    )
    return replace(wanted, networks=networks)


def _is_open(change: Difference, found: VmDocument, wanted: VmDocument) -> bool:
    """Whether the document leaves to the host what differs."""
    is_test = found.accelerator is Accelerator.AUTO  # libvirt's test driver has no machines
    if change.path == "accelerator":
        return is_test or wanted.accelerator is Accelerator.AUTO
    family = _FAMILIES.get(wanted.machine)
    is_version = family is not None and found.machine.startswith(family)
    return change.path == "machine" and (is_test or is_version)


def _shown_mac(document: VmDocument, index: int) -> str:
    """As adoption shows it: nothing where it follows from name and place."""
    plain = replace(document.networks[index], mac="")
    others = (*document.networks[:index], plain, *document.networks[index + 1 :])
    try:
        derived = replace(document, networks=others).mac(index)
    except ValueError:  # another card has that address: this one's was said for a reason
        return document.networks[index].mac
    said = document.networks[index].mac
    return "" if said == derived else said


def _normal(size_bytes: int) -> str:
    return f"{size_bytes >> 10}KiB"


def _normal_cpus(cpus: Cpus) -> Cpus:
    return replace(cpus, maximum=0 if cpus.maximum == cpus.count else cpus.maximum)


def _compare(found: object, wanted: object, path: str) -> Iterator[Difference]:
    if found == wanted:
        return
    if dataclasses.is_dataclass(found) and type(found) is type(wanted):
        for field in dataclasses.fields(found):
            below = f"{path}.{field.name}" if path else field.name
            yield from _compare(getattr(found, field.name), getattr(wanted, field.name), below)
    elif isinstance(found, tuple) and isinstance(wanted, tuple):
        for index in range(max(len(found), len(wanted))):
            one = found[index] if index < len(found) else None
            other = wanted[index] if index < len(wanted) else None
            yield from _compare(one, other, f"{path}[{index}]")
    else:
        yield Difference(path=path, found=_text(found), wanted=_text(wanted))


def _compare_disks(found: tuple[Disk, ...], wanted: tuple[Disk, ...]) -> Iterator[Difference]:
    """By source: libvirt keeps disks in the order of their buses, not in that of the document."""
    ours, theirs = _by_source(found), _by_source(wanted)
    for source in [*theirs, *(source for source in ours if source not in theirs)]:
        one, other = ours.get(source), theirs.get(source)
        if one is None or other is None:
            there, not_there = ("none", "there") if one is None else ("there", "none")
            yield Difference(path=f"disks[{source}]", found=there, wanted=not_there)
        else:
            yield from _compare(one, other, f"disks[{source}]")
    # The place on its bus is the guest's name for a disk.
    for bus in DiskBus:
        order = [[key for key, disk in side.items() if disk.bus is bus] for side in (ours, theirs)]
        if order[0] != order[1] and sorted(order[0]) == sorted(order[1]):
            words = [", ".join(keys)[:_TEXT_MAX] for keys in order]
            yield Difference(path=f"disks on {bus.value}", found=words[0], wanted=words[1])


def _by_source(disks: tuple[Disk, ...]) -> dict[str, Disk]:
    found: dict[str, Disk] = {}
    for disk in disks:
        source = disk.source or "empty"
        while source in found:  # of empty drives there may be several
            source += "+"
        found[source] = disk
    return found


def _text(value: object) -> str:
    if value is None:
        return "none"
    if hasattr(value, "value"):
        return str(value.value)
    for name in ("path", "volume", "bridge", "network"):  # the telling one of a disk or card
        if getattr(value, name, ""):
            return str(getattr(value, name))[:_TEXT_MAX]
    return str(value)[:_TEXT_MAX] or '""'
