"""Both sides of one migration: looked at and changed in threads, each call within its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from services.vm.errors import (
    LibvirtLostError,
    LibvirtRefusedError,
    LibvirtTimeoutError,
    LibvirtUnavailableError,
)
from services.vm.migration.journal import Journal, Undertaking
from services.vm.migration.routes import KEEPALIVES
from services.vm.migration.sides import SideDriver
from services.vm.migration.source import SourceDriver
from services.vm.migration.target_storage import TargetDisks
from services.vm.migration.truth import Goal, Presence, Side
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.driver import Driver
from services.vm.operations.errors import OperationUnknownError

T = TypeVar("T")
# Opening a connection to another host, with its TLS, and an answer over a slow line.
TARGET_TIMEOUT_S = 20.0
# An attempt to connect to a host that is gone would hang in libvirt for minutes.
_REACH_TIMEOUT_S = 3.0
SHORT_TIMEOUT_S = 30.0
_SILENT = (
    LibvirtLostError,
    LibvirtUnavailableError,
    LibvirtTimeoutError,
    LibvirtRefusedError,
    OperationUnknownError,
)


class Pair:
    """The two sides, and what is known of the migration so far.

    Args:
        driver: this host's libvirt.
        calls: this service's blocking calls.
        far: those to other hosts, whose lateness is no fault of this one.
        journal: where ``undertaking`` is kept.
        undertaking: what is begun.
        silence_s: the target's libvirt is lost when it is silent for so long.

    Attributes:
        undertaking: as it was last written down, or is about to be.
        is_here: it surely runs on this host, whatever is left to be done.
        has_run: the guest runs on the target, or did.
        is_hand_over_postponed: the database is away; the guest is let go before it is told.
    """

    def __init__(
        self,
        driver: Driver,
        calls: DeadlineCalls,
        far: DeadlineCalls,
        journal: Journal,
        undertaking: Undertaking,
        *,
        silence_s: int,
    ) -> None:
        self.undertaking = undertaking
        self.is_here = False
        self.has_run = False
        self.is_hand_over_postponed = False
        self.sender = SourceDriver(driver)
        self.other = Driver(
            undertaking.route.libvirt_uri,
            keepalive_interval_s=silence_s // KEEPALIVES,
            keepalive_count=KEEPALIVES - 1,
        )
        self.disks = TargetDisks(self.other)
        self._calls = calls
        self._far = far
        self._journal = journal
        self.source = SideDriver(driver)
        self.target = SideDriver(self.other)

    @property
    def uuid(self) -> str:
        """Of the guest."""
        return self.undertaking.uuid

    @property
    def goal(self) -> Goal:
        """What ``truth`` is to know."""
        had = self.undertaking
        is_owned = had.epoch > 0 and not had.is_handed_over
        return Goal(
            was_paused=had.was_paused,
            keeps_source=had.request.keeps_source,
            needs_hand_over=is_owned and not self.is_hand_over_postponed,
            was_let_go=had.was_let_go,
            has_run=self.has_run,
        )

    async def note(self, **changes: object) -> None:
        """Change the undertaking, on disk when this returns.

        Raises:
            OSError: it can't be written down.
        """
        changed = replace(self.undertaking, **changes)  # type: ignore[arg-type] # its own fields
        await asyncio.to_thread(self._journal.write, changed)
        self.undertaking = changed

    async def look(self) -> tuple[Side, Side]:
        """Source and target, both at once; a side that does not answer is unknown."""
        return await asyncio.gather(
            self._look(partial(self.on_source, "look at", partial(self.source.look, self.uuid))),
            self._look_there(),
        )

    async def on_source(self, what: str, work: Callable[[], T]) -> T:
        """Run a call of this host's libvirt; errors as of ``DeadlineCalls.run`` and the call."""
        return await self._calls.run(
            work,
            subject=f"move of {self.uuid}",
            what=f"{what} {self.undertaking.name}",
            timeout_s=SHORT_TIMEOUT_S,
        )

    async def on_target(self, what: str, work: Callable[[], T]) -> T:
        """The same of the target's."""
        return await self._far.run(
            work,
            subject=self.uuid,
            what=f"{what} {self.undertaking.name}",
            timeout_s=TARGET_TIMEOUT_S,
        )

    async def close(self) -> None:
        """Close the connection to the target."""
        await self._far.abandon(self.other.close)

    async def _look_there(self) -> Side:
        if not self.other.is_open() and not await self._is_reached():
            return Side(presence=Presence.UNKNOWN, reason="it can't be reached")
        return await self._look(
            partial(self.on_target, "look at", partial(self.target.look, self.uuid))
        )

    async def _look(self, ask: Callable[[], Awaitable[Side]]) -> Side:
        try:
            return await ask()
        except _SILENT as exc:
            return Side(presence=Presence.UNKNOWN, reason=exc.message)

    async def _is_reached(self) -> bool:
        route = self.undertaking.route
        if route.port is None:
            return True
        try:
            async with asyncio.timeout(_REACH_TIMEOUT_S):
                _, writer = await asyncio.open_connection(route.host, route.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True
