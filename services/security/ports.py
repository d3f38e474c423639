"""What the audit log needs of a database. ``services.security.memory`` has the memory twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.security.audit import AuditEvent, AuditRecord
from services.security.audit_checkpoint import Checkpoint
from services.security.model import RecordFilter


@dataclass(frozen=True, slots=True)
class Appended:
    """What came of an append.

    Attributes:
        records: of all the events, of those too that were there already.
        kept: the checkpoints that were made.
        distrusted: why what the database says is the head was not gone on from; "" when it was.
    """

    records: tuple[AuditRecord, ...]
    kept: tuple[Checkpoint, ...] = ()
    distrusted: str = ""


class AuditStore(Protocol):
    """The chain of one node, appended to by any number of processes.

    Every method raises AuditUnavailableError when the store can't be reached, after which the
    next call tries anew, and AuditSchemaError when no further try would help.
    """

    def trust(
        self, seq: int, record_hash: bytes, day: int, *, kept: Checkpoint | None = None
    ) -> None:
        """Say which record and checkpoint were the newest, as the node's own files have them.

        What the store says is the head, or the last checkpoint, is gone on from only when it is
        not behind that.
        """

    async def append(self, events: Sequence[AuditEvent]) -> Appended:
        """Chain those events whose source is not recorded yet, all or none of them.

        The new head is signed, and kept as a checkpoint where one is due.
        """

    async def keep_head(self, *, when_due: bool = True) -> Checkpoint | None:
        """Keep the head as a checkpoint; None when it is one already.

        Args:
            when_due: only when a checkpoint is due by now.
        """

    async def head(self) -> AuditRecord | None:
        """The node's newest record."""

    async def before(self, seq: int) -> AuditRecord | None:
        """The record next before a sequence number."""

    async def page(
        self,
        *,
        first: int,
        last: int | None,
        limit: int,
        wanted: RecordFilter = ...,
        newest_first: bool = False,
    ) -> tuple[AuditRecord, ...]:
        """Records from ``first`` to ``last``, in order, at most ``limit``."""

    async def checkpoints(self, *, after: int, limit: int) -> tuple[Checkpoint, ...]:
        """Kept checkpoints with a higher number, in order."""

    async def anchor(self) -> Checkpoint | None:
        """The newest anchor."""

    async def recorded_to(self, source: str) -> int:
        """The highest number chained of a source (``boot_id``); 0 without one."""

    async def close(self) -> None:
        """Let go of the store."""
