"""The audit log's files below ``<state>/security``, JSON lines, mode 0600, synced.

``audit.jsonl`` holds the node's records as the database has them, in chain order, so that a cut
or replaced database shows. It never runs ahead of the database: a record is written here once
the database has committed it, and what a crash kept from being written is copied later. With the
first record of another day it is renamed to ``audit.<number of its first record>.jsonl`` and
begun anew, so that days can be dropped here as they are in the database.

``audit.waiting.jsonl`` holds events that the database could not take yet. It is read at start and
emptied when all of them are in the chain; each has a source that the chain takes only once.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.files import sync_directory
from services.security import files
from services.security.audit import AuditEvent, AuditRecord, Row
from services.security.audit_lines import encode, parse_row, record_map
from services.security.errors import SecurityFileError

AUDIT_FILE_NAME = "audit.jsonl"
WAITING_FILE_NAME = "audit.waiting.jsonl"
# A record's fields have at most 16 KiB, its texts 4 times 512 characters of at most 12 bytes.
LINE_BYTES_MAX = 64 << 10
# More than the recorder's queue can hold of ordinary events; bounds the read at start.
WAITING_BYTES_MAX = 64 << 20
_SEGMENT = re.compile(r"audit\.([0-9]{12,})\.jsonl")


def segments(directory: Path) -> tuple[tuple[int, Path], ...]:
    """The files of earlier days, with the number of each one's first record, in order."""
    found = [
        (int(match[1]), directory / match[0])
        for entry in directory.iterdir()
        if (match := _SEGMENT.fullmatch(entry.name))
    ]
    return tuple(sorted(found))


def prune(directory: Path, seq: int) -> int:
    """Remove the files that hold no record past ``seq``; returns how many.

    A file ends where the next one begins, and the newest is never removed.
    """
    found = segments(directory)
    removed = 0
    for (_first, path), (next_first, _next) in itertools.pairwise(found):
        if next_first <= seq + 1:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


class AuditFile:
    """The copy of the node's chain.

    Args:
        path: of the file, made where it is missing.

    Attributes:
        tail_seq: sequence number of its last record, 0 when it is empty.
        tail_hash: that record's hash; empty when there is none or the line is unreadable.
        tail_day: that record's day; 0 in version 1.

    Raises:
        SecurityFileError: the file is not ours alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = files.open_log(path)
        self.tail_seq, self.tail_hash, self.tail_day = 0, b"", 0
        cut_half_line(self._fd)
        self._read_tail()

    def append(self, records: Sequence[AuditRecord]) -> None:
        """Write and sync the records that follow the file's tail.

        Raises:
            OSError: the disk is full or failed; the file ends as before, or in whole lines.
        """
        new = [record for record in records if record.seq > self.tail_seq]
        while new:
            day = new[0].day
            if day != self.tail_day and os.fstat(self._fd).st_size:
                self._begin_another()
            count = next((at for at, record in enumerate(new) if record.day != day), len(new))
            append_lines(self._fd, [encode(record_map(record)) for record in new[:count]])
            last = new[count - 1]
            self.tail_seq, self.tail_hash, self.tail_day = last.seq, last.hash, day
            new = new[count:]

    def restart_after(self, seq: int) -> None:
        """Go on after ``seq``, where the file's tail is not in the chain any more."""
        self.tail_seq, self.tail_hash = seq, b""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _begin_another(self) -> None:
        first = parse_first(self._fd)
        number = self.tail_seq if first is None else first.seq
        aside = self.path.with_name(f"audit.{number:012}.jsonl")
        if aside.exists():  # two chains in one directory: nothing is ever overwritten
            aside = self.path.with_name(f"audit.{number:012}.{secrets.token_hex(4)}.jsonl")
        self.path.rename(aside)
        # A crash from here on leaves an empty file and the tail in the newest of the others.
        os.close(self._fd)
        self._fd = files.open_log(self.path)
        sync_directory(self.path.parent)

    def _read_tail(self) -> None:
        line = last_line(self._fd)
        if not line and (earlier := segments(self.path.parent)):
            fd = files.open_log(earlier[-1][1])
            try:
                line = last_line(fd)
            finally:
                os.close(fd)
        if not line:
            return
        try:
            row = parse_row(line)
        except ValueError:
            # Something that we did not write. The seq stays 0 and the empty hash tells.
            return
        self.tail_seq, self.tail_hash, self.tail_day = row.seq, row.hash, row.day

    @property
    def is_readable(self) -> bool:
        """False when the last line is no audit record."""
        return bool(self.tail_hash) or os.fstat(self._fd).st_size == 0


