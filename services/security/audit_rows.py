"""The audit tables' columns: how records and statements are written to them and read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.data.columns import unnest
from services.security.audit import AuditRecord, Row, row_of
from services.security.audit_checkpoint import Checkpoint
from services.security.model import RecordFilter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1)
# What somebody wrote into a row must not keep it from being read and named: times beyond every
# calendar become 0, and fields travel as text.
SELECT = (
    "SELECT version::int, seq, day - DATE '1970-01-01', CASE WHEN isfinite(time) THEN "
    "(extract(epoch FROM time) * 1000000)::bigint ELSE 0 END, node_id, actor, action, subject, "
    "outcome, boot_id, journal_seq, fields::text, prev_hash, hash, signature, key_id "
    "FROM audit_log "
)
_COLUMNS = (
    "version, seq, day, time, node_id, actor, action, subject, outcome, boot_id, journal_seq, "
    "fields, prev_hash, hash, signature, key_id"
)
_TYPES = (
    "smallint, bigint, date, timestamptz, text, text, text, text, text, text, bigint, "
    "json, bytea, bytea, bytea, text"
)
INSERT = f"INSERT INTO audit_log ({_COLUMNS}) SELECT * FROM {unnest(_TYPES)}"  # noqa: S608 - constants
_STATEMENT_COLUMNS = "node_id, seq, hash, day, time_us, count, previous, kind, key_id, signature"
_STATEMENT_VALUES = ", ".join(["%s"] * 10)
SELECT_STATEMENT = (
    "SELECT node_id, seq, hash, day - DATE '1970-01-01', time_us, count, previous, kind, key_id, "
    "signature FROM "
)
INSERT_CHECKPOINT = (
    f"INSERT INTO audit_checkpoints ({_STATEMENT_COLUMNS}) VALUES ({_STATEMENT_VALUES}) "  # noqa: S608 - constants
    "ON CONFLICT DO NOTHING"
)
UPSERT_HEAD = (
    f"INSERT INTO audit_heads ({_STATEMENT_COLUMNS}) VALUES ({_STATEMENT_VALUES}) "  # noqa: S608 - constants
    "ON CONFLICT (node_id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, "
    "day = excluded.day, time_us = excluded.time_us, count = excluded.count, "
    "previous = excluded.previous, kind = excluded.kind, key_id = excluded.key_id, "
    "signature = excluded.signature"
)


def insert_values(record: AuditRecord) -> tuple[object, ...]:
    """A row for INSERT."""
    row = row_of(record)
    time = _EPOCH + timedelta(microseconds=row.time_us)
    return (row.version, row.seq, as_date(row.day), time, *row[4:])


def statement_values(statement: Checkpoint) -> tuple[object, ...]:
    """The parameters of INSERT_CHECKPOINT and UPSERT_HEAD."""
    return (
        statement.node_id,
        statement.seq,
        statement.hash,
        as_date(statement.day),
        statement.time_us,
        statement.count,
        statement.previous,
        statement.kind,
        statement.key_id,
        statement.signature,
    )


def statement_of(row: Sequence[Any]) -> Checkpoint:  # Any: columns have the types of the table
    """A statement as SELECT_STATEMENT reads it."""
    return Checkpoint(
        node_id=row[0],
        seq=row[1],
        hash=row[2],
        day=row[3],
        time_us=row[4],
        count=row[5],
        previous=row[6],
        kind=row[7],
        key_id=row[8],
        signature=row[9],
    )


def read_row(row: Sequence[Any]) -> Row:  # Any: as above
    """A record as SELECT reads it."""
    return Row._make(row)


def as_date(day: int) -> date:
    """A day number as PostgreSQL's date."""
    return _EPOCH_DAY + timedelta(days=day)


def conditions(wanted: RecordFilter) -> tuple[str, list[object]]:
    """SQL conditions for a filter, each with a leading AND, and their parameters."""
    text, parameters = "", list[object]()
    for column in ("actor", "action", "subject"):
        if pattern := getattr(wanted, column):
            text += f" AND {column} LIKE %s"
            parameters.append(_like(pattern))
    if wanted.outcome:
        text += " AND outcome = %s"
        parameters.append(wanted.outcome)
    for limit_us, comparison in ((wanted.from_us, ">="), (wanted.to_us, "<")):
        if limit_us is not None:
            text += f" AND time {comparison} %s"
            parameters.append(_EPOCH + timedelta(microseconds=limit_us))
    return text, parameters


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")
