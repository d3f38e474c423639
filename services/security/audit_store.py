"""The audit chain in PostgreSQL: table ``audit_log``, one chain per node, appended under a lock.

A table for the days of each node, so that whole days can be dropped. Several nodes may share a
database; each numbers, signs and verifies its own chain.

What the database says is the head of the chain is gone on from when it is the one that this
process wrote last, or is signed by this node and not behind it. Else the chain goes on from what
this process wrote: a head that somebody put there is not signed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
from psycopg import IsolationLevel

from services.data.columns import columns
from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection
from services.data.refusal import one_line
from services.security import audit_rows
from services.security.audit import (
    GENESIS,
    AuditEvent,
    AuditRecord,
    AuditSigner,
    chain_event,
    record_of,
)
from services.security.audit_checkpoint import (
    ANCHOR,
    CHECKPOINT,
    Checkpoint,
    is_due,
    problem_of,
    sign_checkpoint,
)
from services.security.errors import AuditSchemaError, AuditUnavailableError
from services.security.model import RecordFilter
from services.security.ports import Appended

Connect = Callable[[], Awaitable[Connection]]

# "audt" as a number: any constant serves that no other part of the database uses. The second
# number of the lock is the node's.
LOCK_CLASS = int.from_bytes(b"audt", "big")
# Appending takes some milliseconds; a store that needs seconds is as good as gone.
OPERATION_TIMEOUT_S = 5.0
DAY_US = 86_400_000_000
_KNOWN = (
    "WHERE node_id = %s "
    "AND (boot_id, journal_seq) IN (SELECT * FROM unnest(%s::text[], %s::bigint[]))"
)
_UPSERT_SOURCE = (
    "INSERT INTO audit_sources (node_id, source, last, day) VALUES (%s, %s, %s, %s) "
    "ON CONFLICT (node_id, source) DO UPDATE "
    "SET last = greatest(audit_sources.last, excluded.last), day = excluded.day"
)


class PostgresAuditStore:
    """An AuditStore on one connection, opened at the first use and anew after a loss.

    Args:
        connect: opens a connection, as services.data.postgres.connect does.
        node_id: whose chain it is.
        signer: signs heads and checkpoints.
        connection: one that is open already.
        clock_us: Unix time in microseconds.
        timeout_s: of each operation.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        node_id: str,
        signer: AuditSigner,
        connection: Connection | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._connect = connect
        self._node_id = node_id
        self._signer = signer
        self._keys = {signer.key_id: signer.public_key}
        self._connection = connection
        self._clock_us = clock_us
        self._lock = asyncio.Lock()
        self._written: Checkpoint | None = None
        self._kept: Checkpoint | None = None
        self._partition_day = -1

    def trust(
        self, seq: int, record_hash: bytes, day: int, *, kept: Checkpoint | None = None
    ) -> None:
        """Say which record and checkpoint were the newest."""
        self._kept = kept
        self._written = Checkpoint(
            node_id=self._node_id, seq=seq, hash=record_hash, day=day, time_us=0, count=seq
        )

    async def append(self, events: Sequence[AuditEvent]) -> Appended:
        """Chain the new ones among the events, in one transaction."""
        async with self._use() as connection, connection.transaction():
            await self._take_turn(connection)
            known = await self._known(connection, events)
            found, distrusted = await self._trusted_head(connection)
            new, head = self._chain(events, known, found)
            if head is None or not new:
                return Appended(tuple(known[_source(event)] for event in events), (), distrusted)
            kept = await self._write(connection, new, found, head)
        self._written, self._partition_day = kept[-1], head.day
        self._kept = kept[-2] if len(kept) > 1 else self._kept
        return Appended(tuple(known[_source(event)] for event in events), kept[:-1], distrusted)

    async def keep_head(self, *, when_due: bool = True) -> Checkpoint | None:
        """Keep the head as a checkpoint."""
        async with self._use() as connection, connection.transaction():
            await self._take_turn(connection)
            head = await self._statement(connection, "audit_heads WHERE node_id = %s")
            if head is None or problem_of(head, self._keys):
                return None
            kept = await self._last_kept(connection)
            if kept is not None and kept.seq >= head.seq:
                return None
            if when_due and not _is_due_now(head, kept, self._clock_us()):
                return None
            await connection.execute(
                audit_rows.INSERT_CHECKPOINT, audit_rows.statement_values(head)
            )
            return head

    async def head(self) -> AuditRecord | None:
        """The node's newest record."""
        async with self._use() as connection:
            return await self._one(connection, "", [])

    async def before(self, seq: int) -> AuditRecord | None:
        """The node's record next before a sequence number."""
        async with self._use() as connection:
            return await self._one(connection, " AND seq < %s", [seq])

    async def page(
        self,
        *,
        first: int,
        last: int | None,
        limit: int,
        wanted: RecordFilter = RecordFilter(),  # noqa: B008 - frozen
        newest_first: bool = False,
    ) -> tuple[AuditRecord, ...]:
        """Records of the node in a range, in order."""
        condition, parameters = audit_rows.conditions(wanted)
        order = "DESC" if newest_first else "ASC"
        query = (
            f"{audit_rows.SELECT}WHERE node_id = %s AND seq >= %s AND seq <= %s{condition} "
            f"ORDER BY seq {order} LIMIT %s"
        )
        newest = (1 << 63) - 1 if last is None else last
        values = [self._node_id, first, newest, *parameters, limit]
        async with self._use() as connection:
            cursor = await connection.execute(query.encode(), values)
            rows = await cursor.fetchall()
        records = [record_of(audit_rows.read_row(row)) for row in rows]
        return tuple(reversed(records) if newest_first else records)

    async def checkpoints(self, *, after: int, limit: int) -> tuple[Checkpoint, ...]:
        """Kept checkpoints of the node, in order."""
        query = (
            f"{audit_rows.SELECT_STATEMENT}audit_checkpoints WHERE node_id = %s AND kind = %s "
            "AND seq > %s ORDER BY seq LIMIT %s"
        )
        values = [self._node_id, CHECKPOINT, after, limit]
        async with self._use() as connection:
            cursor = await connection.execute(query.encode(), values)
            return tuple(audit_rows.statement_of(row) for row in await cursor.fetchall())

    async def anchor(self) -> Checkpoint | None:
        """The node's newest anchor."""
        query = "audit_checkpoints WHERE node_id = %s AND kind = 'anchor' ORDER BY seq DESC LIMIT 1"
        async with self._use() as connection:
            found = await self._statement(connection, query)
        assert found is None or found.kind == ANCHOR
        return found

    async def recorded_to(self, source: str) -> int:
        """The highest number chained of a source; 0 without one."""
        query = "SELECT last FROM audit_sources WHERE node_id = %s AND source = %s"
        async with self._use() as connection:
            row = await (await connection.execute(query, [self._node_id, source])).fetchone()
            return int(row[0]) if row else 0

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(self._timeout_s), self._lock:
                if self._connection is None:
                    self._connection = await self._connect()
                if self._connection.isolation_level is None:
                    # A snapshot per statement, whatever the server's default is.
                    await self._connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
                yield self._connection
        except psycopg.Error as exc:
            await self.close()
            raise translated(exc) from exc
        except DatabaseUnavailableError as exc:
            raise AuditUnavailableError(exc.message) from exc
        except TimeoutError as exc:
            await self.close()
            reason = f"no answer in {self._timeout_s:g} s"
            raise AuditUnavailableError(reason) from exc
        except BaseException:
            # Cancelled in the middle: what the connection is in is not worth finding out.
            await self.close()
            raise

    async def _take_turn(self, connection: Connection) -> None:
        # Its own statement: the ones after it see what the lock's last holder committed.
        lock = "SELECT pg_advisory_xact_lock(%s, hashtext(%s))"
        await connection.execute(lock, [LOCK_CLASS, self._node_id])

    async def _known(
        self, connection: Connection, events: Sequence[AuditEvent]
    ) -> dict[tuple[str, int], AuditRecord]:
        """Records of the events that are chained already.

        A source's numbers grow, so only what is not above its last one has to be looked for.
        """
        query = "SELECT source, last FROM audit_sources WHERE node_id = %s AND source = ANY(%s)"
        sources = list({event.boot_id for event in events})
        cursor = await connection.execute(query, [self._node_id, sources])
        last = {str(row[0]): int(row[1]) for row in await cursor.fetchall()}
        old = [event for event in events if event.journal_seq <= last.get(event.boot_id, -1)]
        if not old:
            return {}
        values = [event.boot_id for event in old], [event.journal_seq for event in old]
        select = audit_rows.SELECT + _KNOWN
        cursor = await connection.execute(select.encode(), [self._node_id, *values])
        records = [record_of(audit_rows.read_row(row)) for row in await cursor.fetchall()]
        return {_source(record.event): record for record in records}

    async def _trusted_head(self, connection: Connection) -> tuple[Checkpoint | None, str]:
        """What to go on from, and why not from what the database says."""
        found = await self._statement(connection, "audit_heads WHERE node_id = %s")
        ours = self._written
        if found is not None and found == ours:
            return found, ""  # the usual case, without verifying a signature
        if found is None:
            if ours is not None:
                return ours, "the signed head of the chain was removed"
            return await self._adopted_head(connection)
        problem = problem_of(found, self._keys)
        if ours is None:
            # Nothing better is known here.
            return found, f"the head of the chain {problem}" if problem else ""
        if problem or found.seq < ours.seq:
            return ours, f"the head of the chain {problem or 'was set back'}"
        return found, ""

    async def _adopted_head(self, connection: Connection) -> tuple[Checkpoint | None, str]:
        """The last record as a head: of a chain from before heads were signed, or robbed of it."""
        record = await self._one(connection, "", [])
        if record is None:
            return None, ""
        query = "SELECT count(*) FROM audit_log WHERE node_id = %s"
        row = await (await connection.execute(query, [self._node_id])).fetchone()
        assert row is not None
        adopted = Checkpoint(
            node_id=self._node_id,
            seq=record.seq,
            hash=record.hash,
            day=record.day,
            time_us=self._clock_us(),
            count=int(row[0]),
        )
        has_heads = record.version > 1
        return adopted, "the signed head of the chain was removed" if has_heads else ""

    def _chain(
        self,
        events: Sequence[AuditEvent],
        known: dict[tuple[str, int], AuditRecord],
        found: Checkpoint | None,
    ) -> tuple[list[AuditRecord], Checkpoint | None]:
        """Chain what is new, in memory; ``known`` grows by it."""
        now_us = self._clock_us()
        seq, prev_hash, day = 0, GENESIS, now_us // DAY_US
        if found is not None:
            seq, prev_hash, day = found.seq, found.hash, max(day, found.day)
        new: list[AuditRecord] = []
        for event in events:
            if _source(event) in known:
                continue
            seq += 1
            record = chain_event(
                event, seq=seq, node_id=self._node_id, prev_hash=prev_hash, day=day
            )
            prev_hash = record.hash
            known[_source(event)] = record
            new.append(record)
        if not new:
            return [], found
        count = len(new) + (0 if found is None else found.count)
        head = Checkpoint(
            node_id=self._node_id, seq=seq, hash=prev_hash, day=day, time_us=now_us, count=count
        )
        return new, head

    async def _write(
        self,
        connection: Connection,
        new: Sequence[AuditRecord],
        found: Checkpoint | None,
        head: Checkpoint,
    ) -> tuple[Checkpoint, ...]:
        """Write records, head and checkpoints; the latter are returned, and the head at last."""
        kept: list[Checkpoint] = []
        last = await self._last_kept(connection)
        is_days_last = found is not None and found.signature and found.day < head.day
        if found is not None and is_days_last and (last is None or last.seq < found.seq):
            kept.append(found)  # to begin after, once its day has been dropped
        if head.day != self._partition_day:
            await connection.execute(
                "SELECT audit_partition(%s, %s)", [self._node_id, audit_rows.as_date(head.day)]
            )
        rows = [audit_rows.insert_values(record) for record in new]
        await connection.execute(audit_rows.INSERT.encode(), columns(rows))
        previous = kept[-1] if kept else last
        head = replace(head, previous=GENESIS if previous is None else previous.digest())
        head = sign_checkpoint(head, self._signer)
        if is_due(head, previous):
            kept.append(head)
        for checkpoint in kept:
            values = audit_rows.statement_values(checkpoint)
            await connection.execute(audit_rows.INSERT_CHECKPOINT.encode(), values)
        values = audit_rows.statement_values(head)
        await connection.execute(audit_rows.UPSERT_HEAD.encode(), values)
        sources: dict[str, int] = {}
        for boot_id, number in (_source(record.event) for record in new):
            sources[boot_id] = max(number, sources.get(boot_id, number))
        day = audit_rows.as_date(head.day)
        for source, number in sources.items():
            await connection.execute(_UPSERT_SOURCE, [self._node_id, source, number, day])
        return (*kept, head)

    async def _last_kept(self, connection: Connection) -> Checkpoint | None:
        query = (
            "audit_checkpoints WHERE node_id = %s AND kind = 'checkpoint' ORDER BY seq DESC LIMIT 1"
        )
        found, ours = await self._statement(connection, query), self._kept
        if ours is not None and (found is None or found.seq < ours.seq):
            return ours  # somebody removed it: the next one names it, so that it is missed
        return found

    async def _statement(self, connection: Connection, condition: str) -> Checkpoint | None:
        query = (audit_rows.SELECT_STATEMENT + condition).encode()
        row = await (await connection.execute(query, [self._node_id])).fetchone()
        return None if row is None else audit_rows.statement_of(row)

    async def _one(
        self, connection: Connection, condition: str, parameters: Sequence[object]
    ) -> AuditRecord | None:
        query = f"{audit_rows.SELECT}WHERE node_id = %s{condition} ORDER BY seq DESC LIMIT 1"
        row = await (
            await connection.execute(query.encode(), [self._node_id, *parameters])
        ).fetchone()
        return None if row is None else record_of(audit_rows.read_row(row))


def _is_due_now(head: Checkpoint, kept: Checkpoint | None, now_us: int) -> bool:
    return is_due(replace(head, time_us=now_us), kept)


def _source(event: AuditEvent) -> tuple[str, int]:
    return event.boot_id, event.journal_seq


def translated(error: psycopg.Error) -> Exception:
    """The audit log's error for a database's."""
    state = error.sqlstate or ""
    reason = one_line(str(error))
    # ProgrammingError: no such table or column, or no right to it. No retry brings it.
    if isinstance(error, (psycopg.ProgrammingError, psycopg.NotSupportedError)):
        return AuditSchemaError(f"the audit table can't be used: {reason}", sqlstate=state)
    if isinstance(error, (psycopg.IntegrityError, psycopg.DataError)):
        return AuditSchemaError(f"the audit table refuses a record: {reason}", sqlstate=state)
    return AuditUnavailableError(reason)
