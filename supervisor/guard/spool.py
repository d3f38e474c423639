"""The audit spool: what a process notes on disk before a privileged call takes effect.

It works while the security process and the database are down. Each process writes files of its
own, ``<process stem>-<spool id>.spool``, mode 0600; the security process reads and deletes them.
A file is a sequence of frames::

    4 bytes  length of the payload, big-endian
    4 bytes  CRC-32 of the payload, big-endian
    payload  msgpack map of a SpoolRecord

A writer holds a shared lock (flock) on the file that it writes, so whoever gets an exclusive one
knows that nothing follows. The file appears under its name only once it is locked. After a
failure a writer never appends to the same file: what is torn is always at its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
import time
import zlib
from pathlib import Path

from protocol import codec
from protocol.dataclass import dataclass, field
from protocol.errors import NovacronError, RemoteProtocolError
from protocol.records import Plain, from_wire, to_wire

SUFFIX = ".spool"
DAMAGED_SUFFIX = ".damaged"
# A file that is read and deleted while the next one is written.
FILE_BYTES_MAX = 1 << 20
# What a node that nobody empties the spool of may pile up; then privileged calls are refused.
DIRECTORY_BYTES_MAX = 64 << 20
# Records are some 300 bytes; their fields come from callers, who must not fill the disk.
RECORD_BYTES_MAX = 16 << 10
DRAFT_SUFFIX = ".draft"
# Older drafts belong to processes that ended between two system calls.
_DRAFT_AGE_S = 60.0
_HEAD = struct.Struct(">II")
_NAME = re.compile(r"([a-z][a-z0-9.-]*)-([0-9a-f]{16})\.spool")


class SpoolError(NovacronError):
    """A record can't be noted on disk, so what it is about must not happen."""

    code = "supervisor.audit_unavailable"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolRecord:
    """One record.

    Attributes:
        time_us: of the wall clock, since 1970.
        actor: who called, as proved by the key: a process path or ``operator/<user name>``.
        action: method that was called.
        subject: path of the process or child that it is about.
        outcome: requested, denied, success or failure.
        fields: what else is known, such as the rule or the error's code.
        spool_id: of the file.
        number: from 1 on, without a gap within one file.
    """

    time_us: int
    actor: str
    action: str
    subject: str
    outcome: str
    spool_id: str
    number: int
    fields: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is to be recorded; see SpoolRecord."""

    time_us: int
    actor: str
    action: str
    subject: str
    outcome: str
    fields: dict[str, Plain] = field(default_factory=dict)


def frame(record: SpoolRecord) -> bytes:
    """The bytes of a record in a file."""
    payload = codec.encode(to_wire(record))
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def directory_bytes(directory: Path) -> int:
    """What the files of a spool take."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # consumed meanwhile
                total += entry.stat(follow_symlinks=False).st_size
    return total


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One file.

    Attributes:
        path: it.
        process: stem of the writer's path, such as ``core.vm``.
        spool_id: of all its records.
    """

    path: Path
    process: str
    spool_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is in a spool.

    Attributes:
        files: to be read, oldest first.
        foreign: names of what no writer of ours has left there, each with the reason.
    """

    files: tuple[SpoolFile, ...]
    foreign: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolPage:
    """Some records of a file.

    Attributes:
        records: in order.
        offset: where to go on.
        rest_bytes: behind it, if they are no whole good frame; else 0.
        problem: why not: incomplete (it is being written, or torn), or damaged; else "".
    """

    records: tuple[SpoolRecord, ...]
    offset: int
    rest_bytes: int = 0
    problem: str = ""


