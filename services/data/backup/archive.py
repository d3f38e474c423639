"""The two files of a backup on disk: written as a whole or not at all, and read with care."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.data.backup import manifest as manifests
from services.data.backup.errors import (
    BackupDamagedError,
    BackupError,
    BackupExistsError,
    BackupWriteError,
)
from services.data.backup.manifest import Manifest

CHUNK_BYTES = 1 << 20
Progress = Callable[[int], None]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def manifest_path(file: Path) -> Path:
    """Where a backup's manifest is."""
    return file.with_name(f"{file.name}.json")


class ArchiveWriter:
    """Writes a backup beside its place, ``<file>.partial``, and puts it there complete.

    Use it through ``new_archive``.

    Args:
        file: the place.
        descriptor: the open partial file.
    """

    def __init__(self, file: Path, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Add to the file.

        Raises:
            BackupWriteError: the disk is full or fails.
        """
        view = memoryview(chunk)
        with _explained(self._file):
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def commit(self, manifest: Manifest) -> None:
        """Bring both files to the disk and to their places.

        The manifest comes last: a file without one is no backup.

        Raises:
            BackupExistsError: somebody else has put a file there in the meantime.
            BackupWriteError: the disk is full or fails.
        """
        place = manifest_path(self._file)
        draft = _partial(place)
        with _explained(self._file):
            os.fsync(self._descriptor)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as stream:
                stream.write(manifests.encode(manifest))
                stream.flush()
                os.fsync(stream.fileno())
            _put(_partial(self._file), self._file)
            _put(draft, place)
            _sync_directory(self._file.parent)


@contextmanager
def new_archive(file: Path) -> Iterator[ArchiveWriter]:
    """A backup to be written; nothing of it is left unless it was committed.

    Raises:
        BackupExistsError: the file or its manifest is there, or is being written.
        BackupWriteError: it can't be made.
    """
    for place in (file, manifest_path(file)):
        if place.exists() or place.is_symlink():
            raise BackupExistsError(f"{place} exists; a backup overwrites nothing: name another")
    partial = _partial(file)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with _explained(file):
        descriptor = os.open(partial, flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupExistsError(f"{partial} is being written by another program") from None
        os.ftruncate(descriptor, 0)  # what one that was killed has left
        try:
            yield ArchiveWriter(file, descriptor)
        finally:
            for left in (partial, _partial(manifest_path(file))):
                left.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def read_manifest(file: Path) -> Manifest:
    """The manifest of a backup.

    Raises:
        BackupDamagedError: one of the files is missing, or the manifest is none.
        BackupError: it can't be read.
        BackupUnfitError: it is of a newer program.
    """
    place = manifest_path(file)
    try:
        if not file.is_file():
            raise BackupError(f"{file}: there is no such file")
        with place.open("rb") as stream:
            data = stream.read(manifests.BYTES_MAX + 1)
    except FileNotFoundError:
        raise BackupDamagedError(
            f"{file} has no manifest {place.name}: the backup was not finished, or the manifest "
            "was not copied along"
        ) from None
    except OSError as exc:
        raise BackupError(f"can't read {exc.filename or place}: {exc.strerror}") from exc
    if len(data) > manifests.BYTES_MAX:
        raise BackupDamagedError(f"{place} is no manifest of a backup: it is too large")
    return manifests.decode(data, str(place))


def chunks(file: Path, manifest: Manifest) -> Iterator[bytes]:
    """The contents of a backup; raises at the end where they are not what the manifest says.

    Raises:
        BackupDamagedError: size or hash differ.
        BackupError: the file can't be read.
    """
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with file.open("rb", buffering=0) as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            while size_bytes == manifest.size_bytes and (chunk := stream.read(CHUNK_BYTES)):
                digest.update(chunk)
                yield chunk
    except OSError as exc:
        raise BackupError(f"can't read {file}: {exc.strerror}") from exc
    manifests.check_file(manifest, size_bytes=size_bytes, sha256=digest.hexdigest(), name=str(file))


def verify(file: Path, progress: Progress) -> Manifest:
    """Read all of a backup and see that it is sound.

    Args:
        file: the backup.
        progress: told how many bytes have been read.

    Raises:
        BackupError: it is not, or can't be read.
    """
    manifest = read_manifest(file)
    done_bytes = 0
    for chunk in chunks(file, manifest):
        done_bytes += len(chunk)
        progress(done_bytes)
    return manifest


def _partial(file: Path) -> Path:
    return file.with_name(f"{file.name}.partial")


def _put(draft: Path, place: Path) -> None:
    """Give a file its name, which must be free; a rename would replace what is there."""
    try:
        os.link(draft, place)
    except FileExistsError:
        raise BackupExistsError(f"{place} has appeared in the meantime; name another") from None
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A filesystem without links, such as a USB stick's.
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        draft.rename(place)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise BackupWriteError(
                f"no space is left for {file}: make room (df -h), or write the backup elsewhere; "
                "nothing of it was kept"
            ) from exc
        raise BackupWriteError(f"can't write {exc.filename or file}: {exc.strerror}") from exc


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network filesystems can't
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
