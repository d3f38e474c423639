"""Live migration as an operation: checked, sent, settled, and taken up again after a death."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from protocol.errors import NovacronError
from services.vm.migration.errors import (
    MigrationFailedError,
    NoMigrationError,
)
from services.vm.migration.journal import Journal, Undertaking
from services.vm.migration.matrix import find_conflicts
from services.vm.migration.model import Figures, LimitRequest, Limits, MigrateRequest
from services.vm.migration.outcome import Reporter, live_result, result_of
from services.vm.migration.owner import Owners
from services.vm.migration.pair import Pair
from services.vm.migration.preparing import look_at_both, make_disks, refusal
from services.vm.migration.routes import MigrationSettings, find_route
from services.vm.migration.sending import Sending
from services.vm.migration.settle import clean_target, hand_over, settle
from services.vm.migration.source import completed_figures
from services.vm.migration.truth import Next, Presence
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.desk import Progress
from services.vm.operations.driver import Driver, Guest
from services.vm.operations.errors import OperationFailedError, OperationRefusedError
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
        self._far = DeadlineCalls(lambda: None)
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
        for had in found.undertakings:
            self._open[had.uuid] = had.route.node
            self._owners.hold(had.uuid)

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
        pair = self._pair(had)
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
            raise refusal(guest.name, conflicts)
        self.check_start(guest.uuid)
        undertaking = Undertaking(
            uuid=guest.uuid,
            name=guest.name,
            from_node=self._node_id,
            request=request,
            route=route,
            by=by,
            began_s=time.time(),
        )
        pair = self._pair(undertaking)
        sending = Sending(pair, self._calls, partial(_tell, progress))
        return await self._to_its_end(pair, sending, self._move(pair, sending, progress))

    async def take_up(self, had: Undertaking, progress: Progress) -> Outcome:
        """Bring to its end what an earlier start of this service, or its libvirt, left.

        Errors are those of ``migrate``.
        """
        pair = self._pair(had)
        sending = Sending(pair, self._calls, partial(_tell, progress))
        return await self._to_its_end(pair, sending, self._again(pair, sending, progress))

    def _pair(self, undertaking: Undertaking) -> Pair:
        return Pair(
            self._driver,
            self._calls,
            self._far,
            self._journal,
            undertaking,
            silence_s=self._settings.silence_s,
        )

    async def _to_its_end(
        self,
        pair: Pair,
        sending: Sending,
        work: Coroutine[Any, Any, Outcome],  # Any: asyncio's own
    ) -> Outcome:
        """Run it to an end that leaves the guest on one side, also when it is cancelled."""
        task = asyncio.create_task(work, name=f"migration-{pair.uuid}")
        is_cancelled = False
        try:
            while not task.done():
                try:
                    await asyncio.shield(task)
                except asyncio.CancelledError:
                    if task.done():
                        break
                    is_cancelled = True
                    sending.end("it was cancelled")
                except NovacronError:
                    break
        finally:
            if pair.uuid not in self._open or pair.is_here:
                self._owners.leave(pair.uuid)
            await pair.close()
        if is_cancelled and isinstance(task.exception(), MigrationFailedError):
            raise asyncio.CancelledError
        return task.result()

    async def _again(self, pair: Pair, sending: Sending, progress: Progress) -> Outcome:
        had = pair.undertaking
        if had.epoch and not had.is_handed_over:
            # Where this fails it is the target's already, or the database is away: the hand-over
            # tells.
            with contextlib.suppress(NovacronError):
                epoch = await self._owners.claim(had.uuid, had.name)
                if epoch and epoch != had.epoch:
                    await pair.note(epoch=epoch)
        return await self._finish(pair, sending, progress, None)

    async def _move(self, pair: Pair, sending: Sending, progress: Progress) -> Outcome:
        progress.step("looking at both nodes")
        source, target = await look_at_both(pair)
        had = pair.undertaking
        if sending.end_reason:
            raise MigrationFailedError(f"{had.name} runs on: {sending.end_reason}")
        epoch = await self._owners.claim(had.uuid, had.name)
        self._open[pair.uuid] = had.route.node
        try:
            await pair.note(
                epoch=epoch,
                was_paused=source.is_paused,
                was_defined_there=any(other.uuid == pair.uuid for other in target.namesakes),
            )
        except OSError as exc:
            del self._open[pair.uuid]
            reason = f"what is begun can't be written down: {exc}"
            raise refusal(had.name, (reason,)) from exc
        self._owners.hold(pair.uuid)
        self._report.started(had)
        error: NovacronError | None
        try:
            copied, error = await make_disks(pair, source, target)
        except OSError as exc:
            copied, error = [], OperationFailedError(str(exc))
        if error is None:
            progress.step(f"sending it to {had.route.node}")
            self._sendings[pair.uuid] = sending
            error = await sending.run(copied)
        return await self._finish(pair, sending, progress, error)

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
        pair.is_here = found is Next.STAYS
        if found is Next.MOVED:
            return await self._moved(pair, sending.figures, held_s)
        raise await self._stayed(pair, sending, error, found)

    async def _moved(self, pair: Pair, last: Figures, held_s: float) -> Outcome:
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
        result = result_of(had, last, figures, held_s)
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
