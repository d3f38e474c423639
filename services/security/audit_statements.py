"""Signed statements outside of the table, and the public keys that they were signed with.

``audit.checkpoints.jsonl`` beside the audit file holds every kept checkpoint and every anchor, one
JSON line each, synced. Further copies go where the operator wants them: a directory, which may be
another host's, as ``<node id>.checkpoints.jsonl``, and the system's log. Those are written by a
thread of their own, since another host's directory may hang; what fails is told and tried again
with the next statement.

``audit.keys.jsonl`` holds the public key of each signing key that the node has had.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import syslog
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.files import sync_directory
from services.security import files
from services.security.audit import AuditSigner
from services.security.audit_checkpoint import ANCHOR, CHECKPOINT, Checkpoint, from_plain, to_plain
from services.security.audit_file import append_lines, cut_half_line
from services.security.audit_lines import encode
from services.security.errors import SecurityFileError

CHECKPOINT_FILE_NAME = "audit.checkpoints.jsonl"
KEYS_FILE_NAME = "audit.keys.jsonl"
# Some 300 a day and 450 bytes each, for the longest retention; bounds the read at start.
FILE_BYTES_MAX = 1 << 30
# Statements that wait for a directory that hangs; the node's own file has them all.
WAITING_MAX = 1000
_CLOSE_TIMEOUT_S = 2.0


def read_statements(path: Path) -> tuple[list[Checkpoint], int]:
    """The statements of a file in order, and how many lines are none.

    Raises:
        OSError: the file can't be read.
    """
    found: list[Checkpoint] = []
    unreadable = 0
    with path.open("rb") as opened:
        for line in opened:
            if not line.endswith(b"\n"):
                break  # being written, or torn by a crash: it is written again
            try:
                found.append(from_plain(json.loads(line)))
            except (ValueError, RecursionError):
                unreadable += 1
    return found, unreadable


def latest_anchor(statements: Iterable[Checkpoint]) -> Checkpoint | None:
    """The newest anchor among statements."""
    anchors = [found for found in statements if found.kind == ANCHOR]
    return max(anchors, key=lambda found: found.seq, default=None)


def kept_checkpoints(statements: Iterable[Checkpoint]) -> dict[int, Checkpoint]:
    """The checkpoints among statements by their numbers."""
    return {found.seq: found for found in statements if found.kind == CHECKPOINT}


class StatementFile:
    """The node's own file of statements.

    Args:
        path: made where it is missing.

    Attributes:
        digests: hash of each checkpoint in it by its number.
        anchor: the newest anchor in it.
        newest: its last checkpoint.
        unreadable: lines that are no statements.

    Raises:
        SecurityFileError: the file is not ours alone, or larger than we ever make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = files.open_log(path)
        size = os.fstat(self._fd).st_size
        if size > FILE_BYTES_MAX:
            raise SecurityFileError(f"{path} has {size} bytes: look who wrote it", path=str(path))
        cut_half_line(self._fd)
        statements, self.unreadable = read_statements(path)
        self.anchor = latest_anchor(statements)
        begin = 0 if self.anchor is None else self.anchor.seq
        kept = kept_checkpoints(statements)
        self.digests = {seq: found.digest() for seq, found in kept.items() if seq > begin}
        self.newest = kept[max(kept)] if kept else None

    @property
    def tail_seq(self) -> int:
        """Number of its last checkpoint; 0 without one."""
        return 0 if self.newest is None else self.newest.seq

    def append(self, statements: Sequence[Checkpoint]) -> None:
        """Write and sync statements that are not in it yet.

        Raises:
            OSError: the disk is full or failed; the file ends as before.
        """
        new = [found for found in statements if not self._has(found)]
        if not new:
            return
        append_lines(self._fd, [encode(to_plain(found)) for found in new])
        for found in new:
            if found.kind == ANCHOR:
                self.anchor = found
            else:
                self.digests[found.seq] = found.digest()
                if found.seq > self.tail_seq:
                    self.newest = found

    def prune(self, seq: int) -> None:
        """Drop checkpoints and anchors below ``seq``, by another file in its place.

        Raises:
            OSError: the disk is full or failed; the file is as before.
        """
        statements, _unreadable = read_statements(self.path)
        wanted = [found for found in statements if found.seq >= seq]
        if len(wanted) == len(statements):
            return
        temporary = self.path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        fd = files.open_log(temporary)
        try:
            append_lines(fd, [encode(to_plain(found)) for found in wanted])
            temporary.rename(self.path)
            sync_directory(self.path.parent)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd
        self.digests = {at: found for at, found in self.digests.items() if at > seq}

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _has(self, found: Checkpoint) -> bool:
        if found.kind == ANCHOR:
            return self.anchor is not None and found.seq <= self.anchor.seq
        return found.seq in self.digests


