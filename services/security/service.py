"""The process ``security``: keys, cipher and the audit log, brought up in the required order.

1 credentials      the database takes them; the level's files are ours alone
2 encryption       master key loaded or made; the cipher proves itself
3 audit            chain head read, waiting events chained, a record written and read back
4 zero trust       nothing of its own yet: every process has a CURVE key pair from its
supervisor, and that is all there is; the log says so
5 validation       the answer to ``check``, from then on whenever it is asked
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Mapping
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
from services.data.postgres import Connection, connect
from services.security import cipher as sealing
from services.security import files
from services.security.audit_file import AUDIT_FILE_NAME
from services.security.audit_log import AuditLog
from services.security.audit_source import RESERVED_NOUNS
from services.security.audit_store import PostgresAuditStore
from services.security.errors import (
    AuditDisabledError,
    AuditRefusedError,
    AuditUnavailableError,
    CipherSelfTestError,
)
from services.security.keyring import load_keyring
from services.security.model import (
    AppendRequest,
    AuditStatus,
    SecuritySettings,
    SecurityStatus,
    VerifyRequest,
)
from supervisor.child.service import CallHandler, Request, Service, ServiceContext

CHECK_TIMEOUT_S = 3.0
# A check appends at most this often, so that frequent probes do not fill the log with themselves.
CHECK_APPEND_PERIOD_S = 60.0
APPEND_TIMEOUT_S = 5.0
VERIFY_TIMEOUT_S = 60.0
# Of the time that the caller still waits; the rest is for the way back.
REMAINING_SHARE = 0.8
# Below OTP's 5 s, with room to close.
DRAIN_TIMEOUT_S = 2.0
END_ATTEMPTS = 8
END_PERIOD_S = 0.1
METRIC_RECORDS = "novacron_audit_records_total"
METRIC_STORE_UP = "novacron_audit_store_up"
_NOT_ANSWERED = (PeerUnavailableError, CallTimeoutError, RemoteCallError)


class SecurityService(Service):
    """Keys, cipher and audit log of the node."""

    async def init(self, context: ServiceContext) -> None:
        """Run the five steps and start to follow the journal.

        Raises:
            CriticalError: a key, file, credential, table or self-test is not as it must be.
            AuditUnavailableError: the database can't be reached at the moment.
        """
        self._context = context
        self._settings = from_wire(SecuritySettings, dict(context.settings))
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._health = HEALTHY
        self._checked_s = 0.0
        self._audit: AuditLog | None = None
        directory = Path(self._settings.state_dir) / "security"

        connection = await connect(self._settings.postgres, application=context.path)
        try:
            os.close(files.open_directory(directory))
            self._step(1, "credentials", database_tls=connection.pgconn.ssl_in_use)
            self._keyring = load_keyring(directory, used_marks=(AUDIT_FILE_NAME,))
            self._test_cipher()
            self._step(2, "encryption", master_key_made=self._keyring.created)
            if self._settings.audit_enabled:
                self._audit = await self._open_audit(connection, directory)
        except BaseException:
            await connection.close()
            raise
        if self._audit is None:
            await connection.close()
        self._step(3, "audit", enabled=self._settings.audit_enabled)
        self._step(4, "zero_trust", left_out="CURVE keys per process, nothing beyond them yet")
        self._checked_s = time.monotonic()  # the log was just appended to and read back
        health = await self.check()
        self._step(5, "validation", health=health.state.value, reason=health.reason)
        self._publish_health()
        if self._audit is not None:
            self._writer = self._start(self._audit.recorder.run(), "audit-writer")
            self._reader = self._start(self._follow_journal(self._audit), "audit-journal")

    def calls(self) -> Mapping[str, CallHandler]:
        """The level's calls; their records are in services.security.model."""
        return {
            "audit.append": self._append,
            "audit.verify": self._verify,
            "security.status": self._status,
        }

    async def check(self) -> Health:
        """Prove cipher and audit log now, within CHECK_TIMEOUT_S."""
        try:
            self._test_cipher()
        except CipherSelfTestError as exc:
            return Health(HealthState.UNHEALTHY, exc.message)
        if self._audit is None:
            return HEALTHY
        is_append_due = time.monotonic() - self._checked_s >= CHECK_APPEND_PERIOD_S
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                problem = await self._audit.check(
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
        return self._audit.health()

    async def terminate(self) -> None:
        """Chain what is in the queue, or leave it in the waiting file, and let go."""
        if self._audit is None:
            return
        await _end(self._reader)
        left = await self._audit.drain(DRAIN_TIMEOUT_S)
        if left:
            self._context.log.error("audit_events_wait", events=left)
        await _end(self._writer)
        await self._audit.close()

    async def _append(self, request: Request) -> Plain:
        audit = self._required_audit()
        body = from_wire(AppendRequest, request.body)
        noun = body.action.partition(":")[0]
        if noun in RESERVED_NOUNS:
            raise AuditRefusedError(f"actions of {noun!r:.60} are recorded from the journal alone")
        event = audit.event(
            actor=request.caller,
            action=body.action,
            subject=body.subject,
            outcome=body.outcome,
            fields=body.fields,
        )
        timeout_s = min(APPEND_TIMEOUT_S, REMAINING_SHARE * request.remaining_s)
        return {"seq": await audit.append(event, timeout_s=timeout_s)}

    async def _verify(self, request: Request) -> Plain:
        body = from_wire(VerifyRequest, {} if request.body is None else request.body)
        time_s = min(VERIFY_TIMEOUT_S, REMAINING_SHARE * request.remaining_s)
        report = await self._required_audit().verify(body, time_s=time_s)
        if bad := report.first_bad:
            self._context.log.error("audit_bad_record", seq=bad.seq, reason=bad.reason)
            self._context.emit("audit:bad-record", seq=bad.seq, reason=bad.reason)
        return to_wire(report)

    async def _status(self, _request: Request) -> Plain:
        signer = self._keyring.signer
        disabled = AuditStatus(enabled=False, key_id=signer.key_id, public_key="")
        return to_wire(
            SecurityStatus(
                node_id=self._settings.node_id,
                cipher="AES-256-GCM",
                sealing_key_id=self._keyring.cipher.key_id,
                audit=disabled if self._audit is None else self._audit.status(),
            )
        )

    async def _open_audit(self, connection: Connection, directory: Path) -> AuditLog:
        store = PostgresAuditStore(
            lambda: connect(self._settings.postgres, application=self._context.path),
            node_id=self._settings.node_id,
            signer=self._keyring.signer,
            connection=connection,
        )
        audit = AuditLog(
            store=store,
            signer=self._keyring.signer,
            directory=directory,
            actor=self._context.path,
            log=self._context.log,
            on_change=self._publish_health,
            on_appended=self._count,
        )
        try:
            await audit.open(master_key_made=self._keyring.created)
        except BaseException:
            await audit.close()
            raise
        return audit

    async def _follow_journal(self, audit: AuditLog) -> None:
        since, boot_id = 0, ""
        try:
            query = to_wire(JournalQuery(limit=1))
            page = from_wire(JournalPage, await self._context.call(ROOT, "journal", query))
            since, boot_id = await audit.journal_since(page.boot_id), page.boot_id
        except (AuditUnavailableError, *_NOT_ANSWERED) as exc:
            # From the start then: what is recorded already is not recorded twice.
            self._context.log.info("audit_journal_from_start", reason=exc.message)
        await follow(self._context, audit.take, since=since, boot_id=boot_id)

    def _test_cipher(self) -> None:
        sealing.self_test(self._keyring.cipher, nonce=os.urandom(sealing.NONCE_BYTES))

    def _required_audit(self) -> AuditLog:
        if self._audit is None:
            raise AuditDisabledError("security.audit.enabled is false")
        return self._audit

    def _publish_health(self) -> None:
        health = HEALTHY if self._audit is None else self._audit.health()
        if health == self._health:
            return
        self._health = health
        self._context.set_health(health)
        is_up = 0.0 if health.state is HealthState.UNHEALTHY else 1.0
        self._context.measure(MetricSample(MetricKind.GAUGE, METRIC_STORE_UP, is_up))

    def _count(self, records: int) -> None:
        self._context.measure(MetricSample(MetricKind.COUNTER, METRIC_RECORDS, float(records)))

    def _step(self, number: int, name: str, **fields: Plain) -> None:
        self._context.log.info("security_step", step=number, name=name, **fields)

    def _start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception() or RuntimeError(f"the task {task.get_name()} ended by itself")
        self._context.fail(error)


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel a task until it has ended.

    One cancellation may not do: asyncio.wait_for of Python 3.11 swallows one that arrives
    together with the result (python/cpython#86296), and what a call goes through may use it.
    """
    for _ in range(END_ATTEMPTS):
        if task is None or task.done():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=END_PERIOD_S)