class WaitingFile:
    """Events on their way to the chain.

    Args:
        path: of the file, made where it is missing.

    Attributes:
        unreadable: lines of the file that were no events when it was opened.

    Raises:
        SecurityFileError: the file is not ours alone, or larger than we ever make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = files.open_log(path)
        self.unreadable = 0
        self._is_empty = os.fstat(self._fd).st_size == 0

    def read(self) -> tuple[AuditEvent, ...]:
        """The events in the order in which they were added."""
        size = os.fstat(self._fd).st_size
        if size > WAITING_BYTES_MAX:
            raise SecurityFileError(
                f"{self.path} has {size} bytes; at most {WAITING_BYTES_MAX} are ever written: "
                "look who wrote it and move it away",
                path=str(self.path),
            )
        cut_half_line(self._fd)
        data = b"".join(iter(lambda: os.read(self._fd, 1 << 20), b""))
        events = []
        for line in data.splitlines():
            try:
                events.append(from_wire(AuditEvent, json.loads(line)))
            except (ValueError, RecursionError, RemoteProtocolError):
                self.unreadable += 1
        return tuple(events)

    def add(self, events: Sequence[AuditEvent]) -> None:
        """Write and sync events.

        Raises:
            OSError: the disk is full or failed; the file ends as before, or in whole lines.
        """
        self._is_empty = False
        append_lines(self._fd, [encode(to_wire(event)) for event in events])

    def set_aside(self) -> Path:
        """Rename the file, for a person to read, and go on with an empty one.

        Returns:
            The new name.

        Raises:
            OSError: the directory can't be written.
        """
        aside = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        self.path.rename(aside)
        os.close(self._fd)
        self._fd = files.open_log(self.path)
        self._is_empty = True
        return aside

    def clear(self) -> None:
        """Empty the file, once all of its events are in the chain.

        Raises:
            OSError: the disk failed; the events stay, which does no harm.
        """
        if not self._is_empty:
            os.ftruncate(self._fd, 0)
            os.fsync(self._fd)
            self._is_empty = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def append_lines(fd: int, lines: Sequence[bytes]) -> None:
    """Write and sync lines, all or, for readers that skip half a line, none of them.

    Raises:
        OSError: the disk is full or failed.
    """
    size = os.fstat(fd).st_size
    try:
        files.write_all(fd, b"".join(lines))
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def cut_half_line(fd: int) -> None:
    """Remove what a crash left of a line; whole lines end in a newline."""
    size = os.fstat(fd).st_size
    start = max(0, size - LINE_BYTES_MAX)
    block = os.pread(fd, LINE_BYTES_MAX, start)
    if block and not block.endswith(b"\n"):
        os.ftruncate(fd, start + block.rfind(b"\n") + 1)


def last_line(fd: int) -> bytes:
    """The last line of an open file; empty when there is none."""
    size = os.fstat(fd).st_size
    block = os.pread(fd, LINE_BYTES_MAX, max(0, size - LINE_BYTES_MAX))
    return block.rstrip(b"\n").rpartition(b"\n")[2]


def parse_first(fd: int) -> Row | None:
    """The record of an open file's first line."""
    try:
        return parse_row(os.pread(fd, LINE_BYTES_MAX, 0).partition(b"\n")[0])
    except ValueError:
        return None
