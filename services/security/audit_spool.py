"""Records of privileged calls, from the spool into the chain.

Every process of the node writes what it is asked to do, and by whom, into files of its own before
it does it (supervisor.guard.spool). Here they are chained, each once: its source is
``spool:<spool id>`` and its number. A file is deleted when all of it is in the chain or in the
waiting file and its writer has let go of it. What is torn, damaged or not ours is told, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from protocol.records import Plain
from services.security.audit import TEXT_LENGTH_MAX, AuditEvent, make_event
from services.security.audit_log import AuditLog
from services.security.errors import AuditRefusedError, AuditUnavailableError
from services.security.model import Outcome
from supervisor.guard import spool
from supervisor.guard.spool import SpoolFile, SpoolRecord
from supervisor.posix.inotify import Inotify

SPOOL_DIRECTORY = "spool"
# Looks that nothing wakes: for what inotify did not tell, such as a writer that let go.
PERIOD_S = 5.0
# What is written together is read together.
SETTLE_S = 0.02
# Records that wait for longer than this are a sign that nobody takes them.
STUCK_S = 30.0
PAGE_RECORDS = 500
FOREIGN_MAX = 100
_SOURCE = "spool:"


class SpoolReader:
    """Follows one spool.

    Args:
        directory: of the spool.
        log: takes the records.
        logger: for what is not right.

    Attributes:
        taken: records that were taken so far.
    """

    def __init__(
        self, directory: Path, log: AuditLog, logger: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._directory = directory
        self._log = log
        self._logger = logger
        self._offsets: dict[str, int] = {}
        self._skip_to: dict[str, int] = {}
        self._told: set[str] = set()
        self.taken = 0

    async def run(self) -> None:
        """Take records until cancelled."""
        notify = Inotify()
        directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while True:
                # Armed before the look, so that what is written during it is looked at after it.
                wake = asyncio.Event()
                notify.arm(directory_fd)
                try:
                    await self.take()
                    self._log.set_trouble("spool-read", "")
                except OSError as exc:
                    self._log.set_trouble("spool-read", f"the audit spool can't be read: {exc}")
                await self._wait(notify, wake)
        finally:
            os.close(directory_fd)
            notify.close()

    def waiting_bytes(self) -> int:
        """How much there is that was not taken yet."""
        waiting = 0
        with contextlib.suppress(OSError):  # told by who takes
            for file in spool.list_files(self._directory).files:
                with contextlib.suppress(FileNotFoundError):
                    size = file.path.stat().st_size
                    waiting += max(0, size - self._offsets.get(file.path.name, 0))
        return waiting

    async def take(self) -> int:
        """Chain what is there now; returns how many records.

        A record that was read is in the chain or in the waiting file when this returns.
        """
        found = await asyncio.to_thread(spool.list_files, self._directory)
        await asyncio.to_thread(spool.sweep, self._directory)
        for name, reason in found.foreign.items():
            await self._tell("audit:spool-foreign", name, reason)
        taken = 0
        for file in found.files:
            try:
                taken += await self._take_file(file)
            except FileNotFoundError:
                continue
            except OSError as exc:
                await self._tell("audit:spool-foreign", file.path.name, str(exc))
        known = {file.path.name for file in found.files}
        self._offsets = {name: at for name, at in self._offsets.items() if name in known}
        self._skip_to = {name: at for name, at in self._skip_to.items() if name in known}
        return taken

    async def _take_file(self, file: SpoolFile) -> int:
        name = file.path.name
        source = _SOURCE + file.spool_id
        if name not in self._skip_to:
            self._skip_to[name] = await self._recorded_to(source)
        is_released = await asyncio.to_thread(spool.is_released, file)  # before the reading
        taken = 0
        while True:
            offset = self._offsets.get(name, 0)
            page = await asyncio.to_thread(
                partial(spool.read, file, offset, records_max=PAGE_RECORDS)
            )
            events = [
                event_of_spool(record, file.process)
                for record in page.records
                if record.number > self._skip_to[name]
            ]
            await self._log.recorder.append_all(events)
            taken += len(events)
            self.taken += len(page.records)
            self._offsets[name] = page.offset
            if page.problem or len(page.records) < PAGE_RECORDS:
                break
        if page.problem == spool.DAMAGED:
            aside = await asyncio.to_thread(spool.set_aside, file)
            reason = f"{page.rest_bytes} bytes are damaged; kept as {aside.name}"
            await self._tell("audit:spool-damaged", name, reason)
            return taken
        is_gone = is_released and await asyncio.to_thread(spool.discard, file, page.offset)
        if is_gone and page.problem:
            reason = f"its last {page.rest_bytes} bytes are no whole record"
            await self._tell("audit:spool-torn", name, reason)
        return taken

    async def _recorded_to(self, source: str) -> int:
        try:
            return await self._log.recorded_to(source)
        except AuditUnavailableError:
            return 0  # what is chained already is not chained twice

    async def _tell(self, action: str, name: str, reason: str) -> None:
        if name in self._told or len(self._told) >= FOREIGN_MAX:
            return
        self._told.add(name)
        self._logger.warning(action.replace(":", "_").replace("-", "_"), file=name, reason=reason)
        fields: dict[str, Plain] = {"file": name[:TEXT_LENGTH_MAX], "reason": reason}
        await self._log.record_own(action, Outcome.FAILURE, fields)

    async def _wait(self, notify: Inotify, wake: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(notify.descriptor, wake.set)
        try:
            async with asyncio.timeout(PERIOD_S):
                await wake.wait()
            await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(notify.descriptor)
        notify.take()


class SpoolGauge:
    """Tells when a spool is not emptied, for the health.

    Args:
        reader: of the spool.
        clock: monotonic seconds.
    """

    def __init__(self, reader: SpoolReader, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._clock = clock
        self._taken = 0
        self._since_s = clock()

    def trouble(self) -> str:
        """Why the spool is not emptied; "" while it is."""
        waiting = self._reader.waiting_bytes()
        if not waiting or self._reader.taken != self._taken:
            self._taken, self._since_s = self._reader.taken, self._clock()
        if self._clock() - self._since_s < STUCK_S:
            return ""
        return (
            f"the audit spool does not shrink: {waiting >> 10} KiB wait; privileged calls are "
            f"refused at {spool.DIRECTORY_BYTES_MAX >> 20} MiB"
        )


def event_of_spool(record: SpoolRecord, process: str) -> AuditEvent:
    """The audit event of a spooled record.

    Args:
        record: as its process wrote it.
        process: stem of that process's path.
    """
    event = AuditEvent(
        time_us=record.time_us,
        actor=record.actor[:TEXT_LENGTH_MAX],
        action=action_of(record.action),
        subject=record.subject[:TEXT_LENGTH_MAX],
        outcome=record.outcome[:TEXT_LENGTH_MAX],
        fields={"process": process, **record.fields},
        boot_id=_SOURCE + record.spool_id,
        journal_seq=record.number,
    )
    try:
        return make_event(event)
    except AuditRefusedError as exc:
        # What was called is recorded even where its details can't be.
        return make_event(replace(event, fields={"left_out": exc.message, "process": process}))


def action_of(method: str) -> str:
    """A method's name in the form of an action: ``vm.start`` is ``call:vm-start``."""
    text = "".join(char if char.isascii() and char.isalnum() else "-" for char in method.lower())
    text = text.strip("-")[:64].strip("-")
    return f"call:{text or 'unnamed'}" if text[:1].isalpha() else "call:unnamed"
