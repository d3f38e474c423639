"""Live migration as an operation: checked, sent, settled, and taken up again after a death."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from protocol.errors import NovacronError
from services.vm.errors import LibvirtLostError, LibvirtUnavailableError
from services.vm.migration.checks import SourceFacts, TargetFacts, disks_to_copy, find_refusals
from services.vm.migration.errors import (
    MigrationFailedError,
    MigrationRefusedError,
    NoMigrationError,
    TargetUnreachableError,
)
from services.vm.migration.journal import Journal, Undertaking
from services.vm.migration.matrix import find_conflicts
from services.vm.migration.model import Figures, LimitRequest, Limits, MigrateRequest
from services.vm.migration.needs import NeededDisk
from services.vm.migration.outcome import Reporter, live_result, result_of
from services.vm.migration.owner import Owners
from services.vm.migration.pair import Pair
from services.vm.migration.probes import probes
from services.vm.migration.routes import MigrationSettings, find_route
from services.vm.migration.sending import Sending
from services.vm.migration.settle import clean_target, hand_over, settle
from services.vm.migration.source import SourceDriver, completed_figures
from services.vm.migration.target import TargetDriver
from services.vm.migration.truth import Next, Presence
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.desk import Progress
from services.vm.operations.driver import Driver, Guest
from services.vm.operations.errors import OperationRefusedError, OperationUnknownError
from services.vm.operations.model import Outcome
from supervisor.child.service import ServiceContext

_HAND_OVER_AGAIN_S = 1.0


class Mover:
    """The migrations of a node.

    Args:
        context: for events and measurements.
        driver: this host's libvirt.
        calls: this service's blocking calls.
        settings: how other nodes are reached.
        node_id: of this node; "" where it has none.
        directory: where what is begun is kept; None keeps it in memory alone.
        owners: who owns what.
    """

    def __init__(
        self,
        context: ServiceContext,
        driver: Driver,
        calls: DeadlineCalls,
        *,
        settings: MigrationSettings,
        node_id: str,
        directory: Path | None,
        owners: Owners,
    ) -> None:
        self._driver = driver
        self._calls = calls
        self._settings = settings
        self._node_id = node_id
        self._journal = Journal(directory)
        self._owners = owners
        self._report = Reporter(context)
        self._sendings: dict[str, Sending] = {}
        # Guests of which nobody knows yet where they are, by UUID: the node that may have them.
        self._open: dict[str, str] = {}

    def read_begun(self) -> None:
        """Read what an earlier start of this service has left unfinished."""
        found = self._journal.read()
        for path, why in found.unreadable.items():
            self._report.unreadable(path, why)
        self._open.update({had.uuid: had.route.node for had in found.undertakings})

    @property
    def open_ones(self) -> tuple[str, ...]:
        """UUIDs of guests about whose migration something is left to be done."""
        return tuple(self._open)

    async def read(self, uuid: str) -> Undertaking | None:
        """What is begun with a guest; None where nothing is left to be done."""
        if uuid not in self._open:
            return None
        return await asyncio.to_thread(self._journal.read_one, uuid)

    async def is_answered(self, had: Undertaking) -> bool:
        """Whether both sides answer, so that taking it up leads somewhere."""
        pair = Pair(self._driver, self._calls, self._journal, had)
        try:
            sides = await pair.look()
        finally:
            await pair.close()
        return all(side.presence is not Presence.UNKNOWN for side in sides)

    def is_open(self, uuid: str) -> bool:
        """Something is left to be done about a migration of it."""
        return uuid in self._open

    def check_start(self, uuid: str) -> None:
        """Refuse to start a guest that may run on another node.

        Raises:
            OperationRefusedError: it may.
        """
        if node := self._open.get(uuid):
            raise OperationRefusedError(
                f"it was being moved to {node}, and it is not known yet on which side it is; it "
                "settles as soon as both sides answer"
            )

    async def limit(self, guest: Guest, request: LimitRequest) -> Limits:
        """Change the limits of a migration that is under way.

        Raises:
            NoMigrationError: it is not.
        """
        sending = self._sendings.get(guest.uuid)
        if sending is None:
            raise NoMigrationError(f"{guest.name} is not being moved")
        return await sending.limit(request)

    async def migrate(
        self, guest: Guest, request: MigrateRequest, progress: Progress, *, by: str
    ) -> Outcome:
        """Move a guest.

        Raises:
            MigrationRefusedError, TargetUnreachableError: nothing was done.
            MigrationFailedError: it runs where it did, or the message says what became of it.
            MigrationDisputedError, OperationUnknownError: see there.
        """
        route = find_route(self._settings, request.node)
        conflicts = find_conflicts(request, route)
        if request.node == self._node_id:
            conflicts = (f"{request.node} is this node", *conflicts)
        if conflicts:
            raise MigrationRefusedError(_refusal(guest.name, conflicts))
        if guest.uuid in self._open:
            self.check_start(guest.uuid)
        epoch = await self._owners.claim(guest.uuid, guest.name)
        undertaking = Undertaking(
            uuid=guest.uuid,
            name=guest.name,
            from_node=self._node_id,
            request=request,
            route=route,
            by=by,
            epoch=epoch,
            began_s=time.time(),
        )
        pair = Pair(self._driver, self._calls, self._journal, undertaking)
        sending = Sending(pair, self._calls, partial(_tell, progress))
        try:
            return await self._to_its_end(sending, self._move(pair, sending, progress))
        finally:
            self._owners.leave(guest.uuid)
            await pair.close()

    async def take_up(self, had: Undertaking, progress: Progress) -> Outcome:
        """Bring to its end what an earlier start of this service, or its libvirt, left.

        Errors are those of ``migrate``.
        """
        pair = Pair(self._driver, self._calls, self._journal, had)
        sending = Sending(pair, self._calls, partial(_tell, progress))
        try:
            if had.epoch and not had.is_handed_over:
                await self._owners.claim(had.uuid, had.name)
            return await self._to_its_end(sending, self._finish(pair, sending, progress, None))
        finally:
            self._owners.leave(had.uuid)
            await pair.close()

    async def _to_its_end(
        self,
        sending: Sending,
        work: Coroutine[Any, Any, Outcome],  # Any: asyncio's own
    ) -> Outcome:
        """Run it to an end that leaves the guest on one side, also when it is cancelled."""
        task = asyncio.create_task(work)
        is_cancelled = False
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.done():
                    break
                is_cancelled = True
                sending.end("it was cancelled", is_cancelled=True)
            except NovacronError:
                break
        if is_cancelled and isinstance(task.exception(), MigrationFailedError):
            raise asyncio.CancelledError
        return task.result()

    async def _move(self, pair: Pair, sending: Sending, progress: Progress) -> Outcome:
        progress.step("looking at both nodes")
        source, target = await self._look(pair)
        request, node = pair.undertaking.request, pair.undertaking.route.node
        refusals = find_refusals(request, source, target)
        if refusals:
            raise MigrationRefusedError(_refusal(pair.undertaking.name, refusals))
        if sending.end_reason:
            raise MigrationFailedError(f"{pair.undertaking.name} runs on: {sending.end_reason}")
        copied = disks_to_copy(request, source.needs, target)
        self._open[pair.uuid] = node
        try:
            await pair.note(
                was_paused=source.is_paused,
                was_defined_there=any(n.uuid == pair.uuid for n in target.namesakes),
            )
        except OSError as exc:
            del self._open[pair.uuid]
            raise MigrationRefusedError(
                f"{pair.undertaking.name} stays: what is begun can't be written down: {exc}"
            ) from exc
        self._report.started(pair.undertaking)
        error = await self._make_disks(pair, copied, source, target)
        if error is None:
            progress.step(f"sending it to {node}")
            self._sendings[pair.uuid] = sending
            try:
                error = await sending.run(copied)
            finally:
                del self._sendings[pair.uuid]
        return await self._finish(pair, sending, progress, error)

    async def _look(self, pair: Pair) -> tuple[SourceFacts, TargetFacts]:
        source_driver = SourceDriver(self._driver)
        source = await pair.on_source("look at", partial(source_driver.facts, pair.uuid))
        directories = [disk.directory for disk in source.needs.disks if disk.is_written]

        def look() -> TargetFacts:
            with probes(directories) as made:
                return TargetDriver(pair.other).facts(source, made)

        node = pair.undertaking.route.node
        try:
            return source, await pair.on_target(f"look at {node} for", look)
        except (LibvirtUnavailableError, LibvirtLostError, OperationUnknownError) as exc:
            raise TargetUnreachableError(
                f"{pair.undertaking.name} stays: {node} does not answer: {exc.message}"
            ) from exc

    async def _make_disks(
        self, pair: Pair, copied: list[NeededDisk], source: SourceFacts, target: TargetFacts
    ) -> NovacronError | None:
        for disk in copied:
            if disk.file in target.file_bytes:
                continue
            try:
                size = source.disk_bytes[disk.target]
                work = partial(pair.disks.make, disk, size)
                await pair.on_target(f"make {disk.target} of", work)
            except NovacronError as exc:
                return exc
            # Afterwards, and not before: a file that another has made meanwhile must not be
            # taken for ours, and an empty one that is left after a kill harms nobody.
            await pair.note(made_disks=(*pair.undertaking.made_disks, disk.file))
        return None

    async def _finish(
        self, pair: Pair, sending: Sending, progress: Progress, error: NovacronError | None
    ) -> Outcome:
        """Find out where it is, do what is left, and say what came of it."""
        progress.step("finding out where it runs")
        ended_s = time.monotonic()
        self._sendings.setdefault(pair.uuid, sending)
        try:
            found = await settle(
                pair, self._owners, within_s=self._settings.settle_s, follow=sending.follow
            )
        except (NovacronError, OSError) as exc:
            self._report.failed(pair.undertaking, str(exc))
            raise
        finally:
            self._sendings.pop(pair.uuid, None)
        held_s = time.monotonic() - ended_s
        if found is Next.MOVED:
            return await self._moved(pair, held_s)
        raise await self._stayed(pair, sending, error, found)

    async def _moved(self, pair: Pair, held_s: float) -> Outcome:
        had = pair.undertaking
        figures = await self._completed(pair)
        until_s = time.monotonic() + self._settings.settle_s
        while had.epoch and not pair.undertaking.is_handed_over:
            await hand_over(pair, self._owners)
            if not pair.is_hand_over_postponed or time.monotonic() >= until_s:
                break
            await asyncio.sleep(_HAND_OVER_AGAIN_S)
        is_over = not had.epoch or pair.undertaking.is_handed_over
        if is_over:
            await self._close(had.uuid)
        result = result_of(had, figures, held_s)
        self._report.moved(had, result)
        note = f"{had.name} runs on {had.route.node}"
        if had.was_paused:
            note = f"{had.name} is on {had.route.node}, paused as before"
        if not is_over:
            note += "; that the database does not say so yet is mended when it answers"
        return Outcome(note=note, result=result)

    async def _completed(self, pair: Pair) -> Figures:
        try:
            return await pair.on_target(
                "ask for the figures of", partial(completed_figures, pair.other, pair.uuid)
            )
        except NovacronError:
            return Figures()  # it ended meanwhile, or is asked too late

    async def _stayed(
        self, pair: Pair, sending: Sending, error: NovacronError | None, found: Next
    ) -> NovacronError:
        had = pair.undertaking
        why = sending.end_reason or ("" if error is None else error.message) or "it was ended"
        text = f"{had.name} runs on here: {why}"
        if found is Next.STAYED:
            if left := await clean_target(pair):
                text += f"; what is left on {had.route.node}: {left}"
            await self._close(had.uuid)
        elif found is Next.ENDED:
            text = f"{had.name} ended while it was moved, and runs on no side: {why}"
            await self._close(had.uuid)
        else:
            text += f"; {had.route.node} does not answer, and is cleaned up when it does"
        self._report.failed(had, text)
        return MigrationFailedError(text)

    async def _close(self, uuid: str) -> None:
        await asyncio.to_thread(self._journal.drop, uuid)
        self._open.pop(uuid, None)


def _tell(progress: Progress, figures: Figures) -> None:
    progress.at(figures.fraction)
    progress.tell(live_result(figures))


def _refusal(name: str, reasons: tuple[str, ...]) -> str:
    return f"{name} stays: {'; '.join(reasons)}"
