"""Following a node's audit chain from record to record and from checkpoint to checkpoint.

Pure: rows and checkpoints come as arguments, in order and in chunks; the first thing that is not
as it must be comes back. What each check finds:

    a record's hash             its content was edited, or it stands where another one stood
    a record's link, its number records removed, added, moved
    a checkpoint's record       records written anew with hashes that fit together
    a checkpoint's signature    a checkpoint that is not the node's
    a checkpoint's link         a checkpoint that was left out
    the node's own files        a checkpoint or newest record that the database does not have
    the head                    newest records cut off or written anew
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.security.audit import GENESIS, VERSION, Row, content_hash, is_signed
from services.security.audit_checkpoint import Checkpoint, problem_of
from services.security.model import BadRecord, Finding

# How far to look for the number that a moved record had.
_MOVED_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to begin.

    Attributes:
        seq, hash: of the record before the first one; 0 and zero bytes for a chain's begin.
        checkpoint: hash of the last checkpoint up to there; None when it is not known.
        checkpoint_seq: its number.
    """

    seq: int = 0
    hash: bytes = GENESIS
    checkpoint: bytes | None = GENESIS
    checkpoint_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What the node's own files say, against which a database is held.

    Attributes:
        checkpoints: hash of each kept checkpoint by its number.
        tail_seq, tail_hash: of the newest record in the copy; 0 without one.
    """

    checkpoints: Mapping[int, bytes] = field(default_factory=dict)
    tail_seq: int = 0
    tail_hash: bytes = b""


class ChainVerifier:
    """Follows one chain.

    Args:
        keys: the node's public keys by key id.
        start: the record before the first one that will be checked.
        witness: the node's own files.

    Attributes:
        count: records that were good.
        seq, hash: of the last good one.
        covered_seq: of the last checkpoint that was good.
    """

    def __init__(
        self,
        keys: Mapping[str, Ed25519PublicKey],
        *,
        start: Start = Start(),
        witness: Witness = Witness(),
    ) -> None:
        self._keys = keys
        self._witness = witness
        self._expected = sorted(witness.checkpoints)
        self._previous = start.checkpoint
        self.count = 0
        self.seq, self.hash = start.seq, start.hash
        self.covered_seq = start.checkpoint_seq

    def check(
        self, rows: Sequence[Row], checkpoints: Sequence[Checkpoint] = ()
    ) -> BadRecord | None:
        """Check the next records.

        Args:
            rows: in order.
            checkpoints: all of the database from the last row of the call before, not included,
                to the last of these rows, in order.
        """
        last = rows[-1][1] if rows else self.seq
        due = self._due(checkpoints, last)
        stop = next(due, None)
        tail_seq = self._witness.tail_seq
        for row in rows:
            seq = row[1]
            if stop is not None and stop[0] < seq:
                return self._missing(stop[0], Finding.DELETED)
            if bad := self._check_row(row):
                return bad
            if seq == tail_seq and row[13] != self._witness.tail_hash:
                return BadRecord(seq, Finding.DIFFERS, _REPLACED)
            while stop is not None and stop[0] == seq:
                if bad := self._check_checkpoint(*stop):
                    return bad
                stop = next(due, None)
        return None

    def finish(self, head: Checkpoint | None, later: Sequence[Checkpoint] = ()) -> BadRecord | None:
        """Check the chain's end.

        Args:
            head: what the database has as the signed head; None when it has none.
            later: checkpoints of the database past the last record.
        """
        known = [checkpoint.seq for checkpoint in later]
        known += [seq for seq in self._expected if seq > self.seq]
        known += [seq for seq in (self._witness.tail_seq,) if seq > self.seq]
        if known:
            return self._missing(max(known))
        if head is None:
            if self.count == 0 or self._is_signed_each:
                return None
            return self._unsigned("the signed head of the chain is missing")
        if head.seq > self.seq:
            return self._missing(head.seq)
        if problem := problem_of(head, self._keys):
            return self._unsigned(f"the head of the chain {problem}")
        if (head.seq, head.hash) != (self.seq, self.hash):
            return self._unsigned(f"the signed head is another record {head.seq}")
        return None

    def finish_at(self, covering: Checkpoint) -> BadRecord | None:
        """Check the end of a range, which is the record of a checkpoint."""
        return self._missing(covering.seq) if self.seq < covering.seq else None

    def _due(
        self, checkpoints: Sequence[Checkpoint], last: int
    ) -> Iterator[tuple[int, Checkpoint | None]]:
        """Checkpoints of the database and of the files up to a record, by number."""
        by_seq: dict[int, Checkpoint | None] = dict.fromkeys(
            self._expected[
                bisect_right(self._expected, self.seq) : bisect_right(self._expected, last)
            ]
        )
        by_seq |= {checkpoint.seq: checkpoint for checkpoint in checkpoints}
        return iter(sorted(by_seq.items(), key=lambda item: item[0]))

    def _check_row(self, row: Row) -> BadRecord | None:
        version, seq = row[0], row[1]
        if seq <= self.seq:
            reason = f"follows record {self.seq}: out of order"
            return BadRecord(seq, Finding.REORDERED, reason)
        if content_hash(row) != row[13]:
            return self._explain(Row._make(row))
        if version == VERSION and seq != self.seq + 1:
            many = f"records {self.seq + 1} to {seq - 1} were" if seq > self.seq + 2 else "was"
            return BadRecord(self.seq + 1, Finding.DELETED, f"{many} removed")
        if row[12] != self.hash:
            return BadRecord(seq, Finding.DELETED, _BROKEN_LINK)
        if version == VERSION:
            if row[14] or row[15]:
                return BadRecord(seq, Finding.EDITED, "has a signature, which its version has not")
        elif problem := self._signature_problem(Row._make(row)):
            return BadRecord(seq, Finding.EDITED, problem)
        self.seq, self.hash = seq, row[13]
        self._is_signed_each = version != VERSION
        self.count += 1
        return None

    _is_signed_each = False

    def _signature_problem(self, row: Row) -> str:
        is_good = is_signed(row, self._keys)
        if is_good is None:
            return f"is signed with the key {row.key_id}, which this node does not have"
        return "" if is_good else "its signature is not by this node"

    def _check_checkpoint(self, seq: int, checkpoint: Checkpoint | None) -> BadRecord | None:
        expected = self._witness.checkpoints.get(seq)
        if checkpoint is None:
            reason = f"the checkpoint at record {seq} is in the node's file and not in the database"
            return BadRecord(seq, Finding.CHECKPOINT_MISSING, reason)
        first = self.covered_seq + 1
        if problem := problem_of(checkpoint, self._keys):
            reason = f"the checkpoint at record {seq} {problem}"
            return BadRecord(first, Finding.CHECKPOINT_FORGED, f"{_span(first, seq)}: {reason}")
        if expected is not None and checkpoint.digest() != expected:
            reason = f"the checkpoint at record {seq} is not the one in the node's file"
            return BadRecord(seq, Finding.CHECKPOINT_FORGED, reason)
        if checkpoint.hash != self.hash:
            reason = f"not what the checkpoint at record {seq} covers, signed {_time(checkpoint)}"
            return BadRecord(first, Finding.REWRITTEN, f"{_span(first, seq)} {reason}")
        if self._previous is not None and checkpoint.previous != self._previous:
            reason = f"a checkpoint between records {first - 1} and {seq} was removed"
            return BadRecord(first, Finding.CHECKPOINT_MISSING, reason)
        self._previous, self.covered_seq = checkpoint.digest(), seq
        return None

    def _missing(self, seq: int, kind: Finding = Finding.TRUNCATED) -> BadRecord:
        first = min(self.seq + 1, seq)
        what = "missing" if kind is Finding.DELETED else "cut off"
        reason = f"{what}: a signed statement or the node's file has record {seq}"
        return BadRecord(first, kind, f"{_span(first, seq)} {reason}")

    def _unsigned(self, reason: str) -> BadRecord:
        first = min(self.covered_seq + 1, self.seq)
        return BadRecord(first, Finding.REWRITTEN, f"{_span(first, self.seq)}: {reason}")

    def _explain(self, row: Row) -> BadRecord:
        """Tell a moved record from an edited one: its hash fits with the number that it had."""
        for seq in range(max(1, row.seq - _MOVED_MAX), row.seq + _MOVED_MAX):
            if seq != row.seq and content_hash(row._replace(seq=seq)) == row.hash:
                reason = f"is record {seq}, which was moved here"
                return BadRecord(row.seq, Finding.REORDERED, reason)
        return BadRecord(row.seq, Finding.EDITED, "its content was changed after it was written")


_REPLACED = "is not the record that the node's own audit file holds"
_BROKEN_LINK = "the record before it was removed, replaced or moved"


def _span(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _time(checkpoint: Checkpoint) -> str:
    moment = datetime.fromtimestamp(checkpoint.time_us / 1_000_000, UTC)
    return moment.isoformat(timespec="seconds")
