"""Step 3: the audit log: its head is read, waiting events are chained, a record proves it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from protocol.errors import (
    CallTimeoutError,
    NovacronError,
    PeerUnavailableError,
    RemoteCallError,
)
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.journal import JournalPage, JournalQuery
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.names import ROOT
from protocol.records import Plain, from_wire, to_wire
from services.data.journal_reader import follow
from services.data.postgres import connect
from services.security import audit_records
from services.security.audit_export import Exporter
from services.security.audit_log import AuditLog
from services.security.audit_reader import AuditReader
from services.security.audit_retention import Retention
from services.security.audit_source import RESERVED_NOUNS
from services.security.audit_spool import SPOOL_DIRECTORY, SpoolGauge, SpoolReader
from services.security.audit_statements import StatementCopies
from services.security.audit_store import PostgresAuditStore
from services.security.credentials_part import CredentialsPart
from services.security.encryption_part import EncryptionPart
from services.security.errors import (
    AuditDisabledError,
    AuditRefusedError,
    AuditUnavailableError,
)
from services.security.model import (
    AcceptRequest,
    AppendRequest,
    AuditStatus,
    ExportRequest,
    RecordsRequest,
    VerifyRequest,
)
from services.security.parts import Level, Part, end
from services.security.ports import AuditStore
from supervisor.child.service import CallHandler, Request

CHECK_TIMEOUT_S = 3.0
# A check appends at most this often, so that frequent probes do not fill the log with themselves.
CHECK_APPEND_PERIOD_S = 60.0
APPEND_TIMEOUT_S = 5.0
VERIFY_TIMEOUT_S = 60.0
EXPORT_TIMEOUT_S = 2.0
# What matches a filter may be far apart.
READ_TIMEOUT_S = 20.0
WAIT_MAX_S = 20.0
# How often to see whether a checkpoint is due and whether the spool shrinks.
LOOK_PERIOD_S = 10.0
# Of the time that the caller still waits; the rest is for the way back.
REMAINING_SHARE = 0.8
# Below OTP's 5 s, with room to close.
DRAIN_TIMEOUT_S = 2.0
METRIC_RECORDS = "novacron_audit_records_total"
METRIC_STORE_UP = "novacron_audit_store_up"
_NOT_ANSWERED = (PeerUnavailableError, CallTimeoutError, RemoteCallError)


class AuditPart(Part):
    """Records what happens in the node.

    Args:
        level: what all parts share.
        credentials: has a connection to begin with.
        encryption: has the signing key.
    """

    step = 3
    name = "audit"

    def __init__(
        self, level: Level, credentials: CredentialsPart, encryption: EncryptionPart
    ) -> None:
        self._level = level
        self._context = level.context
        self._credentials = credentials
        self._encryption = encryption
        self._log: AuditLog | None = None
        self._works: list[asyncio.Task[None]] = []
        self._spool_reader: SpoolReader | None = None
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._checked_s = 0.0

    async def open(self) -> Mapping[str, Plain]:
        """Open the log, unless it is switched off.

        Raises:
            CriticalError: the table, a file or a record is not as it must be.
            AuditUnavailableError: the database can't be reached at the moment.
        """
        if not self._level.settings.audit_enabled:
            return {"enabled": False}
        store = PostgresAuditStore(
            lambda: connect(self._level.settings.postgres, application=self._context.path),
            node_id=self._level.settings.node_id,
            signer=self._encryption.keyring.signer,
            connection=self._credentials.take_connection(),
        )
        try:
            log = self._make_log(store)
        except BaseException:
            await store.close()
            raise
        try:
            await log.open(master_key_made=self._encryption.keyring.created)
        except BaseException:
            await log.close()
            raise
        self._log = log
        self._exporter = Exporter(
            self._reading_store, self._encryption.keyring.signer, self._level.settings.node_id
        )
        self._reader_thread = AuditReader(
            self._level.settings.postgres,
            application=f"{self._context.path} reader",
            node_id=self._level.settings.node_id,
            directory=self._level.directory,
        )
        self._checked_s = time.monotonic()  # it was just appended to and read back
        return {"enabled": True}

    def begin(self) -> None:
        """Start to write, and to follow the journal."""
        if self._log is not None:
            self._writer = self._level.start(self._log.recorder.run(), "audit-writer")
            self._reader = self._level.start(self._follow_journal(self._log), "audit-journal")
            if self._spool.is_dir():
                self._spool_reader = SpoolReader(self._spool, self._log, self._context.log)
                self._works.append(self._level.start(self._spool_reader.run(), "audit-spool"))
            self._works += [
                self._level.start(self._look(self._log), "audit-look"),
                self._level.start(self._retention(self._log).run(), "audit-retention"),
            ]

    def calls(self) -> Mapping[str, CallHandler]:
        """See services.security.model."""
        return {
            "audit.append": self._append,
            "audit.verify": self._verify,
            "audit.tail": self._records,
            "audit.export": self._export,
            "audit.accept": self._accept,
        }

    def health(self) -> Health:
        """How the log is, without asking the database."""
        return HEALTHY if self._log is None else self._log.health()

    async def check(self) -> Health:
        """Verify the newest record, and append one where that is due."""
        if self._log is None:
            return HEALTHY
        is_append_due = time.monotonic() - self._checked_s >= CHECK_APPEND_PERIOD_S
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                problem = await self._log.check(
                    is_append_due=is_append_due, timeout_s=CHECK_TIMEOUT_S
                )
        except TimeoutError:
            problem = f"the audit log did not answer in {CHECK_TIMEOUT_S:g} s"
        except NovacronError as exc:
            problem = exc.message
        if problem:
            return Health(HealthState.UNHEALTHY, problem)
        if is_append_due:
            self._checked_s = time.monotonic()
        return self._log.health()

    async def close(self) -> None:
        """Chain what is in the queue, or leave it in the waiting file, and let go."""
        log, self._log = self._log, None
        if log is None:
            return
        self._reader_thread.close()
        for task in (*self._works, self._reader):
            await end(task)
        if self._writer is not None and (left := await log.drain(DRAIN_TIMEOUT_S)):
            self._context.log.error("audit_events_wait", events=left)
        await end(self._writer)
        await self._keep_last(log)
        await log.close()

    def status(self) -> AuditStatus:
        """The log at the moment."""
        if self._log is None:
            key_id = self._encryption.keyring.signer.key_id
            return AuditStatus(enabled=False, key_id=key_id, public_key="")
        reader = self._spool_reader
        waiting = 0 if reader is None else reader.waiting_bytes()
        return replace(self._log.status(), spooled_bytes=waiting)

    def _make_log(self, store: PostgresAuditStore) -> AuditLog:
        settings = self._level.settings
        directory = settings.audit_checkpoint_dir
        copies = StatementCopies(
            node_id=settings.node_id,
            directory=Path(directory) if directory else None,
            to_syslog=settings.audit_checkpoint_syslog,
            on_trouble=partial(self._copied, asyncio.get_running_loop()),
        )
        return AuditLog(
            store=store,
            signer=self._encryption.keyring.signer,
            directory=self._level.directory,
            actor=self._context.path,
            log=self._context.log,
            on_change=self._changed,
            on_appended=self._count,
            public_keys=self._encryption.keyring.public_keys,
            copies=copies,
            with_operators=not self._spool.is_dir(),
        )

    def _reading_store(self) -> AuditStore:
        """The chain over a connection of its own: who looks holds up nobody who records."""
        settings = self._level.settings
        return PostgresAuditStore(
            lambda: connect(settings.postgres, application=f"{self._context.path} reader"),
            node_id=settings.node_id,
            signer=self._encryption.keyring.signer,
            timeout_s=READ_TIMEOUT_S,
        )

    @property
    def _spool(self) -> Path:
        return self._level.directory / SPOOL_DIRECTORY

    def _retention(self, log: AuditLog) -> Retention:
        return Retention(
            log=log,
            reader=self._reader_thread,
            signer=self._encryption.keyring.signer,
            node_id=self._level.settings.node_id,
            directory=self._level.directory,
            days=self._level.settings.audit_retention_days,
        )

    def _copied(self, loop: asyncio.AbstractEventLoop, trouble: str) -> None:
        def tell() -> None:
            if self._log is not None:
                self._log.set_trouble("copies", trouble)

        if not loop.is_closed():
            loop.call_soon_threadsafe(tell)

    async def _keep_last(self, log: AuditLog) -> None:
        """The end of this process is where the next one begins: its head is kept."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await log.keep_checkpoint(when_due=False)
        except (NovacronError, TimeoutError) as exc:
            self._context.log.warning("audit_checkpoint_not_kept", reason=str(exc))

    async def _look(self, log: AuditLog) -> None:
        """Keep a checkpoint when one is due, and see whether the spool is emptied."""
        reader = self._spool_reader
        gauge = None if reader is None else SpoolGauge(reader, time.monotonic)
        while True:
            await asyncio.sleep(LOOK_PERIOD_S)
            with contextlib.suppress(AuditUnavailableError):  # told by the writer
                await log.keep_checkpoint()
            if gauge is not None:
                log.set_trouble("spool", await asyncio.to_thread(gauge.trouble))

    async def _append(self, request: Request) -> Plain:
        log = self._required_log()
        body = from_wire(AppendRequest, request.body)
        noun = body.action.partition(":")[0]
        if noun in RESERVED_NOUNS:
            raise AuditRefusedError(f"actions of {noun!r:.60} are recorded from the journal alone")
        event = log.event(
            actor=request.caller,
            action=body.action,
            subject=body.subject,
            outcome=body.outcome,
            fields=body.fields,
        )
        timeout_s = min(APPEND_TIMEOUT_S, REMAINING_SHARE * request.remaining_s)
        return {"seq": await log.append(event, timeout_s=timeout_s)}

    async def _verify(self, request: Request) -> Plain:
        body = from_wire(VerifyRequest, {} if request.body is None else request.body)
        time_s = min(VERIFY_TIMEOUT_S, REMAINING_SHARE * request.remaining_s)
        log = self._required_log()
        if body.files:
            report = await self._reader_thread.verify_files(log.keys)
        else:
            report = await self._reader_thread.verify(
                body,
                keys=log.keys,
                witness=log.witness(),
                anchor=log.statements.anchor,
                time_s=time_s,
            )
        if bad := report.first_bad:
            self._context.log.error("audit_bad_record", seq=bad.seq, reason=bad.reason)
            self._context.emit("audit:bad-record", seq=bad.seq, reason=bad.reason)
        return to_wire(report)

    async def _records(self, request: Request) -> Plain:
        body = from_wire(RecordsRequest, {} if request.body is None else request.body)
        log, store = self._required_log(), self._reading_store()
        wait_s = min(body.wait_s, WAIT_MAX_S, REMAINING_SHARE * request.remaining_s)
        try:
            return to_wire(await audit_records.answer(body, store, log.recorder, wait_s=wait_s))
        finally:
            await store.close()

    async def _export(self, request: Request) -> Plain:
        body = from_wire(ExportRequest, {} if request.body is None else request.body)
        self._required_log()
        time_s = min(EXPORT_TIMEOUT_S, REMAINING_SHARE * request.remaining_s)
        return to_wire(await self._exporter.next_piece(body, time_s=time_s))

    async def _accept(self, request: Request) -> Plain:
        body = from_wire(AcceptRequest, request.body)
        retention = self._retention(self._required_log())
        return {"anchor": await retention.accept(request.caller, body.reason)}

    async def _follow_journal(self, log: AuditLog) -> None:
        since, boot_id = 0, ""
        try:
            query = to_wire(JournalQuery(limit=1))
            page = from_wire(JournalPage, await self._context.call(ROOT, "journal", query))
            since, boot_id = await log.journal_since(page.boot_id), page.boot_id
        except (AuditUnavailableError, *_NOT_ANSWERED) as exc:
            # From the start then: what is recorded already is not recorded twice.
            self._context.log.info("audit_journal_from_start", reason=exc.message)
        await follow(self._context, log.take, since=since, boot_id=boot_id)

    def _required_log(self) -> AuditLog:
        if self._log is None:
            raise AuditDisabledError("security.audit.enabled is false")
        return self._log

    def _changed(self) -> None:
        is_up = 0.0 if self.health().state is HealthState.UNHEALTHY else 1.0
        self._context.measure(MetricSample(MetricKind.GAUGE, METRIC_STORE_UP, is_up))
        self._level.on_change()

    def _count(self, records: int) -> None:
        self._context.measure(MetricSample(MetricKind.COUNTER, METRIC_RECORDS, float(records)))
