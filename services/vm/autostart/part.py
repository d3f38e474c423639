"""Starts the machines that start with the host, once per boot of it; a part of the VM service.

A machine is started by ``vm.start`` as anybody's is, with all that is checked there. What becomes
of each is written down before the next one follows, so a component that is killed in between goes
on where it was. A machine that does not start is told of, tried again after the others, and stops
none of them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.errors import NovacronError
from protocol.records import Plain, from_wire, to_wire
from services.vm.autostart.model import AutostartOutcome, AutostartRecord, AutostartResult
from supervisor.child.service import CallHandler, Request, ServiceContext

if TYPE_CHECKING:
    from services.vm.autostart.memory import AutostartFile
    from services.vm.documents.records import DocumentInfo
    from services.vm.model import VmSettings
    from services.vm.operations.model import OperationRecord

# Before those that failed are tried again: a bridge, a disk or a lease may come meanwhile.
RETRY_PAUSE_S = 15.0
# Longer than the longest start; past it the machine counts as failed, whatever it does.
START_TIMEOUT_S = 300.0
_ASK_S = 20.0
_MESSAGE_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AutostartSettings:
    """How machines are started.

    Attributes:
        enabled: False starts none, and counts this boot of the host as dealt with.
        parallel: how many at once, of one priority.
        delay_s: between two starts, so that a host is not flooded.
        retry_pause_s: before those that failed are tried again.
        boot_id_file: where the kernel tells its boot id.
    """

    enabled: bool = True
    parallel: int = 2
    delay_s: float = 1.0
    retry_pause_s: float = RETRY_PAUSE_S
    boot_id_file: str = "/proc/sys/kernel/random/boot_id"


def make_autostart(
    context: ServiceContext,
    settings: VmSettings,
    *,
    calls: Callable[[], Mapping[str, CallHandler]],
    changed: Callable[[], None],
) -> Autostart | None:
    """The part; None where there are no documents. Arguments as of ``Autostart``."""
    if settings.postgres is None:
        return None
    return Autostart(
        context,
        AutostartSettings(
            enabled=settings.autostart_enabled,
            parallel=settings.autostart_parallel,
            delay_s=settings.autostart_delay_s,
            retry_pause_s=settings.autostart_retry_s,
            boot_id_file=settings.boot_id_file,
        ),
        directory=Path(settings.state_dir, "vm"),
        node_id=settings.node_id,
        calls=calls,
        changed=changed,
    )


class Autostart:
    """One run after a start of the component; most find that there is nothing to do.

    Args:
        context: for events and the log.
        settings: how.
        directory: where the record is kept.
        node_id: of this node.
        calls: the service's own calls, by name.
        changed: called when ``reason`` may be another.
    """

    def __init__(
        self,
        context: ServiceContext,
        settings: AutostartSettings,
        *,
        directory: Path,
        node_id: str,
        calls: Callable[[], Mapping[str, CallHandler]],
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._settings = settings
        self._directory = directory
        self._node_id = node_id
        self._calls = calls
        self._changed = changed
        self._connected = asyncio.Event()
        self._fault = ""
        self._record: AutostartRecord | None = None
        self._turns = asyncio.Semaphore(settings.parallel)
        self._pacing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """Why machines wait for their start; "" while none does."""
        return self._fault

    @property
    def status(self) -> AutostartRecord | None:
        """What became of the machines; None while nothing is known."""
        return self._record

    def start(self) -> None:
        """Begin; machines are started once ``connected`` was called."""
        self._task = asyncio.create_task(self._run(), name="vm-autostart")
        self._task.add_done_callback(self._ended)

    def connected(self, *, is_connected: bool) -> None:
        """Libvirt can be asked from here on, or no longer."""
        if is_connected:
            self._connected.set()
        else:
            self._connected.clear()

    async def close(self) -> None:
        """Stop; what is being started goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        from services.vm.autostart import order
        from services.vm.autostart.memory import AutostartFile, read_boot_id

        file = AutostartFile(self._directory, node_id=self._node_id)
        try:
            boot_id = await asyncio.to_thread(read_boot_id, Path(self._settings.boot_id_file))
        except OSError as exc:
            self._context.log.warning("boot_id_unknown", reason=str(exc))
            return
        remembered = await self._remembered(file)
        decision = order.decide(remembered, boot_id)
        if not self._settings.enabled and not isinstance(decision, order.Nothing):
            decision = order.Remember()
        match decision:
            case order.Nothing():
                self._record = remembered
            case order.Remember():
                await self._keep(file, AutostartRecord(boot_id=boot_id, is_over=True))
            case order.Begin():
                await self._connected.wait()
                machines = order.machines_to_start(await self._documents())
                record = AutostartRecord(boot_id=boot_id, is_over=not machines, machines=machines)
                await self._keep(file, record)
                await self._start_all(file)
            case order.GoOn(record):
                self._record = record
                await self._connected.wait()
                await self._start_all(file)

    async def _remembered(self, file: AutostartFile) -> AutostartRecord | None:
        try:
            return await asyncio.to_thread(file.read)
        except (OSError, ValueError) as exc:
            # Starting what an operator stopped is worse than leaving a machine to be started.
            self._context.log.warning("autostart_forgotten", reason=str(exc))
            self._context.emit("vm:autostart-forgotten", reason=str(exc)[:_MESSAGE_MAX])
            return None

    async def _documents(self) -> tuple[DocumentInfo, ...]:
        """All documents; waits for them where neither database nor file can tell any."""
        from services.vm.documents.records import DocumentList

        while True:
            try:
                found = from_wire(DocumentList, await self._ask("vm.documents", None))
            except NovacronError as exc:
                self._say_fault(f"machines wait for their start: {exc.message}")
            else:
                if found.documents or not found.is_stale:
                    self._say_fault("")
                    return found.documents
                self._say_fault(
                    "machines wait for their start: the database is away, and no document is known"
                )
            await asyncio.sleep(self._settings.retry_pause_s)

    async def _start_all(self, file: AutostartFile) -> None:
        from services.vm.autostart import order

        assert self._record is not None, "it was kept before"
        while groups := order.levels(self._record.machines):
            for group in groups:
                await asyncio.gather(*(self._one(file, machine) for machine in group))
            if order.levels(self._record.machines):
                await asyncio.sleep(self._settings.retry_pause_s)
        if self._record.is_over:
            return
        await self._keep(file, order.settled(self._record))
        counts: dict[str, Plain] = {
            outcome.value: sum(item.outcome is outcome for item in self._record.machines)
            for outcome in AutostartOutcome
            if outcome not in (AutostartOutcome.WAITING, AutostartOutcome.STARTING)
        }
        self._context.emit("vm:autostart-over", **counts)

    async def _one(self, file: AutostartFile, machine: AutostartResult) -> None:
        async with self._turns:
            async with self._pacing:  # the pause lies between two starts, not after the last one
                if self._settings.delay_s and self._has_tried():
                    await asyncio.sleep(self._settings.delay_s)
            await self._connected.wait()
            began_s = time.monotonic()
            # Counted ahead: a start that ends the component is not tried for ever.
            tried = replace(
                machine,
                outcome=AutostartOutcome.STARTING,
                attempts=machine.attempts + 1,
                time_s=time.time(),
            )
            await self._note(file, tried)
            result = await self._try(machine, tried)
        fields: dict[str, Plain] = {
            "vm": result.name,
            "priority": result.priority,
            "outcome": result.outcome.value,
            "reason": result.message,
            "attempt": result.attempts,
            "duration_s": round(time.monotonic() - began_s, 3),
        }
        is_bad = result.outcome is AutostartOutcome.FAILED
        (self._context.log.warning if is_bad else self._context.log.info)("autostart", **fields)
        self._context.emit("vm:autostart", **fields)
        await self._note(file, result)

    async def _note(self, file: AutostartFile, result: AutostartResult) -> None:
        async with self._writing:
            assert self._record is not None, "it was kept before"
            await self._keep(file, self._record.with_result(result))

    def _has_tried(self) -> bool:
        return self._record is not None and any(item.attempts for item in self._record.machines)

    async def _try(self, machine: AutostartResult, tried: AutostartResult) -> AutostartResult:
        try:
            why = await self._why_not(machine)
            if why:
                return replace(tried, outcome=AutostartOutcome.SKIPPED, message=why)
            record = await self._start(machine.name)
        except NovacronError as exc:
            message = exc.message[:_MESSAGE_MAX]
            return replace(tried, outcome=AutostartOutcome.FAILED, message=message)
        if record is None:
            message = f"it did not start within {START_TIMEOUT_S:g} s"
            return replace(tried, outcome=AutostartOutcome.FAILED, message=message)
        if record.state.value != "done":
            message = (record.error or record.note)[:_MESSAGE_MAX]
            return replace(tried, outcome=AutostartOutcome.FAILED, message=message)
        outcome = AutostartOutcome.STARTED if record.changed else AutostartOutcome.RUNNING
        return replace(tried, outcome=outcome, message="")

    async def _why_not(self, machine: AutostartResult) -> str:
        """Why it is not to be started here; "" when it is."""
        from services.vm.documents.records import PlanReply
        from services.vm.documents.steps import StepKind
        from services.vm.operations.model import OperationList

        if machine.attempts:
            found = from_wire(OperationList, await self._ask("vm.operations", None))
            for record in found.operations:
                is_theirs = record.caller != self._context.path
                is_newer = record.began_s > machine.time_s
                if record.subject == machine.name and is_theirs and is_newer:
                    return f"{record.caller} has given it an order since: {record.method}"
        plan = from_wire(PlanReply, await self._ask("vm.plan", {"names": [machine.name]}))
        for step in plan.plan.steps:
            if step.name == machine.name and step.kind is StepKind.ELSEWHERE:
                return step.reason
        return ""

    async def _start(self, name: str) -> OperationRecord | None:
        """Start a machine and wait for the end; None where that takes too long."""
        from services.vm.operations.model import OperationQuery, OperationRecord

        body: Plain = {"domain": name, "wait_s": _ASK_S}
        record = from_wire(OperationRecord, await self._ask("vm.start", body))
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not record.state.is_final:
            if time.monotonic() > deadline_s:
                return None
            query = to_wire(OperationQuery(id=record.id, wait_s=_ASK_S))
            record = from_wire(OperationRecord, await self._ask("vm.operation", query))
        return record

    async def _ask(self, method: str, body: Plain) -> Plain:
        handler = self._calls()[method]
        answer = handler(Request(self._context.path, method, body, math.inf))
        return await answer if asyncio.iscoroutine(answer) else answer

    async def _keep(self, file: AutostartFile, record: AutostartRecord) -> None:
        """Remember, whatever it takes: without it a stopped machine would be started again."""
        while True:
            try:
                await asyncio.to_thread(file.write, record)
            except OSError as exc:
                self._say_fault(f"machines wait for their start: {exc}")
                await asyncio.sleep(self._settings.retry_pause_s)
            else:
                self._record = record
                self._say_fault("")
                return

    def _say_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            if fault:
                self._context.log.warning("autostart_waits", reason=fault)
            self._changed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fail(error)