def list_files(directory: Path) -> Listing:
    """The files of a spool; nothing is opened.

    Raises:
        OSError: the directory can't be read.
    """
    found: list[tuple[int, SpoolFile]] = []
    foreign: dict[str, str] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith((DRAFT_SUFFIX, DAMAGED_SUFFIX)):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            match = _NAME.fullmatch(entry.name)
            if match is None or (reason := _foreign(status)):
                foreign[entry.name] = "its name is no spool's" if match is None else reason
                continue
            file = SpoolFile(directory / entry.name, match[1], match[2])
            found.append((status.st_mtime_ns, file))
    found.sort(key=lambda pair: (pair[0], pair[1].path))
    return Listing(files=tuple(file for _time, file in found), foreign=foreign)


def read(file: SpoolFile, offset: int = 0, *, records_max: int = 1000) -> SpoolPage:
    """Read on in a file.

    Args:
        file: from a listing.
        offset: of an earlier page; 0 at first.
        records_max: of one page.

    Raises:
        OSError: the file can't be read, or is not what the listing saw.
    """
    with open(_open(file.path, os.O_RDONLY), "rb") as opened:
        opened.seek(offset)
        data = opened.read()
    records: list[SpoolRecord] = []
    at = 0
    problem = ""
    while at < len(data) and len(records) < records_max:
        parsed = _parse(data, at, file.spool_id)
        if isinstance(parsed, str):
            problem = parsed
            break
        record, size = parsed
        records.append(record)
        at += size
    rest = len(data) - at if problem else 0
    return SpoolPage(records=tuple(records), offset=offset + at, rest_bytes=rest, problem=problem)


def is_released(file: SpoolFile) -> bool:
    """Whether nothing will be added: its writer has let go or ended.

    Raises:
        OSError: the file can't be opened.
    """
    descriptor = _open(file.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def discard(file: SpoolFile, offset: int) -> bool:
    """Delete a file that was read to its end; False while its writer may go on, or has gone on.

    A torn frame at the end was never promised to anybody and goes too. With anything whole or
    damaged behind ``offset`` the file stays.

    Args:
        file: from a listing.
        offset: up to which its records are kept elsewhere, durably.
    """
    if not is_released(file):
        return False
    page = read(file, offset)  # after the lock was seen free: nothing can come any more
    if page.records or page.problem == DAMAGED:
        return False
    file.path.unlink()
    return True


def set_aside(file: SpoolFile) -> Path:
    """Keep a damaged file as evidence, out of the way; returns its new path."""
    target = file.path.with_suffix(DAMAGED_SUFFIX)
    file.path.rename(target)
    return target


def sweep(directory: Path, now_s: float | None = None) -> None:
    """Remove what processes left that ended while they began a file.

    Args:
        directory: the spool.
        now_s: of the wall clock.
    """
    now_s = time.time() if now_s is None else now_s
    for draft in directory.glob(f"*{DRAFT_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            if draft.lstat().st_mtime < now_s - _DRAFT_AGE_S:
                draft.unlink()


INCOMPLETE, DAMAGED = "incomplete", "damaged"


def _parse(data: bytes, at: int, spool_id: str) -> tuple[SpoolRecord, int] | str:
    """The record at a position and its frame's size, or what is wrong there."""
    if len(data) - at < _HEAD.size:
        return INCOMPLETE
    length, checksum = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + length
    if end > len(data):
        return INCOMPLETE if length <= codec.MESSAGE_BYTES_MAX else DAMAGED
    payload = data[at + _HEAD.size : end]
    if zlib.crc32(payload) != checksum or not length:
        # The last frame of a host that lost power may have its length and not its bytes.
        return INCOMPLETE if end == len(data) or not any(data[at:]) else DAMAGED
    try:
        record = from_wire(SpoolRecord, codec.decode(payload))
    except RemoteProtocolError:
        return DAMAGED
    return DAMAGED if record.spool_id != spool_id else (record, _HEAD.size + length)


def _foreign(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "it is no plain file"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if stat.S_IMODE(status.st_mode) & 0o177:
        return f"its mode is {stat.S_IMODE(status.st_mode):04o} and not 0600"
    return ""


def _open(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if reason := _foreign(os.fstat(descriptor)):
        os.close(descriptor)
        raise PermissionError(1, reason, str(path))
    return descriptor
