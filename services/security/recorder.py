"""The way of audit events into the chain: a bounded queue, one writer, two files beside it.

Invariant: an event that was taken is in the queue, in the waiting file, or in the chain, until it
is in the chain. While the database is away the writer tries again with growing pauses, events are
kept in memory and in the waiting file, and past QUEUE_MAX new ones are refused, not dropped: the
journal's reader waits, other callers get an error. The recorder says once when the database goes
and once when it is back; a message per event would itself become an audit event.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from services.security.audit import AuditEvent, AuditRecord
from services.security.audit_checkpoint import Checkpoint
from services.security.audit_file import AuditFile, WaitingFile
from services.security.audit_statements import StatementFile
from services.security.errors import AuditQueueFullError, AuditUnavailableError
from services.security.ports import AuditStore

R = TypeVar("R")

# 16 KiB at most per event: 64 MiB at the very worst, some 2 MiB of ordinary events.
QUEUE_MAX = 4096
# One transaction and two syncs for so many events.
BATCH_MAX = 128
RETRY_INITIAL_S = 0.25
RETRY_MAX_S = 5.0
# Records copied at a time into an audit file that lags behind the database.
CATCH_UP_RECORDS = 500


@dataclass(slots=True)
class _Item:
    event: AuditEvent
    done: asyncio.Future[int | None] | None
    is_kept: bool = False  # in the waiting file


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderStatistics:
    """The recorder's counters; ``refused`` are events that did not fit into the queue."""

    appended: int
    waiting: int
    refused: int
    head_seq: int | None


