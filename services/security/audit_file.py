"""The audit log's two files below ``<state>/security``, JSON lines, mode 0600, synced.

``audit.jsonl`` holds the node's records as the database has them, in chain order, so that a cut
or replaced database shows. It never runs ahead of the database: a record is written here once
the database has committed it, and what a crash kept from being written is copied later.

``audit.waiting.jsonl`` holds events that the database could not take yet. It is read at start and
emptied when all of them are in the chain; each has a source that the chain takes only once.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import RemoteProtocolError
from protocol.records import Plain, from_wire, to_wire
from services.security import files
from services.security.audit import AuditEvent, AuditRecord
from services.security.errors import SecurityFileError

AUDIT_FILE_NAME = "audit.jsonl"
WAITING_FILE_NAME = "audit.waiting.jsonl"
# A record's fields have at most 16 KiB, its texts 4 times 512 characters of at most 12 bytes.
LINE_BYTES_MAX = 64 << 10
# More than the recorder's queue can hold of ordinary events; bounds the read at start.
WAITING_BYTES_MAX = 64 << 20


class AuditFile:
    """The copy of the node's chain.

    Args:
        path: of the file, made where it is missing.

    Attributes:
        tail_seq: sequence number of its last record, 0 when it is empty.
        tail_hash: that record's hash; empty when there is none or the line is unreadable.

    Raises:
        SecurityFileError: the file is not ours alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = files.open_log(path)
        self.tail_seq, self.tail_hash = 0, b""
        _cut_half_line(self._fd)
        self._read_tail()

    def append(self, records: Sequence[AuditRecord]) -> None:
        """Write and sync the records that follow the file's tail.

        Raises:
            OSError: the disk is full or failed; the file ends as before, or in whole lines.
        """
        new = [record for record in records if record.seq > self.tail_seq]
        if not new:
            return
        _append_lines(self._fd, [_record_line(record) for record in new])
        self.tail_seq, self.tail_hash = new[-1].seq, new[-1].hash

    def restart_after(self, seq: int) -> None:
        """Go on after ``seq``, where the file's tail is not in the chain any more."""
        self.tail_seq, self.tail_hash = seq, b""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read_tail(self) -> None:
        size = os.fstat(self._fd).st_size
        if size == 0:
            return
        block = os.pread(self._fd, LINE_BYTES_MAX, max(0, size - LINE_BYTES_MAX))
        line = block.rstrip(b"\n").rpartition(b"\n")[2]
        try:
            found = json.loads(line)
            self.tail_seq, self.tail_hash = int(found["seq"]), bytes.fromhex(found["hash"])
        except (ValueError, TypeError, KeyError):
            # Something that we did not write. The seq stays 0 and the empty hash tells.
            self.tail_seq, self.tail_hash = 0, b""

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
        _cut_half_line(self._fd)
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
        _append_lines(self._fd, [_line(to_wire(event)) for event in events])

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


def _record_line(record: AuditRecord) -> bytes:
    line: dict[str, Plain] = {
        "seq": record.seq,
        "node_id": record.node_id,
        **to_wire(record.event),
        "fields": record.event.fields,
        "key_id": record.key_id,
        "prev_hash": record.prev_hash.hex(),
        "hash": record.hash.hex(),
        "signature": record.signature.hex(),
    }
    return _line(line)


def _line(value: Plain) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _append_lines(fd: int, lines: Sequence[bytes]) -> None:
    size = os.fstat(fd).st_size
    try:
        files.write_all(fd, b"".join(lines))
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def _cut_half_line(fd: int) -> None:
    """Remove what a crash left of a line; whole lines end in a newline."""
    size = os.fstat(fd).st_size
    start = max(0, size - LINE_BYTES_MAX)
    block = os.pread(fd, LINE_BYTES_MAX, start)
    if block and not block.endswith(b"\n"):
        os.ftruncate(fd, start + block.rfind(b"\n") + 1)
