"""Writing the audit spool; supervisor.guard.spool says what is in it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from protocol import codec, names
from protocol.records import from_wire, to_wire
from supervisor.guard.spool import (
    DIRECTORY_BYTES_MAX,
    DRAFT_SUFFIX,
    FILE_BYTES_MAX,
    RECORD_BYTES_MAX,
    SUFFIX,
    Note,
    SpoolError,
    SpoolRecord,
    directory_bytes,
    frame,
)


class SpoolWriter:
    """Writes the files of one process; not for a loop, since it waits for the disk.

    Args:
        directory: made by the root, mode 0700.
        process: path of the process.
        draw_id: 16 hexadecimal digits, new each time.
        file_bytes_max, directory_bytes_max: see the constants.
    """

    def __init__(
        self,
        directory: Path,
        process: str,
        *,
        draw_id: Callable[[], str] = lambda: os.urandom(8).hex(),
        file_bytes_max: int = FILE_BYTES_MAX,
        directory_bytes_max: int = DIRECTORY_BYTES_MAX,
    ) -> None:
        self._directory = directory
        self._stem = names.file_stem(process)
        self._draw_id = draw_id
        self._file_bytes_max = file_bytes_max
        self._directory_bytes_max = directory_bytes_max
        self._descriptor = -1
        self._spool_id = ""
        self._number = 0
        self._size = 0

    def write(self, notes: Sequence[Note], *, durably: bool) -> None:
        """Append records; with ``durably`` they are on disk when this returns.

        Raises:
            SpoolError: they are not, or not certainly.
        """
        try:
            if self._descriptor >= 0 and self._size >= self._file_bytes_max:
                self.close()
            if self._descriptor < 0:
                self._begin()
            self._append(notes, durably=durably)
        except OSError as exc:
            self.close()  # whatever is torn now stays the end of its file
            where = exc.filename or self._directory
            raise SpoolError(f"can't note it in {where}: {exc.strerror}") from exc

    def close(self) -> None:
        """Let go of the file; the next record begins another one."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self) -> None:
        spool_id = self._draw_id()
        target = self._directory / f"{self._stem}-{spool_id}{SUFFIX}"
        draft = target.with_suffix(DRAFT_SUFFIX)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND
        descriptor = os.open(draft, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            draft.rename(target)
            _sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._spool_id = descriptor, spool_id
        self._number = self._size = 0

    def _append(self, notes: Sequence[Note], *, durably: bool) -> None:
        used = directory_bytes(self._directory)
        frames = bytearray()
        number = self._number
        for note in notes:
            number += 1
            frames += frame(_record(note, self._spool_id, number))
        if used + len(frames) > self._directory_bytes_max:
            raise SpoolError(
                f"{self._directory} holds {used >> 20} MiB that nobody has taken into the audit"
                " log; see that the security process runs"
            )
        written = os.write(self._descriptor, frames)
        if written != len(frames):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))
        if durably:
            os.fdatasync(self._descriptor)
        self._number = number
        self._size += written


def _record(note: Note, spool_id: str, number: int) -> SpoolRecord:
    wire = to_wire(note)
    record = from_wire(SpoolRecord, {**wire, "spool_id": spool_id, "number": number})
    if len(codec.encode(wire)) > RECORD_BYTES_MAX:
        raise SpoolError(f"a record of more than {RECORD_BYTES_MAX} bytes is not noted")
    return record


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
