"""The in-memory twin of the audit store, for tests of what stands above it."""

from __future__ import annotations

from collections.abc import Sequence

from services.security.audit import GENESIS, AuditEvent, AuditRecord, AuditSigner, seal_event
from services.security.errors import AuditUnavailableError


class MemoryAuditStore:
    """An AuditStore in a list.

    Args:
        node_id: whose chain it is.
        signer: signs the records.

    Attributes:
        records: the chain; tests may change it.
        unavailable: while not empty, every call fails with this reason.
        appends: how often ``append`` was called, failures included.
    """

    def __init__(self, *, node_id: str, signer: AuditSigner) -> None:
        self._node_id = node_id
        self._signer = signer
        self.records: list[AuditRecord] = []
        self.unavailable = ""
        self.appends = 0

    async def append(self, events: Sequence[AuditEvent]) -> tuple[AuditRecord, ...]:
        """Chain the new ones among the events."""
        self.appends += 1
        self._require_available()
        return tuple(self._append_one(event) for event in events)

    async def head(self) -> AuditRecord | None:
        """The newest record."""
        self._require_available()
        return self.records[-1] if self.records else None

    async def before(self, seq: int) -> AuditRecord | None:
        """The record next before ``seq``."""
        self._require_available()
        earlier = [record for record in self.records if record.seq < seq]
        return earlier[-1] if earlier else None

    async def page(self, *, first: int, last: int | None, limit: int) -> tuple[AuditRecord, ...]:
        """Records in a range."""
        self._require_available()
        found = [
            record
            for record in self.records
            if record.seq >= first and (last is None or record.seq <= last)
        ]
        return tuple(found[:limit])

    async def recorded_to(self, boot_id: str) -> int:
        """The highest journal sequence number of a boot."""
        self._require_available()
        events = [record.event for record in self.records]
        return max((event.journal_seq for event in events if event.boot_id == boot_id), default=0)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _append_one(self, event: AuditEvent) -> AuditRecord:
        source = (event.boot_id, event.journal_seq)
        for record in self.records:
            if (record.event.boot_id, record.event.journal_seq) == source:
                return record
        record = seal_event(
            event,
            seq=self.records[-1].seq + 1 if self.records else 1,
            node_id=self._node_id,
            prev_hash=self.records[-1].hash if self.records else GENESIS,
            signer=self._signer,
        )
        self.records.append(record)
        return record

    def _require_available(self) -> None:
        if self.unavailable:
            raise AuditUnavailableError(self.unavailable)