class Recorder:
    """Chains events in the order in which they came.

    Args:
        store: the chain.
        copy: the file that follows the chain.
        waiting: the file that keeps events while the store is away.
        log: logger.
        on_change: called when ``trouble`` or ``copy_trouble`` has changed.
        on_appended: called with the number of records that the store took.
        statements: the file of kept checkpoints.
        on_kept: called with checkpoints that the file has taken.
        on_distrust: called with why the database's head was not gone on from.
        retry_initial_s: pause after the first failure, doubling from then on.

    Attributes:
        trouble: why the store does not take events; "" while it does.
        copy_trouble: why the audit file can't be written; "" while it can.
    """

    def __init__(
        self,
        *,
        store: AuditStore,
        copy: AuditFile,
        waiting: WaitingFile,
        log: structlog.typing.FilteringBoundLogger,
        on_change: Callable[[], None],
        on_appended: Callable[[int], None],
        statements: StatementFile,
        on_kept: Callable[[Sequence[Checkpoint]], None] = lambda _kept: None,
        on_distrust: Callable[[str], None] = lambda _reason: None,
        retry_initial_s: float = RETRY_INITIAL_S,
    ) -> None:
        self._store = store
        self._copy = copy
        self._waiting = waiting
        self._log = log
        self._on_change = on_change
        self._on_appended = on_appended
        self._statements = statements
        self._on_kept = on_kept
        self._on_distrust = on_distrust
        self._news = asyncio.Event()
        self._retry_initial_s = retry_initial_s
        self._queue: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._disk = ThreadPoolExecutor(1, "audit-disk")
        self._appended = 0
        self._refused = 0
        self._head_seq = 0
        self.trouble = ""
        self.copy_trouble = ""

    def statistics(self) -> RecorderStatistics:
        """The counters now."""
        return RecorderStatistics(
            appended=self._appended,
            waiting=len(self._queue),
            refused=self._refused,
            head_seq=self._head_seq or None,
        )

    async def recover(self) -> int:
        """Chain what a previous process kept in the waiting file; returns how many events.

        Call it before ``run``.

        Raises:
            AuditUnavailableError: the store can't be reached.
        """
        events = await self._on_disk(self._waiting.read)
        for start in range(0, len(events), BATCH_MAX):
            await self.append_now(events[start : start + BATCH_MAX])
        if self._waiting.unreadable:
            aside = await self._on_disk(self._waiting.set_aside)
            lines = self._waiting.unreadable
            self._log.error("audit_waiting_lines_unreadable", lines=lines, kept_in=str(aside))
        await self._on_disk(self._waiting.clear)
        return len(events)

    async def append_now(self, events: Sequence[AuditEvent]) -> tuple[AuditRecord, ...]:
        """Chain events past the queue; for use while ``run`` does not.

        Raises:
            AuditUnavailableError: the store can't be reached.
        """
        appended = await self._store.append(events)
        records = appended.records
        if appended.distrusted:
            self._on_distrust(appended.distrusted)
        # Of events that were there already the store returns the older records.
        new = [record for record in records if record.seq > self._head_seq]
        if new:
            self._head_seq = max(record.seq for record in new)
            self._appended += len(new)
            self._on_appended(len(new))
        await self._update_copy(records)
        await self.keep(appended.kept)
        self._news.set()
        return records

    async def keep(self, kept: Sequence[Checkpoint]) -> None:
        """Write checkpoints that the store has kept, or an anchor, to the file of statements."""
        if not kept:
            return
        try:
            await self._on_disk(partial(self._statements.append, kept))
        except OSError as exc:
            # The next start copies them from the database.
            self._log.error("audit_checkpoint_not_written", error=str(exc))
        self._on_kept(kept)

    @property
    def head_seq(self) -> int:
        """Number of the last record that this process knows; 0 without one."""
        return self._head_seq

    async def wait_past(self, seq: int, timeout_s: float) -> None:
        """Wait until a record past ``seq`` was chained, or for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._head_seq <= seq:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    async def on_disk(self, work: Callable[[], R]) -> R:
        """Run work on the audit files, in turn with the recorder's own."""
        return await self._on_disk(work)

    async def catch_up(self) -> None:
        """Copy into the audit file what a crash kept from it."""
        while True:
            first = self._copy.tail_seq + 1
            records = await self._store.page(first=first, last=None, limit=CATCH_UP_RECORDS)
            await self._on_disk(partial(self._copy.append, records))
            if len(records) < CATCH_UP_RECORDS:
                return

    async def put(self, event: AuditEvent) -> None:
        """Take an event, waiting for room as long as it takes."""
        while len(self._queue) >= QUEUE_MAX:
            self._room.clear()
            await self._room.wait()
        self._enqueue(_Item(event, None))

    def put_nowait(self, event: AuditEvent) -> None:
        """Take an event past the bound: for the few that tell of trouble."""
        self._enqueue(_Item(event, None))

    async def append(self, event: AuditEvent, *, timeout_s: float) -> int | None:
        """Take an event and wait until it is safe.

        Returns:
            Its sequence number, or None when it is in the waiting file and will be chained later.

        Raises:
            AuditQueueFullError: no more events are taken at present.
            AuditUnavailableError: it is neither in the chain nor in a file yet; it may still be.
        """
        if len(self._queue) >= QUEUE_MAX:
            self._refused += 1
            raise AuditQueueFullError(f"{QUEUE_MAX} audit records wait for the database")
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._enqueue(_Item(event, done))
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            raise AuditUnavailableError(f"no audit record within {timeout_s:g} s") from None

    async def append_all(self, events: Sequence[AuditEvent]) -> None:
        """Take events, waiting for room, and wait until all are in the chain or in the file."""
        settled = []
        for event in events:
            while len(self._queue) >= QUEUE_MAX:
                self._room.clear()
                await self._room.wait()
            done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
            self._enqueue(_Item(event, done))
            settled.append(done)
        if settled:
            await asyncio.wait(settled)

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            AuditSchemaError: the store is there and will never take an event.
        """
        pause_s = self._retry_initial_s
        while True:
            await self._arrived.wait()
            if not self._queue:
                self._arrived.clear()
                continue
            try:
                await self._write_batch()
            except AuditUnavailableError as exc:
                await self._enter_trouble(exc.message)
                await self._keep_until(time.monotonic() + pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                pause_s = self._retry_initial_s

    async def drain(self, timeout_s: float) -> int:
        """Wait until the queue is empty; returns how many events are still in it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            await self._keep()
        return len(self._queue)

    async def close(self) -> None:
        """Close the files, after what is still being written to them."""
        await self._on_disk(self._copy.close)
        await self._on_disk(self._waiting.close)
        await self._on_disk(self._statements.close)
        self._disk.shutdown(wait=False)

    def _enqueue(self, item: _Item) -> None:
        self._queue.append(item)
        self._empty.clear()
        self._arrived.set()

    async def _write_batch(self) -> None:
        batch = [self._queue[index] for index in range(min(len(self._queue), BATCH_MAX))]
        records = await self.append_now([item.event for item in batch])
        for item, record in zip(batch, records, strict=True):
            removed = self._queue.popleft()
            assert removed is item, "only the writer removes from the queue"
            _settle(item, record.seq)
        self._room.set()
        if not self._queue:
            await self._forget_waiting()
            self._empty.set()
        if self.trouble:
            self.trouble = ""
            self._log.info("audit_store_back", waiting=len(self._queue))
            self._on_change()

    async def _enter_trouble(self, reason: str) -> None:
        if not self.trouble:
            self.trouble = reason
            self._log.error("audit_store_lost", reason=reason, waiting=len(self._queue))
            self._on_change()
        await self._keep()

    async def _keep_until(self, deadline_s: float) -> None:
        """Wait for the next try, keeping what arrives meanwhile."""
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(remaining_s):
                    await self._arrived.wait()
            except TimeoutError:
                break
            await self._keep()
        self._arrived.set()

    async def _keep(self) -> None:
        new = [item for item in self._queue if not item.is_kept]
        if not new:
            return
        try:
            events = [item.event for item in new]
            await self._on_disk(partial(self._waiting.add, events))
        except OSError as exc:
            # They stay in memory; whoever waits for one of them runs into its timeout.
            self._log.error("audit_waiting_not_written", error=str(exc), events=len(new))
            return
        for item in new:
            item.is_kept = True
            _settle(item, None)

    async def _forget_waiting(self) -> None:
        try:
            await self._on_disk(self._waiting.clear)
        except OSError as exc:
            self._log.warning("audit_waiting_not_cleared", error=str(exc))

    async def _update_copy(self, records: Sequence[AuditRecord]) -> None:
        new = sorted(
            (record for record in records if record.seq > self._copy.tail_seq),
            key=lambda record: record.seq,
        )
        if not new:
            return
        trouble = ""
        try:
            if new[0].prev_hash == self._copy.tail_hash:
                await self._on_disk(partial(self._copy.append, new))
            else:
                await self.catch_up()
        except (OSError, AuditUnavailableError) as exc:
            # The chain has them; the next record's turn brings the file up to date.
            trouble = f"{self._copy.path.name} does not follow the database: {exc}"
        if trouble != self.copy_trouble:
            self.copy_trouble = trouble
            self._log.warning("audit_copy_changed", trouble=trouble)
            self._on_change()

    async def _on_disk(self, work: Callable[[], R]) -> R:
        """Run file work in order, off the loop: a sync may take seconds on a busy disk."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


def _settle(item: _Item, seq: int | None) -> None:
    if item.done is not None and not item.done.done():
        item.done.set_result(seq)
