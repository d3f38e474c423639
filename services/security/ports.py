"""What the audit log needs of a database. ``services.security.memory`` has the memory twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.security.audit import AuditEvent, AuditRecord


class AuditStore(Protocol):
    """The chain of one node, appended to by any number of processes.

    Every method raises AuditUnavailableError when the store can't be reached, after which the
    next call tries anew, and AuditSchemaError when no further try would help.
    """

    async def append(self, events: Sequence[AuditEvent]) -> tuple[AuditRecord, ...]:
        """Chain those events whose source is not recorded yet, all or none of them.

        Returns:
            The records of all the events, of those too that were there already.
        """

    async def head(self) -> AuditRecord | None:
        """The node's newest record."""

    async def before(self, seq: int) -> AuditRecord | None:
        """The node's record next before a sequence number."""

    async def page(self, *, first: int, last: int | None, limit: int) -> tuple[AuditRecord, ...]:
        """Records from ``first`` to ``last``, in order, at most ``limit``."""

    async def recorded_to(self, boot_id: str) -> int:
        """The highest journal sequence number recorded of a boot; 0 without one."""

    async def close(self) -> None:
        """Let go of the store."""
