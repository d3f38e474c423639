"""The retention of the audit log as work of the security process: when, and in which order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from protocol.errors import NovacronError
from protocol.records import Plain
from services.security import audit_file, audit_prune
from services.security.audit import AuditSigner
from services.security.audit_log import AuditLog
from services.security.audit_reader import AuditReader
from services.security.audit_rows import as_date
from services.security.audit_store import DAY_US
from services.security.errors import AuditPruneRefusedError, AuditUnavailableError
from services.security.model import Outcome

# Not with the rush of a boot.
FIRST_S = 60.0
PERIOD_S = 3600.0


class Retention:
    """Drops what is too old.

    Args:
        log: the log.
        reader: has a thread and a connection.
        signer: signs the anchor.
        node_id: whose chain.
        directory: ``<state>/security``.
        days: for which records are kept.
        clock_us: Unix time in microseconds.
    """

    def __init__(
        self,
        *,
        log: AuditLog,
        reader: AuditReader,
        signer: AuditSigner,
        node_id: str,
        directory: Path,
        days: int,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._log = log
        self._reader = reader
        self._signer = signer
        self._node_id = node_id
        self._directory = directory
        self._days = days
        self._clock_us = clock_us

    async def run(self) -> None:
        """Prune now and then, until cancelled."""
        pause_s = FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = PERIOD_S
            try:
                trouble = await self.prune()
            except AuditUnavailableError:
                continue  # told by the writer
            except (AuditPruneRefusedError, OSError) as exc:
                trouble = exc.message if isinstance(exc, NovacronError) else str(exc)
            self._log.set_trouble("retention", trouble)

    async def prune(self) -> str:
        """Drop what is too old; returns what is in the way for the moment, or "".

        Raises:
            AuditPruneRefusedError: what is too old does not verify and stays.
            AuditUnavailableError: the database can't be reached.
        """
        await self._finish()
        now_us = self._clock_us()
        planned = await self._reader.run(
            partial(
                audit_prune.plan,
                node_id=self._node_id,
                keys=self._log.keys,
                witness=self._log.witness(),
                before_day=now_us // DAY_US - self._days,
                now_us=now_us,
            )
        )
        if planned is None:
            return ""
        fields: dict[str, Plain] = {
            "through_seq": planned.anchor.seq,
            "records": planned.records,
            "first_day": as_date(planned.first_day).isoformat(),
            "last_day": as_date(planned.last_day).isoformat(),
        }
        await self._log.record_durably("audit:pruned", Outcome.SUCCESS, fields)
        anchor = await self._reader.run(
            partial(audit_prune.set_anchor, planned=planned, signer=self._signer)
        )
        await self._log.recorder.keep((anchor,))
        return await self._finish()

    async def accept(self, actor: str, reason: str) -> int:
        """Begin verification anew after the newest record; returns its number.

        For a database that was restored from a backup or lost: what is missing stays missing, and
        a person says that it is known. What is before is dropped as if it were old.

        Raises:
            AuditPruneRefusedError: the chain has no signed head.
            AuditRefusedError: the reason is too long.
            AuditUnavailableError: the database can't be reached.
        """
        event = self._log.event(
            actor=actor,
            action="audit:accepted",
            subject=self._node_id,
            outcome=Outcome.SUCCESS,
            fields={"reason": reason},
        )
        await self._log.recorder.append_all([event])
        anchor = await self._reader.run(
            partial(
                audit_prune.anchor_head,
                node_id=self._node_id,
                keys=self._log.keys,
                signer=self._signer,
                now_us=self._clock_us(),
            )
        )
        if anchor is None:
            raise AuditPruneRefusedError("the chain has no head that this node has signed")
        await self._log.recorder.keep((anchor,))
        self._log.forget_mismatch()
        self._log.set_trouble("retention", "")
        return anchor.seq

    async def _finish(self) -> str:
        """Work off the newest anchor."""
        anchor = await self._log.stored_anchor()
        if anchor is None:
            return ""
        await self._log.recorder.keep((anchor,))
        held = await self._reader.run(
            partial(audit_prune.drop, node_id=self._node_id, keys=self._log.keys)
        )
        await self._log.recorder.on_disk(partial(self._prune_files, anchor.seq))
        return held

    def _prune_files(self, seq: int) -> None:
        audit_file.prune(self._directory, seq)
        self._log.statements.prune(seq)
