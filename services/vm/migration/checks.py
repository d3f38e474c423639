"""What stands against moving a guest, from what is known of both sides. Pure.

Each refusal is a sentence that says what to do; all are found, not the first alone. What could not
be looked at is no refusal: libvirt looks itself before the first byte is sent, and the guest runs
on where it is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.vm.migration.model import MigrateRequest, Storage
from services.vm.migration.needs import NeededDisk, Needs

# A hypervisor needs this much beside the guest's memory, roughly.
OVERHEAD_BYTES = 32 << 20


class Cpu(enum.Enum):
    """Whether the target has the guest's processor."""

    FITS = "fits"
    LACKS = "lacks"
    UNSAID = "unsaid"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """The guest's side.

    Attributes:
        state: of the guest, in libvirt's words.
        can_move: it runs, or is paused.
        disk_bytes: size of each disk as the guest sees it, by target.
        disk_used_bytes: what each takes, by target.
        version, libvirt_version: of the hypervisor and libvirt, as libvirt counts them.
    """

    needs: Needs
    state: str
    can_move: bool
    is_paused: bool
    is_persistent: bool
    snapshots: int
    version: int
    libvirt_version: int
    host_uuid: str
    disk_bytes: Mapping[str, int] = field(default_factory=dict)
    disk_used_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namesake:
    """A domain of the target with the guest's name or UUID."""

    name: str
    uuid: str
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """The other side; None where it could not be looked at.

    Attributes:
        unable: why the target can't run such a machine; "" where it can.
        free_bytes: memory that no one uses.
        bridges, networks: those that are there and up.
        namesakes: domains with the guest's name or UUID.
        file_bytes: size of each file that was asked for, by path; a missing key is a missing file.
        shared: directories in which both sides see the same files.
        room_bytes: free space by directory.
        unlooked: directories whose files could not be looked at.
    """

    version: int
    libvirt_version: int
    host_uuid: str
    unable: str = ""
    cpu: Cpu = Cpu.UNSAID
    free_bytes: int | None = None
    bridges: frozenset[str] | None = None
    networks: frozenset[str] | None = None
    namesakes: tuple[Namesake, ...] = ()
    file_bytes: Mapping[str, int] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    room_bytes: Mapping[str, int] = field(default_factory=dict)
    unlooked: frozenset[str] = frozenset()


def disks_to_copy(request: MigrateRequest, needs: Needs, target: TargetFacts) -> list[NeededDisk]:
    """Those that the guest writes and that the two sides do not share."""
    if request.storage is not Storage.COPY:
        return []
    return [disk for disk in needs.disks if disk.is_written and disk.directory not in target.shared]


def find_refusals(
    request: MigrateRequest, source: SourceFacts, target: TargetFacts
) -> tuple[str, ...]:
    """A sentence for each thing that stands against it; none where nothing does."""
    node = request.node
    return (
        *_of_guest(source),
        *_of_hosts(source, target, node),
        *_of_devices(source.needs, target, node),
        *_of_disks(request, source, target),
        *_of_files(source.needs, target, node),
    )


def _of_guest(source: SourceFacts) -> Iterator[str]:
    if not source.can_move:
        yield f"it is {source.state}; a guest that runs can be moved"
    if not source.is_persistent:
        yield "it is transient, and nothing would be left of it if both sides failed; define it"
    if source.snapshots:
        yield (
            f"it has {source.snapshots} snapshots, which libvirt does not take along: "
            "delete them first"
        )
    for words in source.needs.host_bound:
        yield f"it has {words}; detach it first"


def _of_hosts(source: SourceFacts, target: TargetFacts, node: str) -> Iterator[str]:
    if source.host_uuid == target.host_uuid:
        yield f"{node} is this host: its libvirt has the same UUID"
    if target.version < source.version:
        yield (
            f"{node} has an older hypervisor ({_version(target.version)}) than this host "
            f"({_version(source.version)}); guests move to the same or a newer one"
        )
    if target.libvirt_version < source.libvirt_version:
        yield (
            f"{node} has an older libvirt ({_version(target.libvirt_version)}) than this host "
            f"({_version(source.libvirt_version)})"
        )
    if target.unable:
        yield f"{node} can't run it: {target.unable}"
    elif target.cpu is Cpu.LACKS:
        yield f"{node}'s processor lacks what the guest was started with"
    needed = source.needs.memory_bytes + OVERHEAD_BYTES
    if target.free_bytes is not None and target.free_bytes < needed:
        yield (
            f"{node} has {target.free_bytes >> 20} MiB of memory free, and it needs "
            f"{needed >> 20} MiB"
        )
    for other in target.namesakes:
        if other.uuid != source.needs.uuid:
            yield f"{node} has another guest named {other.name} ({other.uuid})"
        elif other.name != source.needs.name:
            yield f"{node} has a guest of the same UUID, named {other.name}"
        elif other.is_active:
            yield f"{node} runs a guest of the same name and UUID: two would write one disk"


def _of_devices(needs: Needs, target: TargetFacts, node: str) -> Iterator[str]:
    for kind, wanted, known in (
        ("bridge", needs.bridges, target.bridges),
        ("network", needs.networks, target.networks),
    ):
        for name in wanted:
            if known is not None and name not in known:
                yield f"{node} has no {kind} {name}"


def _of_disks(request: MigrateRequest, source: SourceFacts, target: TargetFacts) -> Iterator[str]:
    node = request.node
    copied = disks_to_copy(request, source.needs, target)
    room: dict[str, int] = {}
    for disk in source.needs.disks:
        if not disk.is_written or disk.directory in target.shared:
            continue
        if disk not in copied:
            yield (
                f"{disk.target} ({disk.file}) is not on storage that {node} shares: "
                "copy it along with --copy-storage"
            )
            continue
        if disk.has_backing:
            yield f"{disk.target} is an overlay of another image, which can't be copied along"
        if disk.is_shareable:
            yield f"{disk.target} may be written by others while it is copied"
        size = source.disk_bytes.get(disk.target, 0)
        found = target.file_bytes.get(disk.file)
        if found is None:
            used = source.disk_used_bytes.get(disk.target, size)
            room[disk.directory] = room.get(disk.directory, 0) + used
        elif not request.onto_existing:
            yield (
                f"{disk.file} is there already on {node}: remove it, or write over it with "
                "--onto-existing"
            )
        elif found != size:
            yield f"{disk.file} on {node} has {found} bytes and not {size} as here"
    for directory, needed in room.items():
        free = target.room_bytes.get(directory)
        if free is None:
            yield f"{directory} is not there on {node}, or can't be looked at: make it"
        elif free < needed:
            yield f"{directory} on {node} has {free >> 20} MiB free, and {needed >> 20} are needed"


def _of_files(needs: Needs, target: TargetFacts, node: str) -> Iterator[str]:
    for file in needs.read_files:
        directory = file.rpartition("/")[0] or "/"
        is_seen = directory not in target.unlooked and directory not in target.shared
        if is_seen and file not in target.file_bytes:
            yield f"{node} has no {file}, which it reads: copy it there, or detach it"


def _version(number: int) -> str:
    # libvirt packs a version as major * 1,000,000 + minor * 1,000 + release.
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
