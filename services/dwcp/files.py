"""The file that is sent and the file that appears: the only code here that touches a disk.

All of it may block and runs on the transport's pool, except where it says otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.dwcp.errors import (
    DiskFullError,
    FileChangedError,
    FileMissingError,
    FileNotRegularError,
    FileUnreadableError,
    StoreError,
    TargetExistsError,
)
from services.dwcp.plan import ChunkHashes, ChunkPlan, hash_of, is_zero
from services.files import sync_directory

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
PART_SUFFIX = ".part"
# Disk blocks are 512 bytes in stat, whatever the file system's own are.
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Identity:
    """What changes when a file's content is changed."""

    size_bytes: int
    modified_ns: int


class SourceFile:
    """A file opened for sending; opening does not block on pipes and devices.

    Args:
        path: absolute.

    Raises:
        FileMissingError, FileUnreadableError, FileNotRegularError: see there.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise FileMissingError(f"there is no file {path}") from exc
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # a socket, or a device without a driver
                raise FileNotRegularError(f"{path} is not a regular file") from exc
            raise FileUnreadableError(f"can't read {path}: {exc.strerror}") from exc
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._fd)
            raise FileNotRegularError(f"{path} is not a regular file")
        self._identity = Identity(found.st_size, found.st_mtime_ns)
        self.size_bytes = found.st_size
        self.allocated_bytes = min(found.st_size, found.st_blocks * _BLOCK_BYTES)

    def chunks(self, plan: ChunkPlan) -> Iterator[int]:
        """The chunks that hold data, in order; holes of a sparse file are left out."""
        chunk = 0
        while chunk < plan.chunks:
            try:
                data = os.lseek(self._fd, plan.offset(chunk), os.SEEK_DATA)
                hole = os.lseek(self._fd, data, os.SEEK_HOLE)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                raise FileUnreadableError(f"can't read {self.path}: {exc.strerror}") from exc
            end = min(plan.chunks, -(-hole // plan.chunk_bytes))
            yield from range(max(chunk, data // plan.chunk_bytes), end)
            chunk = max(chunk + 1, end)

    def read(self, plan: ChunkPlan, chunk: int) -> bytes:
        """Read one chunk.

        Raises:
            FileUnreadableError: the disk says no.
            FileChangedError: the file has become shorter.
        """
        length, offset = plan.length(chunk), plan.offset(chunk)
        parts: list[bytes] = []
        while length:
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as exc:
                raise FileUnreadableError(f"can't read {self.path}: {exc.strerror}") from exc
            if not part:
                raise FileChangedError(f"{self.path} became shorter while it was sent")
            parts.append(part)
            length, offset = length - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check_unchanged(self) -> None:
        """Compare size and time of change with those at opening.

        Raises:
            FileChangedError: somebody wrote to the file.
        """
        found = os.fstat(self._fd)
        if Identity(found.st_size, found.st_mtime_ns) != self._identity:
            raise FileChangedError(f"{self.path} changed while it was sent")

    def close(self) -> None:
        """Close it; more than once is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PartFile:
    """A received file before it has its name: ``.<name>.<transfer>.part``, locked while we live.

    Args:
        directory: where the file is to appear; created if need be.
        name: checked by services.dwcp.plan.check_name.
        transfer: id in hex.
        plan: of the whole file.
        needed_bytes: disk space that must be free, reserve included.

    Raises:
        TargetExistsError: a file of this name and another size exists.
        DiskFullError: less than ``needed_bytes`` are free.
        StoreError: the directory can't be used.
    """

    def __init__(
        self, directory: Path, name: str, transfer: str, plan: ChunkPlan, *, needed_bytes: int
    ) -> None:
        self._directory = directory
        self._target = directory / name
        self._part = directory / f".{name}.{transfer}{PART_SUFFIX}"
        self._plan = plan
        with _store_errors(name):
            make_directory(directory)
            self._refuse_other_target()
            system = os.statvfs(directory)
            if (free := system.f_bavail * system.f_frsize) < needed_bytes:
                raise DiskFullError(f"{name} needs {needed_bytes} bytes, {free} are free")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._part, flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, plan.size_bytes)

    def write(self, chunk: int, raw: bytes | bytearray) -> None:
        """Write one chunk in its place.

        Raises:
            DiskFullError, StoreError: see there.
        """
        view = memoryview(raw)
        offset = self._plan.offset(chunk)
        with _store_errors(self._target.name):
            while view:
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count

    def commit(self, digest: bytes) -> None:
        """Make the file durable under its name. Never replaces another file.

        Args:
            digest: of the content; a file of this name with the same one counts as ours.

        Raises:
            TargetExistsError: the name belongs to another content.
            DiskFullError, StoreError: see there.
        """
        with _store_errors(self._target.name):
            os.fchmod(self._fd, FILE_MODE)
            os.fsync(self._fd)
            try:
                # Not rename: it would replace what somebody put there in the meantime.
                os.link(self._part, self._target, follow_symlinks=False)
            except FileExistsError:
                if digest_of(self._target, self._plan) != digest:
                    raise TargetExistsError(
                        f"the receiver has another file named {self._target.name}"
                    ) from None
            self._part.unlink()
            sync_directory(self._directory)

    def close(self) -> None:
        """Close it, and remove what is unfinished; more than once is fine."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # committed; or a directory that went read-only
                self._part.unlink()
            os.close(self._fd)
            self._fd = -1

    def _refuse_other_target(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self._target)
            if not stat.S_ISREG(found.st_mode) or found.st_size != self._plan.size_bytes:
                raise TargetExistsError(f"the receiver has another file named {self._target.name}")


def digest_of(path: Path, plan: ChunkPlan) -> bytes | None:
    """The digest of a file as services.dwcp.plan defines it; None when its size is another one.

    Raises:
        FileMissingError, FileUnreadableError, FileNotRegularError, FileChangedError: see there.
    """
    source = SourceFile(str(path))
    try:
        if source.size_bytes != plan.size_bytes:
            return None
        hashes = ChunkHashes(plan)
        for chunk in source.chunks(plan):
            raw = source.read(plan, chunk)
            if not is_zero(raw):
                hashes.add(chunk, hash_of(raw))
        return hashes.digest()
    finally:
        source.close()


def make_directory(directory: Path) -> None:
    """Create the directory of received files."""
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)


def has_unfinished(directory: Path) -> bool:
    """Whether there are unfinished files; looks at names alone, so that a loop may ask."""
    with os.scandir(directory) as entries:
        return any(entry.name.endswith(PART_SUFFIX) for entry in entries)


def remove_abandoned(directory: Path, transfer: str = "*") -> int:
    """Remove unfinished files whose process is gone.

    Args:
        directory: of received files; need not exist.
        transfer: only this one's.

    Returns:
        How many were removed.
    """
    removed = 0
    for part in directory.glob(f".*.{transfer}{PART_SUFFIX}"):
        with contextlib.suppress(OSError):  # locked by its transport, or gone meanwhile
            fd = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                removed += 1
            finally:
                os.close(fd)
    return removed


@contextlib.contextmanager
def _store_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"no room for {name} at the receiver") from exc
        if exc.errno == errno.EFBIG:
            raise StoreError(f"{name} is too large for the receiver's file system") from exc
        raise StoreError(f"the receiver can't write {name}: {exc.strerror}") from exc
