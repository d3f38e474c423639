"""Verification of a range of a node's audit chain in the database, on a thread, within a time.

One read-only transaction sees one state of the log, however much is appended meanwhile. Rows come
through a cursor of the server in chunks, so memory is bounded; a million take some ten seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.security import audit_rows
from services.security.audit import Row
from services.security.audit_chain import ChainVerifier, Start, Witness
from services.security.audit_checkpoint import CHECKPOINT, Checkpoint, problem_of
from services.security.model import BadRecord, Finding, VerifyReport, VerifyRequest

Connection = psycopg.Connection[tuple[Any, ...]]  # Any: a row's columns have the table's types
# Hash of each record of a range in the node's own file.
Copies = Callable[[int, int], Mapping[int, bytes]]

CHUNK_RECORDS = 2000
# The widest span of records between two checkpoints that is compared one by one with the file.
PINPOINT_MAX = 5000


class StoredChain:
    """A node's chain as one transaction sees it.

    Args:
        connection: within a transaction of isolation level REPEATABLE READ.
        node_id: whose chain.
    """

    def __init__(self, connection: Connection, node_id: str) -> None:
        self._connection = connection
        self._node_id = node_id

    def head(self) -> Checkpoint | None:
        """The signed head."""
        return self._statement("audit_heads WHERE node_id = %s")

    def anchor(self) -> Checkpoint | None:
        """The newest anchor."""
        return self._statement(
            "audit_checkpoints WHERE node_id = %s AND kind = 'anchor' ORDER BY seq DESC LIMIT 1"
        )

    def covering(self, seq: int) -> Checkpoint | None:
        """The first checkpoint that covers a record."""
        return self._statement(
            "audit_checkpoints WHERE node_id = %s AND kind = 'checkpoint' AND seq >= %s "
            "ORDER BY seq LIMIT 1",
            seq,
        )

    def start(self, first: int, anchor: Checkpoint | None) -> Start:
        """Where to begin for a first record."""
        begin = 0 if anchor is None else anchor.seq
        last = self._statement(
            "audit_checkpoints WHERE node_id = %s AND kind = 'checkpoint' AND seq < %s "
            "ORDER BY seq DESC LIMIT 1",
            first,
        )
        known = None if last is None or last.seq < begin else last
        if first <= begin + 1:
            if anchor is None:
                return Start()
            previous = known.digest() if known is not None else None
            return Start(
                seq=anchor.seq, hash=anchor.hash, checkpoint=previous, checkpoint_seq=anchor.seq
            )
        query = (
            "SELECT seq, hash FROM audit_log WHERE node_id = %s AND seq < %s "
            "ORDER BY seq DESC LIMIT 1"
        )
        row = self._connection.execute(query, [self._node_id, first]).fetchone()
        if row is None:
            return Start(checkpoint=None)
        return Start(
            seq=row[0],
            hash=row[1],
            checkpoint=None if known is None else known.digest(),
            checkpoint_seq=begin if known is None else known.seq,
        )

    def checkpoints(self, after: int, to: int) -> tuple[Checkpoint, ...]:
        """Checkpoints with numbers above ``after`` up to ``to``."""
        query = (
            f"{audit_rows.SELECT_STATEMENT}audit_checkpoints WHERE node_id = %s AND kind = %s "
            "AND seq > %s AND seq <= %s ORDER BY seq"
        )
        values = [self._node_id, CHECKPOINT, after, to]
        rows = self._connection.execute(query.encode(), values).fetchall()
        return tuple(audit_rows.statement_of(row) for row in rows)

    def rows(self, first: int, last: int) -> Iterator[Sequence[Row]]:
        """Records of a range in order, in chunks."""
        query = f"{audit_rows.SELECT}WHERE node_id = %s AND seq >= %s AND seq <= %s ORDER BY seq"
        with self._connection.cursor("audit_chain") as cursor:
            cursor.execute(query.encode(), [self._node_id, first, last], binary=True)
            while rows := cursor.fetchmany(CHUNK_RECORDS):
                yield rows  # type: ignore[misc]  # plain tuples in Row's order do

    def newest(self) -> int:
        """Number of the newest record; 0 without one."""
        query = "SELECT seq FROM audit_log WHERE node_id = %s ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(query, [self._node_id]).fetchone()
        return 0 if row is None else int(row[0])

    def hashes(self, first: int, last: int) -> dict[int, bytes]:
        """Hash of each record of a range."""
        query = "SELECT seq, hash FROM audit_log WHERE node_id = %s AND seq BETWEEN %s AND %s"
        values = [self._node_id, first, last]
        return {row[0]: row[1] for row in self._connection.execute(query, values)}

    def _statement(self, condition: str, *values: object) -> Checkpoint | None:
        query = (audit_rows.SELECT_STATEMENT + condition).encode()
        row = self._connection.execute(query, [self._node_id, *values]).fetchone()
        return None if row is None else audit_rows.statement_of(row)


def verify_stored(
    connection: Connection,
    *,
    node_id: str,
    keys: Mapping[str, Ed25519PublicKey],
    request: VerifyRequest,
    witness: Witness | None = None,
    anchor: Checkpoint | None = None,
    copies: Copies | None = None,
    time_s: float = 60.0,
) -> VerifyReport:
    """Follow the chain through a range and name the first record that is not good.

    Args:
        connection: not in autocommit mode and in no transaction.
        node_id: whose chain.
        keys: the node's public keys by key id.
        request: which records.
        witness: what the node's own files say.
        anchor: the newest one in the node's own file; the database's must not be older.
        copies: reads the node's own file where that can name a record exactly.
        time_s: when it has passed the report says where to go on.

    Raises:
        psycopg.Error: the database can't be read.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with connection.transaction():
        chain = StoredChain(connection, node_id)
        run = _Run(chain, keys, witness or Witness(), copies, time.monotonic() + time_s)
        return run.verify(request, anchor)


