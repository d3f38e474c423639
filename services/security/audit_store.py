"""The audit chain in PostgreSQL: table ``audit_log``, one chain per node, appended under a lock.

Sequence numbers are the table's, chains the nodes': where several nodes share a database, each
verifies its own chain with its own key, and the numbers of the others are gaps to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.types.json import Jsonb

from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection, Row
from services.data.refusal import one_line
from services.security.audit import GENESIS, AuditEvent, AuditRecord, AuditSigner, seal_event
from services.security.errors import AuditSchemaError, AuditUnavailableError

Connect = Callable[[], Awaitable[Connection]]

# "novaudit" as a number: any constant serves that no other part of the database uses.
LOCK_KEY = int.from_bytes(b"novaudit", "big")
# Appending takes some milliseconds; a store that needs seconds is as good as gone.
OPERATION_TIMEOUT_S = 5.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = (
    "seq, time, node_id, actor, action, subject, outcome, fields, boot_id, journal_seq, "
    "prev_hash, hash, signature, key_id"
)
_INSERT = f"INSERT INTO audit_log ({_COLUMNS}) VALUES ({', '.join(['%s'] * 14)})"  # noqa: S608 - constants
# What somebody wrote into a row must not keep it from being read and named: times beyond every
# calendar become 0, and fields travel as text.
_SELECT = (
    "SELECT seq, CASE WHEN isfinite(time) THEN (extract(epoch FROM time) * 1000000)::bigint "
    "ELSE 0 END, node_id, actor, action, subject, outcome, fields::text, boot_id, journal_seq, "
    "prev_hash, hash, signature, key_id FROM audit_log "
)
_KNOWN = "WHERE (boot_id, journal_seq) IN (SELECT * FROM unnest(%s::text[], %s::bigint[]))"


class PostgresAuditStore:
    """An AuditStore on one connection, opened at the first use and anew after a loss.

    Args:
        connect: opens a connection, as services.data.postgres.connect does.
        node_id: whose chain it is.
        signer: signs the records.
        connection: one that is open already.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        node_id: str,
        signer: AuditSigner,
        connection: Connection | None = None,
    ) -> None:
        self._connect = connect
        self._node_id = node_id
        self._signer = signer
        self._connection = connection
        self._lock = asyncio.Lock()

    async def append(self, events: Sequence[AuditEvent]) -> tuple[AuditRecord, ...]:
        """Chain the new ones among the events, in one transaction."""
        async with self._use() as connection, connection.transaction():
            # Its own statement: the ones after it see what the lock's last holder committed.
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
            known = await self._known(connection, events)
            return await self._chain(connection, events, known)

    async def head(self) -> AuditRecord | None:
        """The node's newest record."""
        async with self._use() as connection:
            return await self._one(connection, "WHERE node_id = %s", [self._node_id])

    async def before(self, seq: int) -> AuditRecord | None:
        """The node's record next before a sequence number."""
        async with self._use() as connection:
            condition = "WHERE node_id = %s AND seq < %s"
            return await self._one(connection, condition, [self._node_id, seq])

    async def page(self, *, first: int, last: int | None, limit: int) -> tuple[AuditRecord, ...]:
        """Records of the node in a range, in order."""
        query = _SELECT + "WHERE node_id = %s AND seq >= %s AND seq <= %s ORDER BY seq LIMIT %s"
        newest = (1 << 63) - 1 if last is None else last
        async with self._use() as connection:
            cursor = await connection.execute(query, [self._node_id, first, newest, limit])
            return tuple(_record(row) for row in await cursor.fetchall())

    async def recorded_to(self, boot_id: str) -> int:
        """The highest journal sequence number recorded of a boot; 0 without one."""
        query = "SELECT max(journal_seq) FROM audit_log WHERE boot_id = %s"
        async with self._use() as connection:
            row = await (await connection.execute(query, [boot_id])).fetchone()
            return int(row[0]) if row and row[0] is not None else 0

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT_S), self._lock:
                if self._connection is None:
                    self._connection = await self._connect()
                if self._connection.isolation_level is None:
                    # A snapshot per statement, whatever the server's default is.
                    await self._connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
                yield self._connection
        except psycopg.Error as exc:
            await self.close()
            raise _translated(exc) from exc
        except DatabaseUnavailableError as exc:
            raise AuditUnavailableError(exc.message) from exc
        except TimeoutError as exc:
            await self.close()
            reason = f"no answer in {OPERATION_TIMEOUT_S:g} s"
            raise AuditUnavailableError(reason) from exc
        except BaseException:
            # Cancelled in the middle: what the connection is in is not worth finding out.
            await self.close()
            raise

    async def _known(
        self, connection: Connection, events: Sequence[AuditEvent]
    ) -> dict[tuple[str, int], AuditRecord]:
        query = _SELECT + _KNOWN
        sources = [event.boot_id for event in events], [event.journal_seq for event in events]
        cursor = await connection.execute(query, sources)
        records = [_record(row) for row in await cursor.fetchall()]
        return {_source(record.event): record for record in records}

    async def _chain(
        self,
        connection: Connection,
        events: Sequence[AuditEvent],
        known: dict[tuple[str, int], AuditRecord],
    ) -> tuple[AuditRecord, ...]:
        head = await self._one(connection, "WHERE node_id = %s", [self._node_id])
        prev_hash = GENESIS if head is None else head.hash
        row = await (await connection.execute("SELECT max(seq) FROM audit_log")).fetchone()
        seq = int(row[0]) if row and row[0] is not None else 0
        new = []
        for event in events:
            if _source(event) in known:
                continue
            seq += 1
            record = seal_event(
                event, seq=seq, node_id=self._node_id, prev_hash=prev_hash, signer=self._signer
            )
            prev_hash = record.hash
            known[_source(event)] = record
            new.append(record)
        if new:
            await connection.cursor().executemany(_INSERT, [_row(record) for record in new])
        return tuple(known[_source(event)] for event in events)

    async def _one(
        self, connection: Connection, condition: str, parameters: Sequence[object]
    ) -> AuditRecord | None:
        query = f"{_SELECT}{condition} ORDER BY seq DESC LIMIT 1"
        row = await (await connection.execute(query, parameters)).fetchone()
        return None if row is None else _record(row)


