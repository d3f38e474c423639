"""The files of the keys: read with every check, written so that a crash leaves old or new.

Every name is looked up below one open directory and never through a link. A write is a temporary
file, synced, then renamed or linked, then a sync of the directory. ``MemoryDisk`` is the twin.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from services.security import files
from services.security.errors import KeyStorageError, MasterKeyError

TEMPORARY_PREFIX = ".keys-new."
# Earlier versions called theirs so.
_LEFT_PREFIXES = (TEMPORARY_PREFIX, ".master.key.")
# A process that was killed may hold its lock for a moment longer.
LOCK_TIMEOUT_S = 2.0
_LOCK_PAUSE_S = 0.02


class FileProblemError(Exception):
    """A file is there and must not be used; the text completes a sentence that names it."""


class Disk(Protocol):
    """Files by name, each change durable when its call returns.

    All but ``read`` raise KeyStorageError when the disk is full or fails.
    """

    def read(self, name: str, *, size_max: int) -> bytes | None:
        """A file's content, at most one byte more than ``size_max``; None where there is none.

        Raises:
            FileProblemError: it is no regular file of ours alone, or can't be read.
        """

    def write(self, name: str, content: bytes) -> None:
        """Put a file into the place of whatever has the name."""

    def create(self, name: str, content: bytes) -> None:
        """Make a file; the name must be free."""

    def link(self, name: str, other: str) -> None:
        """Give a file another name as well; does nothing where ``other`` is there already."""

    def rename(self, name: str, other: str) -> None:
        """Give a file another name; replaces whatever has it."""

    def remove(self, name: str) -> None:
        """Take a name away; does nothing where it is not there."""

    def size(self, name: str) -> int | None:
        """A file's size; None where there is none."""

    def place(self, name: str) -> str:
        """The file's path, for messages."""

    def close(self) -> None:
        """Let go of the directory."""


class DirectoryDisk:
    """The files in one directory, locked for as long as this is open.

    Args:
        directory: made with mode 0700 where it is missing.
        on_step: called with a word before each single change; tests end the process there.

    Raises:
        SecurityFileError: the directory is not ours alone.
        MasterKeyError: another process uses it.
    """

    def __init__(
        self, directory: Path, on_step: Callable[[str], None] = lambda _step: None
    ) -> None:
        self._directory = directory
        self._on_step = on_step
        self._fd = files.open_directory(directory)
        try:
            _lock(self._fd, directory)
            for name in os.listdir(self._fd):  # noqa: PTH208 - of what is open and not of a path
                if name.startswith(_LEFT_PREFIXES):  # what a crash left, and nobody has linked
                    os.unlink(name, dir_fd=self._fd)
        except BaseException:
            os.close(self._fd)
            raise

    def read(self, name: str, *, size_max: int) -> bytes | None:
        """See Disk."""
        try:
            # O_NONBLOCK: opening a FIFO at this place must not hang the boot.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise FileProblemError(f"can't be opened as a regular file: {exc.strerror}") from exc
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise FileProblemError("is no regular file")
            if problem := files.owner_problem(found):
                raise FileProblemError(problem)
            with open(fd, "rb", closefd=False) as file:
                return file.read(size_max + 1)
        except OSError as exc:
            raise FileProblemError(f"can't be read: {exc.strerror}") from exc
        finally:
            os.close(fd)

    def write(self, name: str, content: bytes) -> None:
        """See Disk."""
        with self._translated(name):
            temporary = self._temporary(content)
            self._on_step(f"rename {name}")
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            self._sync(name)

    def create(self, name: str, content: bytes) -> None:
        """See Disk."""
        with self._translated(name):
            temporary = self._temporary(content)
            try:
                self._on_step(f"link {name}")
                # A link fails where the name is taken; a rename would overwrite.
                os.link(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            finally:
                os.unlink(temporary, dir_fd=self._fd)
            self._sync(name)

    def link(self, name: str, other: str) -> None:
        """See Disk."""
        with self._translated(other):
            self._on_step(f"link {other}")
            with contextlib.suppress(FileExistsError):
                os.link(name, other, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            self._sync(other)

    def rename(self, name: str, other: str) -> None:
        """See Disk."""
        with self._translated(other):
            self._on_step(f"rename {other}")
            os.rename(name, other, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            self._sync(other)

    def remove(self, name: str) -> None:
        """See Disk."""
        with self._translated(name):
            self._on_step(f"remove {name}")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)
            self._sync(name)

    def size(self, name: str) -> int | None:
        """See Disk."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def place(self, name: str) -> str:
        """See Disk."""
        return str(self._directory / name)

    def close(self) -> None:
        """See Disk."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _temporary(self, content: bytes) -> str:
        temporary = f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._on_step("create a temporary file")
        fd = os.open(temporary, flags, files.FILE_MODE, dir_fd=self._fd)
        try:
            files.write_all(fd, content[: len(content) // 2])
            self._on_step("write the second half")
            files.write_all(fd, content[len(content) // 2 :])
            self._on_step("sync the file")
            os.fsync(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)
        return temporary

    def _sync(self, name: str) -> None:
        self._on_step(f"sync {name}")
        os.fsync(self._fd)

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            path = self._directory / name
            raise KeyStorageError(f"can't write {path}: {exc.strerror}", path=str(path)) from exc


class MemoryDisk:
    """A Disk in a dictionary, for tests of what stands above it.

    Attributes:
        files: content by name; tests may change it.
        on_step: called before each change; what it raises, the change does.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.on_step: Callable[[str], None] = lambda _step: None

    def read(self, name: str, *, size_max: int) -> bytes | None:
        """See Disk."""
        content = self.files.get(name)
        return None if content is None else content[: size_max + 1]

    def write(self, name: str, content: bytes) -> None:
        """See Disk."""
        self.on_step(f"write {name}")
        self.files[name] = content

    def create(self, name: str, content: bytes) -> None:
        """See Disk."""
        self.on_step(f"create {name}")
        if name in self.files:
            raise KeyStorageError(f"{name} is there already")
        self.files[name] = content

    def link(self, name: str, other: str) -> None:
        """See Disk."""
        self.on_step(f"link {other}")
        self.files.setdefault(other, self.files[name])

    def rename(self, name: str, other: str) -> None:
        """See Disk."""
        self.on_step(f"rename {other}")
        self.files[other] = self.files.pop(name)

    def remove(self, name: str) -> None:
        """See Disk."""
        self.on_step(f"remove {name}")
        self.files.pop(name, None)

    def size(self, name: str) -> int | None:
        """See Disk."""
        return len(self.files[name]) if name in self.files else None

    def place(self, name: str) -> str:
        """See Disk."""
        return name

    def close(self) -> None:
        """Nothing to let go of."""


def _lock(fd: int, directory: Path) -> None:
    give_up_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if time.monotonic() < give_up_s:
                time.sleep(_LOCK_PAUSE_S)
                continue
            raise MasterKeyError(
                f"another process has {directory} locked; only one node may use a state directory"
            ) from exc
        return