class _Run:
    def __init__(
        self,
        chain: StoredChain,
        keys: Mapping[str, Ed25519PublicKey],
        witness: Witness,
        copies: Copies | None,
        deadline_s: float,
    ) -> None:
        self._chain = chain
        self._keys = keys
        self._witness = witness
        self._copies = copies
        self._deadline_s = deadline_s

    def verify(self, request: VerifyRequest, filed: Checkpoint | None) -> VerifyReport:
        head, newest = self._chain.head(), self._chain.newest()
        anchor = self._chain.anchor()
        begin = 0 if anchor is None else anchor.seq

        def report(
            bad: BadRecord | None, verifier: ChainVerifier | None = None, after: int | None = None
        ) -> VerifyReport:
            return VerifyReport(
                records=0 if verifier is None else verifier.count,
                first_bad=bad,
                next=after,
                seq=begin if verifier is None else verifier.seq,
                covered=begin if verifier is None else verifier.covered_seq,
                anchor=begin,
                head=max(newest, 0 if head is None else head.seq),
            )

        if bad := self._anchor_problem(anchor, filed):
            return report(bad)
        first = max(request.first, begin + 1)
        start = self._chain.start(first, anchor)
        verifier = ChainVerifier(self._keys, start=start, witness=self._witness_after(begin))
        covering = None if request.last is None else self._chain.covering(request.last)
        last = (1 << 63) - 1 if covering is None else covering.seq
        for rows in self._chain.rows(first, last):
            checkpoints = self._chain.checkpoints(verifier.seq, rows[-1][1])
            if bad := verifier.check(rows, checkpoints):
                return report(self._pinpointed(bad, verifier), verifier)
            if time.monotonic() >= self._deadline_s and verifier.seq < min(last, newest):
                return report(None, verifier, verifier.seq + 1)
        if covering is not None:
            bad = verifier.finish_at(covering)
        else:
            bad = verifier.finish(head, self._chain.checkpoints(verifier.seq, last))
        if bad is not None:
            return report(self._pinpointed(bad, verifier), verifier)
        return report(None, verifier)

    def _anchor_problem(
        self, anchor: Checkpoint | None, filed: Checkpoint | None
    ) -> BadRecord | None:
        if anchor is not None and (problem := problem_of(anchor, self._keys)):
            reason = f"the anchor at record {anchor.seq} {problem}"
            return BadRecord(1, Finding.CHECKPOINT_FORGED, reason)
        if filed is not None and (anchor is None or anchor.seq < filed.seq):
            reason = f"the anchor at record {filed.seq} is not in the database"
            return BadRecord(filed.seq, Finding.CHECKPOINT_MISSING, reason)
        return None

    def _witness_after(self, begin: int) -> Witness:
        kept = {seq: found for seq, found in self._witness.checkpoints.items() if seq > begin}
        tail_seq = self._witness.tail_seq if self._witness.tail_seq > begin else 0
        return Witness(checkpoints=kept, tail_seq=tail_seq, tail_hash=self._witness.tail_hash)

    def _pinpointed(self, bad: BadRecord, verifier: ChainVerifier) -> BadRecord:
        """Name the record itself, where the node's own file shows the first one that differs.

        Hashes that fit together say only between which checkpoints records were written anew.
        """
        if self._copies is None or bad.kind is Finding.TRUNCATED:
            return bad
        first = verifier.covered_seq + 1
        last = min(max(bad.seq, verifier.seq), first + PINPOINT_MAX)
        copies = self._copies(first, last)
        stored = self._chain.hashes(first, last)
        for seq in sorted(copies):
            if seq >= bad.seq and bad.kind is not Finding.REWRITTEN:
                break
            if stored.get(seq) != copies[seq]:
                reason = f"{bad.reason}; record {seq} is the first that is not as the file has it"
                return BadRecord(seq, bad.kind, reason)
        return bad
