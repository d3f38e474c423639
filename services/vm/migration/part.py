"""Migrations as operations of the VM service, and those that are taken up again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

from protocol.errors import NovacronError
from services.vm.migration.journal import Undertaking
from services.vm.migration.model import LimitRequest, Limits, MigrateRequest
from services.vm.migration.mover import Mover
from services.vm.operations.desk import Desk, Progress
from services.vm.operations.driver import Guest
from services.vm.operations.errors import OperationsFullError
from services.vm.operations.model import WAIT_MAX_S, OperationQuery, Outcome

METHOD = "vm.migrate"
# Where the other side does not answer, it is asked again so often, quietly.
AGAIN_S = 5.0


class Migrations:
    """See the module.

    Args:
        desk: of the service's operations.
        mover: does the work.
    """

    def __init__(self, desk: Desk, mover: Mover) -> None:
        self._desk = desk
        self._mover = mover
        self._tasks: set[asyncio.Task[None]] = set()

    async def migrate(
        self, guest: Guest, request: MigrateRequest, progress: Progress, *, by: str
    ) -> Outcome:
        """Move a guest; errors as of ``Mover.migrate``."""
        try:
            return await self._mover.migrate(guest, request, progress, by=by)
        finally:
            if self._mover.is_open(guest.uuid):
                self._spawn(self._look_after(guest.uuid))

    async def limit(self, guest: Guest, request: LimitRequest) -> Limits:
        """Change the limits of one; errors as of ``Mover.limit``."""
        return await self._mover.limit(guest, request)

    def check_start(self, guest: Guest) -> None:
        """Refuse to start a guest that may run on another node.

        Raises:
            OperationRefusedError: it may.
        """
        if not guest.state.is_active:
            self._mover.check_start(guest.uuid)

    def take_up(self) -> None:
        """Begin with all that an earlier start of the service has left."""
        self._mover.read_begun()
        for uuid in self._mover.open_ones:
            self._spawn(self._look_after(uuid, is_first=True))

    async def close(self) -> None:
        """Leave the rest to the next start of the service."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_after(self, uuid: str, *, is_first: bool = False) -> None:
        """Take one up again and again until nothing is left to be done about it."""
        while True:
            if not is_first:
                await asyncio.sleep(AGAIN_S)
            had = await self._mover.read(uuid)
            if had is None:
                return
            if is_first or await self._mover.is_answered(had):
                await self._take_up(had)
            is_first = False

    async def _take_up(self, had: Undertaking) -> None:
        """As an operation, so that orders about the guest wait for it; returns at its end."""
        with contextlib.suppress(OperationsFullError, NovacronError):
            number = self._desk.begin(
                METHOD,
                had.uuid,
                partial(self._mover.take_up, had),
                subject=had.name,
                uuid=had.uuid,
                caller=had.by,
            )
            while not (
                await self._desk.ask(OperationQuery(id=number, wait_s=WAIT_MAX_S))
            ).state.is_final:
                pass

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:  # Any: asyncio's own
        task = asyncio.create_task(work, name="migration-left-over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
