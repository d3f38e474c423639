"""Memory twins of the security level's ports, for tests of what stands on them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import replace

from services.security.audit import GENESIS, AuditEvent, AuditRecord, AuditSigner, chain_event
from services.security.audit_checkpoint import Checkpoint, is_due, sign_checkpoint
from services.security.errors import AuditUnavailableError
from services.security.model import RecordFilter
from services.security.ports import Appended


class MemoryAuditStore:
    """An AuditStore in a list.

    Args:
        node_id: whose chain it is.
        signer: signs heads and checkpoints.
        clock_us: Unix time in microseconds.

    Attributes:
        records: the chain; tests may change it.
        kept: the checkpoints; tests may change them too.
        signed_head: the newest head.
        unavailable: while not empty, every call fails with this reason.
        appends: how often ``append`` was called, failures included.
    """

    def __init__(
        self, *, node_id: str, signer: AuditSigner, clock_us: Callable[[], int] = lambda: 0
    ) -> None:
        self._node_id = node_id
        self._signer = signer
        self._clock_us = clock_us
        self.records: list[AuditRecord] = []
        self.kept: list[Checkpoint] = []
        self.signed_head: Checkpoint | None = None
        self.unavailable = ""
        self.appends = 0

    def trust(
        self, seq: int, record_hash: bytes, day: int, *, kept: Checkpoint | None = None
    ) -> None:
        """Nobody tampers with memory."""

    async def append(self, events: Sequence[AuditEvent]) -> Appended:
        """Chain the new ones among the events."""
        self.appends += 1
        self._require_available()
        before = len(self.records)
        records = tuple(self._append_one(event) for event in events)
        if len(self.records) == before:
            return Appended(records)
        last = self.records[-1]
        head = Checkpoint(
            node_id=self._node_id,
            seq=last.seq,
            hash=last.hash,
            day=last.day,
            time_us=self._clock_us(),
            count=len(self.records),
            previous=self.kept[-1].digest() if self.kept else GENESIS,
        )
        self.signed_head = sign_checkpoint(head, self._signer)
        due = is_due(self.signed_head, self.kept[-1] if self.kept else None)
        if due:
            self.kept.append(self.signed_head)
        return Appended(records, (self.signed_head,) if due else ())

    async def keep_head(self, *, when_due: bool = True) -> Checkpoint | None:
        """Keep the head as a checkpoint."""
        self._require_available()
        kept = self.kept[-1] if self.kept else None
        if self.signed_head is None or (kept is not None and kept.seq >= self.signed_head.seq):
            return None
        if when_due and not is_due(replace(self.signed_head, time_us=self._clock_us()), kept):
            return None
        self.kept.append(self.signed_head)
        return self.signed_head

    async def head(self) -> AuditRecord | None:
        """The newest record."""
        self._require_available()
        return self.records[-1] if self.records else None

    async def before(self, seq: int) -> AuditRecord | None:
        """The record next before ``seq``."""
        self._require_available()
        earlier = [record for record in self.records if record.seq < seq]
        return earlier[-1] if earlier else None

    async def page(
        self,
        *,
        first: int,
        last: int | None,
        limit: int,
        wanted: RecordFilter = RecordFilter(),  # noqa: B008 - frozen
        newest_first: bool = False,
    ) -> tuple[AuditRecord, ...]:
        """Records in a range."""
        self._require_available()
        found = [
            record
            for record in self.records
            if record.seq >= first
            and (last is None or record.seq <= last)
            and _matches(record.event, wanted)
        ]
        return tuple(found[-limit:] if newest_first else found[:limit])

    async def checkpoints(self, *, after: int, limit: int) -> tuple[Checkpoint, ...]:
        """Kept checkpoints, in order."""
        self._require_available()
        return tuple([found for found in self.kept if found.seq > after][:limit])

    async def anchor(self) -> Checkpoint | None:
        """Nothing is ever dropped here."""
        self._require_available()
        return None

    async def recorded_to(self, source: str) -> int:
        """The highest number of a source."""
        self._require_available()
        events = [record.event for record in self.records]
        return max((event.journal_seq for event in events if event.boot_id == source), default=0)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _append_one(self, event: AuditEvent) -> AuditRecord:
        source = (event.boot_id, event.journal_seq)
        for record in self.records:
            if (record.event.boot_id, record.event.journal_seq) == source:
                return record
        record = chain_event(
            event,
            seq=self.records[-1].seq + 1 if self.records else 1,
            node_id=self._node_id,
            prev_hash=self.records[-1].hash if self.records else GENESIS,
            day=self._clock_us() // 86_400_000_000,
        )
        self.records.append(record)
        return record

    def _require_available(self) -> None:
        if self.unavailable:
            raise AuditUnavailableError(self.unavailable)


def _matches(event: AuditEvent, wanted: RecordFilter) -> bool:
    for name in ("actor", "action", "subject"):
        pattern = getattr(wanted, name)
        if pattern and not fnmatch.fnmatchcase(getattr(event, name), pattern):
            return False
    if wanted.outcome and event.outcome != wanted.outcome:
        return False
    if wanted.from_us is not None and event.time_us < wanted.from_us:
        return False
    return wanted.to_us is None or event.time_us < wanted.to_us
