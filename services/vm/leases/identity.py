"""What a disk is, whatever its path. Blocks: file systems are asked.

On one node a file is its device and inode number, so that symbolic and hard links, and bind mounts,
lead to the same; a block device is its number. Between nodes these mean nothing. Storage that
several nodes reach is known by a mark, a file ``.novacron-storage`` with a name in it, in one of
the directories above, or by what a network file system is mounted from. A disk has all the keys
that can be found for it, and one in common is enough to be the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.vm.leases.disks import DiskSource, SourceKind
from services.vm.leases.errors import StorageMarkError
from services.vm.leases.model import DiskMode, DiskUse

MARK_FILE = ".novacron-storage"
# Whose inode numbers are the same on all hosts that have mounted it.
NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs", "gfs2", "ocfs2", "lustre")
)
# libvirt gives up at 200; an image that names itself must not keep us here.
CHAIN_MAX = 200
_MARK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MARK_BYTES_MAX = 256
_QCOW2 = struct.Struct(">4sIQI")
_QCOW2_MAGIC = b"QFI\xfb"
_NAME_BYTES_MAX = 1023
# An index of PostgreSQL takes 2704 bytes.
_KEY_BYTES_MAX = 1000
_KEY_KEPT = 200
_OFFSET_MAX = 1 << 40
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*:")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted network file system."""

    kind: str
    source: str


def local_prefix(node_id: str) -> str:
    """What the keys begin with that mean something on one node alone."""
    return f"local:{node_id}:"


class Identifier:
    """Finds the keys of disks.

    Args:
        node_id: of this node.
        volume_path: the path of a pool's volume; "" where there is none.
        mount_table: the kernel's list of mounts.
    """

    def __init__(
        self,
        node_id: str,
        volume_path: Callable[[str, str], str],
        mount_table: Path = Path("/proc/self/mountinfo"),
    ) -> None:
        self._prefix = local_prefix(node_id)
        self._volume_path = volume_path
        self._mount_table = mount_table

    def uses(self, sources: Iterable[DiskSource]) -> tuple[DiskUse, ...]:
        """All keys of the disks and of what they are overlays of, which is read.

        A file that is not there has none: libvirt starts no guest on it.

        Raises:
            StorageMarkError: the mark of a storage can't be understood.
        """
        found: list[DiskUse] = []
        for source in sources:
            place = source.place
            if source.kind is SourceKind.NETWORK:
                found.append(_use(f"net:{place}", source.mode, place))
                continue
            if source.kind is SourceKind.VOLUME:
                pool, _, volume = place.partition("/")
                place = self._volume_path(pool, volume)
            if place:
                found += self._of_file(place, source.mode)
                for below in chain(place):
                    found += self._of_file(below, DiskMode.READ)
        return tuple(found)

    def _of_file(self, path: str, mode: DiskMode) -> list[DiskUse]:
        real = os.path.realpath(path)
        try:
            status = Path(real).stat()
        except FileNotFoundError:
            return []
        except OSError:  # a directory that we may not search: its name is all there is
            return [_use(f"{self._prefix}path:{real}", mode, path)]
        device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        if stat.S_ISBLK(status.st_mode):
            number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
            return [_use(f"{self._prefix}block:{number}", mode, path)]
        keys = [f"{self._prefix}{device}:{status.st_ino}"]
        marked = _find_mark(Path(real), status.st_dev)
        if marked is not None:
            name, root = marked
            keys.append(f"shared:{name}:inode:{status.st_ino}")
            keys.append(f"shared:{name}:path:{Path(real).relative_to(root)}")
        mount = self._mounts().get(device)
        if mount is not None:
            keys.append(f"mount:{mount.kind}:{mount.source}:{status.st_ino}")
        return [_use(key, mode, path) for key in keys]

    def _mounts(self) -> dict[str, Mount]:
        try:
            return read_mounts(self._mount_table.read_text(errors="surrogateescape"))
        except OSError:
            return {}


def read_mounts(text: str) -> dict[str, Mount]:
    """The network file systems in the kernel's list of mounts, by device number. Pure.

    Source: proc(5), /proc/pid/mountinfo; optional fields end with a dash.
    """
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) > 2 and len(more) > 1 and more[0] in NETWORK_FILE_SYSTEMS:
            found[fields[2]] = Mount(more[0], _plain(more[1]))
    return found


def chain(path: str) -> Iterator[str]:
    """The files that an image is an overlay of, from the top; none for what is no qcow2."""
    seen = {os.path.realpath(path)}
    for _ in range(CHAIN_MAX):
        path = backing_file(path)
        if not path or os.path.realpath(path) in seen:
            return
        seen.add(os.path.realpath(path))
        yield path


def backing_file(path: str) -> str:
    """The file below a qcow2 image; "" where there is none, or it is no file.

    Source: docs/interop/qcow2.txt of QEMU, header bytes 0 to 19.
    """
    try:
        # A pipe in the place of an image must not keep us waiting for who writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        name = _backing_name(descriptor)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    name = name.removeprefix("file:")
    if not name or _PROTOCOL.match(name) or "\0" in name:
        return ""
    return str(Path(path).parent / name)


def _backing_name(descriptor: int) -> str:
    head = os.pread(descriptor, _QCOW2.size, 0)
    if len(head) < _QCOW2.size:
        return ""
    magic, _, offset, size = _QCOW2.unpack(head)
    if magic != _QCOW2_MAGIC or not 0 < offset <= _OFFSET_MAX or not 0 < size <= _NAME_BYTES_MAX:
        return ""
    return os.fsdecode(os.pread(descriptor, size, offset))


def _use(key: str, mode: DiskMode, path: str) -> DiskUse:
    """File names are bytes, and an image may name any; a database takes text of bounded length."""
    key, path = _printable(key), _printable(path)
    if len(key.encode()) > _KEY_BYTES_MAX:
        key = f"{key[:_KEY_KEPT]}:{hashlib.sha256(key.encode()).hexdigest()}"
    return DiskUse(key=key, mode=mode, path=path)


def _printable(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _find_mark(path: Path, device: int) -> tuple[str, Path] | None:
    """The name of the storage, and the directory with its mark: the nearest above."""
    for directory in path.parents:
        try:
            if directory.stat().st_dev != device:
                return None
            with (directory / MARK_FILE).open("rb") as file:
                data = file.read(_MARK_BYTES_MAX + 1)
        except OSError:
            continue
        name = data.decode("ascii", "replace").strip()
        if _MARK.fullmatch(name) is None:
            raise StorageMarkError(
                f"{directory / MARK_FILE} has {name!r:.40}; expected one name of 1 to 63 letters, "
                "digits, dots, dashes and underscores, the same on all nodes of the storage",
                path=str(directory / MARK_FILE),
            )
        return name, directory
    return None


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
