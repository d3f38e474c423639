"""The audit log as the security process uses it: opened, proven, fed, verified, closed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.journal import JournalPage
from protocol.records import Plain
from services.security.audit import (
    GENESIS,
    AuditEvent,
    AuditRecord,
    AuditSigner,
    make_event,
    row_of,
)
from services.security.audit_chain import ChainVerifier, Start, Witness
from services.security.audit_checkpoint import Checkpoint
from services.security.audit_file import (
    AUDIT_FILE_NAME,
    WAITING_FILE_NAME,
    AuditFile,
    WaitingFile,
)
from services.security.audit_source import event_of
from services.security.audit_statements import (
    CHECKPOINT_FILE_NAME,
    KEYS_FILE_NAME,
    StatementCopies,
    StatementFile,
    keys_of,
    remember_key,
)
from services.security.errors import AuditSelfTestError
from services.security.model import AuditStatus, Outcome
from services.security.ports import AuditStore
from services.security.recorder import Recorder

_CHECKPOINTS_PAGE = 1000


class AuditLog:
    """One node's audit log.

    Args:
        store: the chain.
        signer: the node's signing key.
        directory: ``<state>/security``, which is there and ours.
        actor: path of this process, the actor of what it records on its own account.
        log: logger.
        on_change: called when ``health`` has changed.
        on_appended: called with the number of records that the chain took.
        public_keys: what the node has signed with, by key id; else those that the file beside
            the log has, which is written for auditors.
        copies: where checkpoints go besides the node's own file.
        with_operators: record the journal's ``operator:`` events; where there is a spool, its
            records of the same calls are better.

    Raises:
        SecurityFileError: one of the files is not ours alone.
    """

    def __init__(
        self,
        *,
        store: AuditStore,
        signer: AuditSigner,
        directory: Path,
        actor: str,
        log: structlog.typing.FilteringBoundLogger,
        on_change: Callable[[], None],
        on_appended: Callable[[int], None],
        public_keys: Mapping[str, bytes] | None = None,
        copies: StatementCopies | None = None,
        with_operators: bool = True,
    ) -> None:
        self._store = store
        self._signer = signer
        filed = remember_key(directory / KEYS_FILE_NAME, signer, now_us=time.time_ns() // 1000)
        self.keys = filed if public_keys is None else keys_of(public_keys)
        self._actor = actor
        self._log = log
        self._copy = AuditFile(directory / AUDIT_FILE_NAME)
        self._waiting = WaitingFile(directory / WAITING_FILE_NAME)
        self.statements = StatementFile(directory / CHECKPOINT_FILE_NAME)
        self._copies = copies
        self._on_change = on_change
        self._with_operators = with_operators
        self.recorder = Recorder(
            store=store,
            copy=self._copy,
            waiting=self._waiting,
            log=log,
            on_change=on_change,
            on_appended=on_appended,
            statements=self.statements,
            on_kept=self._copy_statements,
            on_distrust=self._distrust,
        )
        # Sources of this process's own events, told apart from every boot's journal.
        self._source = f"{actor}:{secrets.token_hex(8)}"
        self._source_seq = 0
        self._lost = 0
        self._mismatch = ""
        self._troubles: dict[str, str] = {}

    async def open(self, **fields: Plain) -> None:
        """Compare file and database, chain what waited, and prove the log with a record.

        Args:
            fields: go into the record ``audit:opened``.

        Raises:
            AuditUnavailableError: the database can't be reached.
            AuditSchemaError: the table is missing or of another version.
            AuditSelfTestError: the record does not read back as it was signed.
        """
        head = await self._store.head()
        self._mismatch = await self._compare(head)
        if self._copy.tail_hash:
            self._store.trust(
                self._copy.tail_seq,
                self._copy.tail_hash,
                self._copy.tail_day,
                kept=self.statements.newest,
            )
        else:
            # An old chain is not copied into a new file: the file proves what came after it.
            self._copy.restart_after(0 if head is None else head.seq)
        await self._copy_missing_checkpoints()
        recovered = await self.recorder.recover()
        fields |= {"key_id": self._signer.key_id, "recovered": recovered}
        events = [self._own_event("audit:opened", Outcome.SUCCESS, fields)]
        if self._mismatch:
            self._log.error("audit_mismatch", reason=self._mismatch)
            reason: dict[str, Plain] = {"reason": self._mismatch}
            events.insert(0, self._own_event("audit:mismatch", Outcome.FAILURE, reason))
        records = await self.recorder.append_now(events)
        await self._prove(records[-1])

    def health(self) -> Health:
        """How the log is, as far as is known without asking the database."""
        if self.recorder.trouble:
            reason = f"the audit database can't be reached: {self.recorder.trouble}"
            return Health(HealthState.UNHEALTHY, reason)
        if degraded := self._mismatch or self.recorder.copy_trouble:
            return Health(HealthState.DEGRADED, degraded)
        for trouble in self._troubles.values():
            return Health(HealthState.DEGRADED, trouble)
        return HEALTHY

    def forget_mismatch(self) -> None:
        """A person has accepted the log as it is."""
        self._mismatch = ""
        self._on_change()

    def set_trouble(self, name: str, reason: str) -> None:
        """Say why a part of the log is not as it should be, or "" when it is again."""
        if self._troubles.get(name, "") == reason:
            return
        self._troubles.pop(name, None)
        if reason:
            self._troubles[name] = reason
        self._log.warning("audit_trouble", part=name, reason=reason)
        self._on_change()

    def status(self) -> AuditStatus:
        """The log at the moment."""
        counted = self.recorder.statistics()
        return AuditStatus(
            enabled=True,
            key_id=self._signer.key_id,
            public_key=self._signer.public_bytes.hex(),
            appended=counted.appended,
            waiting=counted.waiting,
            lost=self._lost,
            head=counted.head_seq,
            checkpoint=self.statements.tail_seq or None,
            anchor=0 if self.statements.anchor is None else self.statements.anchor.seq,
            trouble=self.health().reason,
        )

    async def recorded_to(self, source: str) -> int:
        """The highest number chained of a source.

        Raises:
            AuditUnavailableError: the database can't be reached.
        """
        return await self._store.recorded_to(source)

    async def journal_since(self, boot_id: str) -> int:
        """Where to go on reading the journal of a boot."""
        return await self._store.recorded_to(boot_id) + 1

    async def take(self, page: JournalPage) -> None:
        """Take a page of the journal, waiting where the queue is full."""
        if page.lost:
            self._lost += page.lost
            self._log.error("audit_journal_lost", records=page.lost)
            missing: dict[str, Plain] = {"records": page.lost, "boot_id": page.boot_id}
            await self.recorder.put(self._own_event("audit:journal-lost", Outcome.FAILURE, missing))
        for record in page.records:
            if record.name.startswith("operator:") and not self._with_operators:
                continue
            event = event_of(page.boot_id, record)
            if event is not None:
                await self.recorder.put(event)

    async def append(self, event: AuditEvent, *, timeout_s: float) -> int | None:
        """Record an event made by ``event``; see Recorder.append."""
        return await self.recorder.append(event, timeout_s=timeout_s)

    def event(
        self, *, actor: str, action: str, subject: str, outcome: Outcome, fields: dict[str, Plain]
    ) -> AuditEvent:
        """An event of now with a source of this process.

        Raises:
            AuditRefusedError: a part is too long, too deep or malformed.
        """
        self._source_seq += 1
        return make_event(
            AuditEvent(
                time_us=time.time_ns() // 1000,
                actor=actor,
                action=action,
                subject=subject,
                outcome=outcome.value,
                fields=fields,
                boot_id=self._source,
                journal_seq=self._source_seq,
            )
        )

    def witness(self) -> Witness:
        """What the node's own files say at the moment."""
        return Witness(
            checkpoints=dict(self.statements.digests),
            tail_seq=self._copy.tail_seq if self._copy.tail_hash else 0,
            tail_hash=self._copy.tail_hash,
        )

    async def keep_checkpoint(self, *, when_due: bool = True) -> None:
        """Keep the head as a checkpoint, if it is not one yet.

        Raises:
            AuditUnavailableError: the database can't be reached.
        """
        if self.recorder.head_seq <= self.statements.tail_seq:
            return  # it is one
        if (kept := await self._store.keep_head(when_due=when_due)) is not None:
            await self.recorder.keep((kept,))

    async def check(self, *, is_append_due: bool, timeout_s: float) -> str:
        """Verify the newest record, after appending one where due; "" when it is good.

        Raises:
            AuditUnavailableError, AuditQueueFullError: the log takes no records.
        """
        if is_append_due:
            event = self._own_event("audit:checked", Outcome.SUCCESS, {})
            if await self.append(event, timeout_s=timeout_s) is None:
                return "the audit database can't be reached; records are kept in a file"
        head = await self._store.head()
        if head is None:
            return "the audit log is empty"
        problem = await self._problem(head)
        return f"audit record {head.seq}: {problem}" if problem else ""

    async def drain(self, timeout_s: float) -> int:
        """Let the writer empty the queue; returns how many events wait in the file instead."""
        return await self.recorder.drain(timeout_s)

    async def close(self) -> None:
        """Close files and connection; the writer must not run any more."""
        await self.recorder.close()
        if self._copies is not None:
            self._copies.close()
        await self._store.close()

    async def record_own(self, action: str, outcome: Outcome, fields: dict[str, Plain]) -> None:
        """Record something that this process did or found, waiting for room."""
        await self.recorder.put(self._own_event(action, outcome, fields))

    async def record_durably(self, action: str, outcome: Outcome, fields: dict[str, Plain]) -> None:
        """Record something and wait until it is in the chain or in the waiting file."""
        await self.recorder.append_all([self._own_event(action, outcome, fields)])

    async def stored_anchor(self) -> Checkpoint | None:
        """The newest anchor in the database.

        Raises:
            AuditUnavailableError: the database can't be reached.
        """
        return await self._store.anchor()

    def _copy_statements(self, kept: Sequence[Checkpoint]) -> None:
        if self._copies is not None:
            self._copies.put(kept)

    def _distrust(self, reason: str) -> None:
        """The database's head is not the one that was written: tell, once."""
        if self._mismatch:
            return
        self._mismatch = reason
        self._log.error("audit_mismatch", reason=reason)
        event = self._own_event("audit:mismatch", Outcome.FAILURE, {"reason": reason})
        self.recorder.put_nowait(event)
        self._on_change()

    async def _copy_missing_checkpoints(self) -> None:
        """Write to the file what a crash kept from it."""
        while True:
            after = self.statements.tail_seq
            found = await self._store.checkpoints(after=after, limit=_CHECKPOINTS_PAGE)
            if not found:
                return
            await self.recorder.keep(found)
            if self.statements.tail_seq == after:
                return

    def _own_event(self, action: str, outcome: Outcome, fields: dict[str, Plain]) -> AuditEvent:
        return self.event(
            actor=self._actor, action=action, subject=self._actor, outcome=outcome, fields=fields
        )

    async def _compare(self, head: AuditRecord | None) -> str:
        if self.statements.unreadable:
            name = self.statements.path.name
            return f"{self.statements.unreadable} lines of {name} are no statements of this node"
        name = self._copy.path.name
        if not self._copy.is_readable:
            return f"the last line of {name} is no audit record"
        if self._copy.tail_seq == 0:
            return ""
        seq = self._copy.tail_seq
        found = await self._store.page(first=seq, last=seq, limit=1)
        if found and found[0].hash == self._copy.tail_hash:
            return ""
        ends = "is empty" if head is None else f"ends at record {head.seq}"
        what = "holds another" if found else "does not hold it"
        return f"{name} ends with record {seq}; the database {what} and {ends}: cut or restored"

    async def _prove(self, written: AuditRecord) -> None:
        found = await self._store.page(first=written.seq, last=written.seq, limit=1)
        if found != (written,):
            raise AuditSelfTestError(f"audit record {written.seq} does not read back as written")
        start = Start(seq=written.seq - 1, hash=written.prev_hash)
        if bad := ChainVerifier(self.keys, start=start).check((row_of(found[0]),)):
            raise AuditSelfTestError(f"audit record {written.seq}: {bad.reason}")

    async def _problem(self, record: AuditRecord) -> str:
        before = await self._store.before(record.seq)
        anchor = self.statements.anchor
        if before is not None:
            start = Start(seq=before.seq, hash=before.hash)
        elif anchor is not None and anchor.seq < record.seq:
            start = Start(seq=anchor.seq, hash=anchor.hash)
        else:
            start = Start(seq=0, hash=GENESIS)
        bad = ChainVerifier(self.keys, start=start).check((row_of(record),))
        return "" if bad is None else bad.reason
