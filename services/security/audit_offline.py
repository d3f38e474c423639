"""Verification of a node's audit files, without database and without node.

The records are those of ``audit.<number>.jsonl`` and ``audit.jsonl``, in the order of their
numbers; the statements are those of ``audit.checkpoints.jsonl`` or of a copy that an operator
kept elsewhere. Memory is bounded: lines are read in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.security.audit import Row
from services.security.audit_chain import ChainVerifier, Start
from services.security.audit_checkpoint import Checkpoint, problem_of
from services.security.audit_file import AUDIT_FILE_NAME, segments
from services.security.audit_lines import parse_row
from services.security.audit_statements import kept_checkpoints, latest_anchor
from services.security.model import BadRecord, Finding, VerifyReport

CHUNK_RECORDS = 2000
# Told after each chunk: bytes read, of so many.
Progress = Callable[[int, int], None]


class LineError(Exception):
    """A line is no audit record; the message says which."""


def record_files(directory: Path) -> tuple[Path, ...]:
    """The files with records, in order."""
    return (*(path for _first, path in segments(directory)), directory / AUDIT_FILE_NAME)


def read_rows(
    paths: Sequence[Path], progress: Progress = lambda _done, _total: None
) -> Iterator[list[Row]]:
    """The records of files, in chunks.

    Raises:
        LineError: after the records before it, where a line is none.
        OSError: a file can't be read.
    """
    total = sum(path.stat().st_size for path in paths if path.exists())
    done = 0
    rows: list[Row] = []
    for path in paths:
        if not path.exists():
            continue
        with path.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                if not line.endswith(b"\n"):
                    break  # being written, or torn by a crash
                done += len(line)
                try:
                    rows.append(parse_row(line))
                except ValueError as exc:
                    yield rows
                    raise LineError(f"line {number} of {path.name} is {exc}") from exc
                if len(rows) == CHUNK_RECORDS:
                    yield rows
                    progress(done, total)
                    rows = []
    if rows:
        yield rows
    progress(total, total)


def verify_files(
    paths: Sequence[Path],
    statements: Sequence[Checkpoint],
    keys: Mapping[str, Ed25519PublicKey],
    *,
    progress: Progress = lambda _done, _total: None,
) -> VerifyReport:
    """Follow the chain through files and name the first record that is not good.

    Args:
        paths: with the records, in order.
        statements: checkpoints and anchors, from wherever they were kept.
        keys: the node's public keys by key id.
        progress: told how far it is.

    Returns:
        A report; records behind ``covered`` fit together and are covered by no signature yet.
    """
    anchor = latest_anchor(statements)
    begin = 0 if anchor is None else anchor.seq
    if anchor is not None and (problem := problem_of(anchor, keys)):
        bad = BadRecord(1, Finding.CHECKPOINT_FORGED, f"the anchor at record {begin} {problem}")
        return VerifyReport(records=0, first_bad=bad, next=None, anchor=begin)
    kept = sorted(kept_checkpoints(statements).values(), key=lambda found: found.seq)
    start = _start(anchor, kept)
    verifier = ChainVerifier(keys, start=start)
    after = [found for found in kept if found.seq > begin]
    found_bad = _follow(paths, verifier, after, begin, progress)
    return VerifyReport(
        records=verifier.count,
        first_bad=found_bad,
        next=None,
        seq=verifier.seq,
        covered=verifier.covered_seq,
        anchor=begin,
        head=max(verifier.seq, kept[-1].seq if kept else 0),
    )


def hashes(directory: Path, first: int, last: int) -> dict[int, bytes]:
    """Hash of each record of a range in a node's own files, as far as they can be read."""
    found: dict[int, bytes] = {}
    starts = [seq for seq, _path in segments(directory)]
    # The file before the first one that begins past the range's first record holds it.
    skip = max(0, sum(seq <= first for seq in starts) - 1)
    try:
        for rows in read_rows(record_files(directory)[skip:]):
            found |= {row.seq: row.hash for row in rows if first <= row.seq <= last}
            if rows and rows[-1].seq >= last:
                break
    except (LineError, OSError):
        pass  # what could be read serves
    return found


def _start(anchor: Checkpoint | None, kept: Sequence[Checkpoint]) -> Start:
    if anchor is None:
        return Start()
    at = next((found for found in kept if found.seq == anchor.seq), None)
    return Start(
        seq=anchor.seq,
        hash=anchor.hash,
        checkpoint=None if at is None else at.digest(),
        checkpoint_seq=anchor.seq,
    )


def _follow(
    paths: Sequence[Path],
    verifier: ChainVerifier,
    kept: Sequence[Checkpoint],
    begin: int,
    progress: Progress,
) -> BadRecord | None:
    at = 0
    try:
        for chunk in read_rows(paths, progress):
            rows = [row for row in chunk if row.seq > begin] if begin else chunk
            if not rows:
                continue
            end = at
            while end < len(kept) and kept[end].seq <= rows[-1].seq:
                end += 1
            if bad := verifier.check(rows, kept[at:end]):
                return bad
            at = end
    except LineError as exc:
        return BadRecord(verifier.seq + 1, Finding.EDITED, str(exc))
    return verifier.finish_at(kept[-1]) if at < len(kept) else None
