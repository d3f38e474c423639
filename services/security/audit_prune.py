"""Retention: days of the audit log that are old enough are dropped under a signed anchor.

    1 what is to go is verified; where it is not good nothing is dropped, since it is evidence
    2 a record ``audit:pruned`` says what goes
    3 an anchor is signed and kept in the table, then in the node's file and its copies
    4 the days' tables are dropped, then files, older checkpoints, and sources

A crash after any step loses nothing: an anchor that is there is worked off first, and verification
begins after it whether or not what is before it is gone. The table's own function refuses to drop
a day that no anchor covers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.data.refusal import one_line
from services.security import audit_rows
from services.security.audit import GENESIS, AuditSigner
from services.security.audit_chain import Witness
from services.security.audit_checkpoint import ANCHOR, Checkpoint, problem_of, sign_checkpoint
from services.security.audit_verify import Connection, StoredChain, verify_stored
from services.security.errors import AuditPruneRefusedError
from services.security.model import VerifyRequest

# A reader of a day that is to be dropped holds it for as long as it reads.
LOCK_TIMEOUT_MS = 2000
# A hundred million records; a longer range is dropped by parts.
VERIFY_TIME_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be dropped.

    Attributes:
        anchor: the statement to sign, unsigned yet.
        days, records: how many.
        first_day, last_day: the first and the last of them, since 1970-01-01.
    """

    anchor: Checkpoint
    days: int
    records: int
    first_day: int
    last_day: int


def plan(
    connection: Connection,
    *,
    node_id: str,
    keys: Mapping[str, Ed25519PublicKey],
    witness: Witness,
    before_day: int,
    now_us: int,
) -> Plan | None:
    """Verify what is older than ``before_day``; None when there is nothing.

    Raises:
        AuditPruneRefusedError: it does not verify, so it has to stay.
    """
    with connection.transaction():
        anchor = StoredChain(connection, node_id).anchor()
    if anchor is not None and (problem := problem_of(anchor, keys)):
        raise AuditPruneRefusedError(f"the anchor at record {anchor.seq} {problem}")
    begin = 0 if anchor is None else anchor.seq
    query = (
        "SELECT count(*), min(seq), max(seq), min(day) - DATE '1970-01-01', "
        "max(day) - DATE '1970-01-01', count(DISTINCT day) FROM audit_log "
        "WHERE node_id = %s AND day < %s AND seq > %s"
    )
    values = [node_id, audit_rows.as_date(before_day), begin]
    with connection.transaction():
        row = connection.execute(query, values).fetchone()
    assert row is not None
    count, _first, last, first_day, last_day, days = row
    if not count:
        return None
    report = verify_stored(
        connection,
        node_id=node_id,
        keys=keys,
        request=VerifyRequest(last=last),
        witness=witness,
        anchor=anchor,
        time_s=VERIFY_TIME_S,
    )
    if report.first_bad is not None:
        bad = report.first_bad
        raise AuditPruneRefusedError(
            f"records up to {last} are old enough to be dropped and stay as evidence: record "
            f"{bad.seq} {bad.reason}",
            seq=bad.seq,
        )
    if report.seq < last:
        raise AuditPruneRefusedError(f"records up to {last} took too long to verify")
    connection.read_only = False
    with connection.transaction():
        row = connection.execute(
            "SELECT hash FROM audit_log WHERE node_id = %s AND seq = %s", [node_id, last]
        ).fetchone()
    assert row is not None
    unsigned = Checkpoint(
        node_id=node_id,
        seq=last,
        hash=row[0],
        day=last_day,
        time_us=now_us,
        count=count + (0 if anchor is None else anchor.count),
        previous=GENESIS if anchor is None else anchor.digest(),
        kind=ANCHOR,
    )
    return Plan(anchor=unsigned, days=days, records=count, first_day=first_day, last_day=last_day)


def set_anchor(connection: Connection, planned: Plan, signer: AuditSigner) -> Checkpoint:
    """Sign and keep the anchor of a plan in the table."""
    anchor = sign_checkpoint(planned.anchor, signer)
    with connection.transaction():
        values = audit_rows.statement_values(anchor)
        connection.execute(audit_rows.INSERT_CHECKPOINT.encode(), values)
    return anchor


def anchor_head(
    connection: Connection,
    *,
    node_id: str,
    keys: Mapping[str, Ed25519PublicKey],
    signer: AuditSigner,
    now_us: int,
) -> Checkpoint | None:
    """Sign and keep an anchor at the head, whatever is before it; None without a signed head."""
    with connection.transaction():
        chain = StoredChain(connection, node_id)
        head, before = chain.head(), chain.anchor()
        if head is None or problem_of(head, keys):
            return None
        unsigned = replace(
            head,
            kind=ANCHOR,
            time_us=now_us,
            previous=GENESIS if before is None else before.digest(),
        )
        anchor = sign_checkpoint(unsigned, signer)
        values = audit_rows.statement_values(anchor)
        connection.execute(audit_rows.INSERT_CHECKPOINT.encode(), values)
    return anchor


def drop(connection: Connection, *, node_id: str, keys: Mapping[str, Ed25519PublicKey]) -> str:
    """Drop what the newest anchor covers; returns what could not be dropped yet, or ""."""
    connection.read_only = False
    with connection.transaction():
        anchor = StoredChain(connection, node_id).anchor()
    if anchor is None or problem_of(anchor, keys):
        return ""
    held = ""
    for day in _days(connection, node_id, anchor):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}".encode())
                values = [node_id, audit_rows.as_date(day)]
                connection.execute("SELECT audit_drop_day(%s, %s)", values)
        except psycopg.errors.LockNotAvailable as exc:
            held = f"{audit_rows.as_date(day)} could not be dropped yet: {one_line(str(exc))}"
    with connection.transaction():
        values = [node_id, anchor.seq]
        connection.execute("DELETE FROM audit_checkpoints WHERE node_id = %s AND seq < %s", values)
        old = "DELETE FROM audit_sources WHERE node_id = %s AND day <= %s"
        connection.execute(old, [node_id, audit_rows.as_date(anchor.day)])
    return held


def _days(connection: Connection, node_id: str, anchor: Checkpoint) -> list[int]:
    """Days of the node with a table that holds nothing past the anchor, oldest first."""
    stem = f"audit_log_{hashlib.md5(node_id.encode(), usedforsecurity=False).hexdigest()[:12]}_"
    query = (
        "SELECT to_date(right(c.relname, 8), 'YYYYMMDD') - DATE '1970-01-01' FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_log'::regclass "
        "AND starts_with(c.relname, %s) ORDER BY 1"
    )
    with connection.transaction():
        found = [int(row[0]) for row in connection.execute(query, [stem]).fetchall()]
        query = "SELECT max(seq) FROM audit_log WHERE node_id = %s AND day = %s"
        covered = []
        for day in found:
            if day > anchor.day:
                break
            row = connection.execute(query, [node_id, audit_rows.as_date(day)]).fetchone()
            if row is None or row[0] is None or row[0] <= anchor.seq:
                covered.append(day)
    return covered
