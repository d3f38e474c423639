"""Both sides of one migration: looked at and changed in threads, each call within its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
        journal: where ``undertaking`` is kept.
        undertaking: what is begun.

    Attributes:
        undertaking: as it was last written down, or is about to be.
        is_here: it surely runs on this host, whatever is left to be done.
        has_run: the guest runs on the target, or did.
        is_hand_over_postponed: the database is away; the guest is let go before it is told.
    """

    def __init__(
        self, driver: Driver, calls: DeadlineCalls, journal: Journal, undertaking: Undertaking
    ) -> None:
        self.undertaking = undertaking
        self.is_here = False
        self.has_run = False
        self.is_hand_over_postponed = False
        self.sender = SourceDriver(driver)
        self.other = Driver(undertaking.route.libvirt_uri)
        self.disks = TargetDisks(self.other)
        self._calls = calls
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
            self._look(self.source, self.here, SHORT_TIMEOUT_S),
            self._look(self.target, self.there, TARGET_TIMEOUT_S),
        )

    async def on_source(self, what: str, work: Callable[[], T]) -> T:
        """Run a call of this host's libvirt; errors as of ``DeadlineCalls.run`` and the call."""
        return await self._run(what, work, self.here, SHORT_TIMEOUT_S)

    async def on_target(self, what: str, work: Callable[[], T]) -> T:
        """The same of the target's."""
        return await self._run(what, work, self.there, TARGET_TIMEOUT_S)

    async def close(self) -> None:
        """Close the connection to the target."""
        await self._calls.abandon(self.other.close)

    # Subjects of calls: what the sending owes must hold up neither looks nor its end, and a target
    # that hangs nothing here.
    @property
    def here(self) -> str:
        """This host's answers about it while it is moved."""
        return f"move of {self.uuid}"

    @property
    def there(self) -> str:
        """The target's answers."""
        return f"{self.uuid} on {self.undertaking.route.node}"

    async def _run(self, what: str, work: Callable[[], T], subject: str, timeout_s: float) -> T:
        text = f"{what} {self.undertaking.name}"
        return await self._calls.run(work, subject=subject, what=text, timeout_s=timeout_s)

    async def _look(self, side: SideDriver, subject: str, timeout_s: float) -> Side:
        try:
            return await self._run("look at", partial(side.look, self.uuid), subject, timeout_s)
        except _SILENT as exc:
            return Side(presence=Presence.UNKNOWN, reason=exc.message)