def _source(event: AuditEvent) -> tuple[str, int]:
    return event.boot_id, event.journal_seq


def _row(record: AuditRecord) -> Row:
    event = record.event
    return (
        record.seq,
        _EPOCH + timedelta(microseconds=event.time_us),
        record.node_id,
        event.actor,
        event.action,
        event.subject,
        event.outcome,
        Jsonb(event.fields),
        event.boot_id,
        event.journal_seq,
        record.prev_hash,
        record.hash,
        record.signature,
        record.key_id,
    )


def _record(row: Row) -> AuditRecord:
    event = AuditEvent(
        time_us=row[1],
        actor=row[3],
        action=row[4],
        subject=row[5],
        outcome=row[6],
        fields=_fields(row[7]),
        boot_id=row[8],
        journal_seq=row[9],
    )
    return AuditRecord(
        seq=row[0],
        node_id=row[2],
        event=event,
        key_id=row[13],
        prev_hash=row[10],
        hash=row[11],
        signature=row[12],
    )


def _fields(text: str) -> dict[str, Any]:  # Any: plain values
    try:
        found = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        return {"unreadable": text}
    return found if isinstance(found, dict) else {"unreadable": text}


def _translated(error: psycopg.Error) -> Exception:
    state = error.sqlstate or ""
    reason = one_line(str(error))
    # ProgrammingError: no such table or column, or no right to it. No retry brings it.
    if isinstance(error, (psycopg.ProgrammingError, psycopg.NotSupportedError)):
        return AuditSchemaError(f"the audit table can't be used: {reason}", sqlstate=state)
    if isinstance(error, (psycopg.IntegrityError, psycopg.DataError)):
        return AuditSchemaError(f"the audit table refuses a record: {reason}", sqlstate=state)
    return AuditUnavailableError(reason)