class StatementCopies:
    """Further copies, written by a thread that may hang.

    Args:
        node_id: names the file.
        directory: where the file goes; None for nowhere.
        to_syslog: also to the system's log.
        on_trouble: called, on the thread, with why the last statement was not copied, or "".
    """

    def __init__(
        self,
        *,
        node_id: str,
        directory: Path | None,
        to_syslog: bool,
        on_trouble: Callable[[str], None],
    ) -> None:
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", node_id)
        self.path = None if directory is None else directory / f"{stem}.checkpoints.jsonl"
        self._to_syslog = to_syslog
        self._on_trouble = on_trouble
        self._queue: SimpleQueue[Checkpoint | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if directory is not None or to_syslog:
            # A daemon: a directory that hangs must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="audit-copies", daemon=True)
            self._thread.start()

    def put(self, statements: Sequence[Checkpoint]) -> None:
        """Copy statements in the background."""
        if self._thread is None:
            return
        for found in statements:
            if self._queue.qsize() < WAITING_MAX:
                self._queue.put(found)

    def close(self) -> None:
        """Wait a little for what is under way."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        waiting: list[Checkpoint] = []
        while True:
            found = self._queue.get()
            batch = [found]
            while True:
                try:
                    batch.append(self._queue.get_nowait())
                except Empty:
                    break
            new = [item for item in batch if item is not None]
            if self._to_syslog:
                self._log(new)
            waiting = self._write([*waiting, *new][-WAITING_MAX:])
            if None in batch:
                return

    def _write(self, statements: list[Checkpoint]) -> list[Checkpoint]:
        """Append to the file; returns what is to be tried again."""
        if self.path is None or not statements:
            return []
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, files.FILE_MODE)
            try:
                append_lines(fd, [encode(to_plain(found)) for found in statements])
            finally:
                os.close(fd)
        except OSError as exc:
            self._on_trouble(f"no checkpoint was copied to {self.path}: {exc.strerror}")
            return statements
        self._on_trouble("")
        return []

    def _log(self, statements: Sequence[Checkpoint]) -> None:
        for found in statements:
            text = json.dumps(to_plain(found), separators=(",", ":"))
            syslog.syslog(syslog.LOG_AUTHPRIV | syslog.LOG_NOTICE, f"novacron audit {text}")


def read_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys of a file by key id; lines that are none are left out.

    Raises:
        OSError: the file can't be read.
    """
    found: dict[str, Ed25519PublicKey] = {}
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
            public = bytes.fromhex(value["public_key"])
            found[key_id_of(public)] = Ed25519PublicKey.from_public_bytes(public)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def key_id_of(public: bytes) -> str:
    """The id of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def keys_of(public: Mapping[str, bytes]) -> dict[str, Ed25519PublicKey]:
    """Public keys by key id."""
    return {name: Ed25519PublicKey.from_public_bytes(raw) for name, raw in public.items()}


def remember_key(path: Path, signer: AuditSigner, *, now_us: int) -> dict[str, Ed25519PublicKey]:
    """Add the signer's public key to the file unless it is there; returns all.

    Raises:
        SecurityFileError: the file is not ours alone.
        OSError: the disk is full or failed.
    """
    fd = files.open_log(path)
    try:
        cut_half_line(fd)
        known = read_keys(path)
        if signer.key_id not in known:
            line = {
                "key_id": signer.key_id,
                "public_key": signer.public_bytes.hex(),
                "since_us": now_us,
            }
            append_lines(fd, [encode(line)])
            known[signer.key_id] = signer.public_key
    finally:
        os.close(fd)
    return known
