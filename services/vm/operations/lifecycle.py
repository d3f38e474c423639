"""Start, stop, reboot, pause, save and the like. Each is idempotent: what is so already, is said.

Pure decisions are in ``escalation``; here libvirt is asked, in threads with deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from functools import partial
from typing import TypeVar, assert_never

from protocol.errors import NovacronError
from services.vm.errors import (
    DomainNotFoundError,
    LibvirtLostError,
    LibvirtRefusedError,
    LibvirtUnavailableError,
)
from services.vm.leases.part import Leases
from services.vm.model import DomainState
from services.vm.operations import escalation
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.desk import Progress
from services.vm.operations.driver import Driver, Guest
from services.vm.operations.errors import (
    NoSpaceError,
    OperationFailedError,
    OperationRefusedError,
    OperationUnknownError,
)
from services.vm.operations.model import (
    AutostartRequest,
    Outcome,
    RestoreRequest,
    SaveRequest,
    StartRequest,
    StopRequest,
)

# A start may read a big saved state, and a probe of QEMU without hardware help takes long.
START_TIMEOUT_S = 180.0
# Memory goes to a disk at its own pace.
SAVE_TIMEOUT_S = 3600.0
SHORT_TIMEOUT_S = 30.0
POLL_S = 0.2
# How long a stop that is under way waits for a libvirt that is gone.
LOST_MAX_S = 30.0
T = TypeVar("T")
_RUNS = (DomainState.RUNNING, DomainState.BLOCKED)


class Lifecycle:
    """The operations; each takes the guest as it was looked up, a request and its progress."""

    def __init__(
        self, driver: Driver, calls: DeadlineCalls, leases: Leases, *, short_s: float
    ) -> None:
        self._driver = driver
        self._calls = calls
        self._leases = leases
        self._short_s = short_s

    async def look(self, ref: str) -> Guest:
        """A guest by name or UUID.

        Raises:
            DomainNotFoundError: there is none.
        """
        return await self._calls.run(
            partial(self._driver.look, ref),
            subject=ref,
            what=f"find {ref}",
            timeout_s=self._short_s,
        )

    async def start(
        self, guest: Guest, request: StartRequest, progress: Progress, *, by: str
    ) -> Outcome:
        """Start it; a paused guest is a started one.

        Raises:
            LeasedElsewhereError, DiskLeasedError: it, or one of its disks, is in use elsewhere.
        """
        guest = await self.look(guest.uuid)
        if guest.state is DomainState.PM_SUSPENDED:
            return await self._wake(guest, progress)
        if guest.state is DomainState.SHUTTING_DOWN:
            raise OperationRefusedError(f"{guest.name} is on its way down; start it when it is off")
        if guest.state.is_active:
            return Outcome(note=f"{guest.name} is {guest.state.value} already", changed=False)
        how = "restoring its saved state" if guest.has_saved and not request.fresh else "starting"
        progress.step(how)
        work = partial(self._driver.start, guest.uuid, paused=request.paused, fresh=request.fresh)
        try:
            async with self._leases.starting(guest.uuid, by=by, takeover=request.takeover):
                await self._run(guest, "start", work, START_TIMEOUT_S)
        except LibvirtRefusedError:
            if (await self.look(guest.uuid)).state.is_active:  # somebody else was faster
                return Outcome(note=f"{guest.name} was started by others", changed=False)
            raise
        return Outcome(note=f"{guest.name} {'is paused' if request.paused else 'runs'}")

    async def stop(self, guest: Guest, request: StopRequest, progress: Progress) -> Outcome:
        """Stop it: by its agent, then by ACPI, then by force, each within its time."""
        state = escalation.Escalation(
            agent_s=request.agent_s, acpi_s=request.acpi_s, force_s=request.force_s
        )
        event: escalation.Event = escalation.Begin()
        lost_s: float | None = None
        while True:
            try:
                if not await self._is_active(guest):
                    event = escalation.Stopped()
                lost_s = None
            except (LibvirtLostError, LibvirtUnavailableError) as exc:
                # A libvirtd that restarts takes a second or two, and the guest its time anyway.
                lost_s = time.monotonic() if lost_s is None else lost_s
                if time.monotonic() - lost_s > LOST_MAX_S:
                    raise OperationUnknownError(exc.message) from exc
                await asyncio.sleep(POLL_S)
                continue
            state, actions = escalation.step(state, event, time.monotonic())
            event = escalation.Tick()
            for action in actions:
                match action:
                    case escalation.Ask(step):
                        progress.step(f"{step.value}: asked to stop")
                        event = await self._ask(guest, step, state)
                    case escalation.Report(how):
                        await self._leases.ended(guest.uuid)
                        was_off = how == "was off already"
                        note = f"{guest.name} {how if was_off else f'is off {how}'}"
                        return Outcome(note=note, changed=not was_off)
                    case escalation.GiveUp(why):
                        raise OperationFailedError(
                            f"{guest.name} runs on: {why}. Give it more time, or let it be forced"
                        )
                    case _:
                        assert_never(action)
            if isinstance(event, escalation.Tick):
                await asyncio.sleep(POLL_S)

    async def reboot(self, guest: Guest, progress: Progress) -> Outcome:
        """Have it restart itself; whether it obeys is the guest's own."""
        self._must_be_active(await self.look(guest.uuid))
        progress.step("asking it to restart")
        await self._run(guest, "reboot", partial(self._driver.reboot, guest.uuid))
        return Outcome(note=f"{guest.name} was asked to restart")

    async def reset(self, guest: Guest, progress: Progress) -> Outcome:
        """Press its reset button."""
        self._must_be_active(await self.look(guest.uuid))
        progress.step("resetting")
        await self._run(guest, "reset", partial(self._driver.reset, guest.uuid))
        return Outcome(note=f"{guest.name} was reset")

    async def pause(self, guest: Guest, progress: Progress) -> Outcome:
        """Stop its processors; its memory stays."""
        guest = self._must_be_active(await self.look(guest.uuid))
        if guest.state is DomainState.PAUSED:
            return Outcome(note=f"{guest.name} is paused already", changed=False)
        progress.step("pausing")
        await self._run(guest, "pause", partial(self._driver.pause, guest.uuid))
        return Outcome(note=f"{guest.name} is paused")

    async def resume(self, guest: Guest, progress: Progress) -> Outcome:
        """Let its processors go on."""
        guest = self._must_be_active(await self.look(guest.uuid))
        if guest.state in _RUNS:
            return Outcome(note=f"{guest.name} runs already", changed=False)
        if guest.state is DomainState.PM_SUSPENDED:
            return await self._wake(guest, progress)
        await self._leases.check_resume(guest.uuid)
        progress.step("resuming")
        await self._run(guest, "resume", partial(self._driver.resume, guest.uuid))
        return Outcome(note=f"{guest.name} runs")

    async def save(self, guest: Guest, request: SaveRequest, progress: Progress) -> Outcome:
        """Write its memory to a file and end it.

        Raises:
            OperationRefusedError: it does not run, or the file is there already.
            NoSpaceError: the disk is full; the guest runs on.
        """
        guest = await self.look(guest.uuid)
        if not guest.state.is_active and guest.has_saved and not request.file:
            return Outcome(note=f"{guest.name} is saved already", changed=False)
        self._must_be_active(guest)
        if request.file:
            is_there = await asyncio.to_thread(os.path.lexists, request.file)
            if is_there:
                raise OperationRefusedError(
                    f"{request.file} is there already; nothing is overwritten"
                )
        progress.step("writing its memory")
        watch = asyncio.create_task(self._watch_job(guest, progress))
        work = partial(self._driver.save, guest.uuid, request.file)
        saving = asyncio.create_task(self._run(guest, "save", work, SAVE_TIMEOUT_S))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            if not await self._end_save(guest, saving):
                raise
            # It was saved before it could be ended, and that is what came of it.
        except LibvirtRefusedError as exc:
            if "space" in exc.message.lower():
                raise NoSpaceError(
                    f"{guest.name} was not saved, there is no space left; it runs on"
                ) from exc
            raise
        finally:
            watch.cancel()
        await self._leases.ended(guest.uuid)
        return Outcome(note=f"{guest.name} is saved{' to ' + request.file if request.file else ''}")

    async def restore(
        self, name: str, request: RestoreRequest, progress: Progress, *, by: str, xml: str
    ) -> Outcome:
        """Bring a guest back from a file, in which ``xml`` is; the file stays.

        Raises:
            OperationRefusedError: a guest of that name runs.
            LeasedElsewhereError, DiskLeasedError: it, or one of its disks, is in use elsewhere.
        """
        try:
            if (await self.look(name)).state.is_active:
                raise OperationRefusedError(
                    f"{name} runs: its disks have gone on since the file was written; stop it first"
                )
        except DomainNotFoundError:
            pass  # it comes back as a guest that is not defined
        progress.step("reading its memory")
        work = partial(self._driver.restore, request.file, paused=request.paused)
        async with self._leases.starting(name, by=by, xml=xml):
            await self._calls.run(
                work, subject=name, what=f"restore {name}", timeout_s=SAVE_TIMEOUT_S
            )
        return Outcome(note=f"{name} {'is paused' if request.paused else 'runs'}")

    async def saved_guest(self, file: str) -> str:
        """The domain XML inside a saved guest's file."""
        return await self._calls.run(
            partial(self._driver.saved_guest, file),
            subject=file,
            what=f"read {file}",
            timeout_s=self._short_s,
        )

    async def autostart(self, guest: Guest, request: AutostartRequest) -> Outcome:
        """Set whether libvirt starts it with the host."""
        work = partial(self._driver.set_autostart, guest.uuid, enabled=request.enabled)
        changed = await self._run(guest, "set autostart of", work)
        already = "" if changed else " already"
        starts = "starts" if request.enabled else "does not start"
        return Outcome(note=f"{guest.name}{already} {starts} with the host", changed=changed)

    async def screenshot(self, guest: Guest) -> tuple[str, bytes]:
        """MIME type and file of what its screen shows."""
        self._must_be_active(guest)
        return await self._run(
            guest, "take a picture of", partial(self._driver.screenshot, guest.uuid)
        )

    async def _wake(self, guest: Guest, progress: Progress) -> Outcome:
        """A guest that put itself to sleep is neither off nor paused."""
        await self._leases.check_resume(guest.uuid)
        progress.step("waking it")
        await self._run(guest, "wake", partial(self._driver.wake, guest.uuid))
        return Outcome(note=f"{guest.name} is awake")

    async def _run(
        self,
        guest: Guest,
        verb: str,
        work: partial[T],
        timeout_s: float = SHORT_TIMEOUT_S,
    ) -> T:
        return await self._calls.run(
            work, subject=guest.uuid, what=f"{verb} {guest.name}", timeout_s=timeout_s
        )

    async def _is_active(self, guest: Guest) -> bool:
        try:
            return (await self.look(guest.uuid)).state.is_active
        except DomainNotFoundError:  # it was transient, and went with its end
            return False

    async def _ask(
        self, guest: Guest, step: escalation.Step, state: escalation.Escalation
    ) -> escalation.Event:
        ways = {
            escalation.Step.AGENT: (self._driver.ask_agent, state.agent_s),
            escalation.Step.ACPI: (self._driver.ask_acpi, state.acpi_s),
            escalation.Step.FORCE: (self._driver.destroy, state.force_s),
        }
        work, step_s = ways[step]
        # A hung agent must not make the whole stop unknown: its step ends by the machine's clock.
        timeout_s = max(step_s, SHORT_TIMEOUT_S)
        try:
            await self._run(guest, f"stop ({step.value})", partial(work, guest.uuid), timeout_s)
        except LibvirtLostError:
            if step is escalation.Step.FORCE:
                raise
            return escalation.Asked()  # nobody refused: it is asked again, and force has to wait
        except (LibvirtRefusedError, DomainNotFoundError) as exc:
            if not await self._is_active(guest):
                return escalation.Stopped()
            return escalation.Refused(exc.message)
        return escalation.Asked()

    async def _end_save(self, guest: Guest, saving: asyncio.Task[None]) -> bool:
        """End a save whose caller does not want it any more; True where it was done already."""
        abort = partial(self._driver.abort_job, guest.uuid)
        until_s = time.monotonic() + SHORT_TIMEOUT_S
        while not saving.done() and time.monotonic() < until_s:
            with contextlib.suppress(NovacronError):  # its job has not begun yet, or is over
                await self._run(guest, "end the save of", abort)
            await asyncio.wait((saving,), timeout=POLL_S)
        return saving.done() and saving.exception() is None

    async def _watch_job(self, guest: Guest, progress: Progress) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                job = await self._run(
                    guest, "ask for the job of", partial(self._driver.job, guest.uuid)
                )
            except NovacronError:
                continue  # it is between jobs; the save itself tells what went wrong
            if job.total:
                progress.at(job.fraction)

    @staticmethod
    def _must_be_active(guest: Guest) -> Guest:
        if not guest.state.is_active:
            raise OperationRefusedError(f"{guest.name} does not run; start it first")
        return guest
