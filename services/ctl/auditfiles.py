"""Verification without a node: its audit files, or an export of its log."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.records import Plain
from services.ctl.errors import CtlError, UsageError, denied
from services.security.audit import Row, content_hash
from services.security.audit_checkpoint import Checkpoint
from services.security.audit_export import MANIFEST_KEY, manifest_problem
from services.security.audit_file import AUDIT_FILE_NAME
from services.security.audit_lines import parse_row
from services.security.audit_offline import Progress, record_files, verify_files
from services.security.audit_statements import (
    CHECKPOINT_FILE_NAME,
    KEYS_FILE_NAME,
    key_id_of,
    read_keys,
    read_statements,
)
from services.security.model import BadRecord, Finding, VerifyReport

MANIFEST_SUFFIX = ".manifest.json"
_PUBLIC_BYTES = 32
_LINE_BYTES_MAX = 256 << 10


def verify(
    path: Path, *, public_key: str | None, checkpoints: Path | None, progress: Progress
) -> VerifyReport:
    """Verify what is at a path: a directory of audit files, one such file, or an export.

    Args:
        path: of it.
        public_key: 64 hexadecimal digits or a file with public keys; None for those beside it.
        checkpoints: another file of statements than the one beside it.
        progress: told how far it is.

    Raises:
        CtlError: there is nothing that can be verified.
    """
    try:
        if path.is_dir():
            return _verify_files(path, record_files(path), public_key, checkpoints, progress)
        manifest = find_manifest(path)
        if manifest is not None:
            return _verify_export(path, manifest, _keys(path.parent, public_key))
        return _verify_files(path.parent, (path,), public_key, checkpoints, progress)
    except PermissionError as exc:
        raise denied(Path(exc.filename or path)) from exc
    except OSError as exc:
        raise CtlError(f"can't read {exc.filename or path}: {exc.strerror}") from exc


def find_manifest(path: Path) -> Mapping[str, Plain] | None:
    """The manifest of an export: its last line, or the file beside it; None without one."""
    beside = path.with_name(path.name + MANIFEST_SUFFIX)
    text = beside.read_bytes() if beside.exists() else _last_line(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    manifest = found.get(MANIFEST_KEY) if isinstance(found, dict) else None
    return manifest if isinstance(manifest, dict) else None


def _verify_files(
    directory: Path,
    paths: tuple[Path, ...],
    public_key: str | None,
    checkpoints: Path | None,
    progress: Progress,
) -> VerifyReport:
    if not any(path.exists() for path in paths):
        raise CtlError(f"there is no {AUDIT_FILE_NAME} in {directory}")
    statements: list[Checkpoint] = []
    source = checkpoints or directory / CHECKPOINT_FILE_NAME
    if checkpoints is not None or source.exists():
        statements, unreadable = read_statements(source)
        if unreadable:
            reason = f"{unreadable} lines of {source.name} are no statements"
            bad = BadRecord(1, Finding.CHECKPOINT_FORGED, reason)
            return VerifyReport(records=0, first_bad=bad, next=None)
    return verify_files(paths, statements, _keys(directory, public_key), progress=progress)


def _verify_export(
    path: Path, manifest: Mapping[str, Plain], keys: Mapping[str, Ed25519PublicKey]
) -> VerifyReport:
    digest = hashlib.sha256()
    count, bad = 0, None
    is_jsonl = manifest.get("format") == "jsonl"
    for line in _content_lines(path, is_jsonl=is_jsonl):
        digest.update(line)
        if not is_jsonl or bad is not None:
            continue
        bad = _bad_line(line, count)
        count += bad is None
    problem = manifest_problem(manifest, digest.hexdigest(), keys)
    if problem and bad is None:
        first = manifest.get("first")
        bad = BadRecord(
            first if type(first) is int else 1, Finding.DIFFERS, f"the export: {problem}"
        )
    last, records = manifest.get("last"), manifest.get("records")
    return VerifyReport(
        records=records if type(records) is int and bad is None else count,
        first_bad=bad,
        next=None,
        seq=last if type(last) is int else 0,
        covered=last if type(last) is int else 0,
    )


def _bad_line(line: bytes, count: int) -> BadRecord | None:
    try:
        row: Row = parse_row(line)
    except ValueError as exc:
        return BadRecord(count + 1, Finding.EDITED, f"line {count + 1} of the export is {exc}")
    if content_hash(row) != row.hash:
        return BadRecord(row.seq, Finding.EDITED, "its content was changed after it was written")
    return None


def _content_lines(path: Path, *, is_jsonl: bool) -> Iterator[bytes]:
    """The lines that a manifest speaks of; of JSON lines it is itself the last one."""
    with path.open("rb") as opened:
        if not is_jsonl:
            yield from opened
            return
        for line, following in itertools.pairwise(itertools.chain(opened, (b"",))):
            if following or not line.startswith(b'{"manifest"'):
                yield line


def _keys(directory: Path, public_key: str | None) -> Mapping[str, Ed25519PublicKey]:
    path = directory / KEYS_FILE_NAME if public_key is None else Path(public_key)
    if public_key is not None and not path.exists():
        try:
            public = bytes.fromhex(public_key)
        except ValueError:
            public = b""
        if len(public) != _PUBLIC_BYTES:
            raise UsageError(
                f"{public_key!r:.80} is neither a file nor a public key of 64 hexadecimal digits"
            )
        return {key_id_of(public): Ed25519PublicKey.from_public_bytes(public)}
    if not path.exists():
        raise UsageError(
            f"there is no {path}: say with --public-key whose log it is; "
            "'novacronctl audit key' on the node prints it"
        )
    return read_keys(path)


def _last_line(path: Path) -> bytes:
    with path.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - _LINE_BYTES_MAX))
        return opened.read().rstrip(b"\n").rpartition(b"\n")[2]
