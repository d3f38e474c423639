"""Leases as a part of the VM service. Loads what it needs when a machine is to run, or runs.

The rest of the service asks it before it lets a machine start; see ``Guard`` for what it answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.records import Plain, from_wire, to_wire
from services.vm.leases.model import RENEWALS
from services.vm.model import VmSettings
from supervisor.child.service import CallHandler, Request, ServiceContext

if TYPE_CHECKING:
    from services.vm.leases.guard import Guard
    from services.vm.leases.host import Host
    from services.vm.leases.methods import Methods
    from services.vm.leases.model import Machine
    from services.vm.leases.moves import Moves
    from services.vm.leases.store import LeaseStore
    from services.vm.leases.watch import Watch

# What runs is looked at once the node has come up; that is not the moment for more.
FIRST_LOOK_S = 5.0
# Several things change at a time, such as the starts of an apply.
_SOON_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    guard: Guard
    moves: Moves
    host: Host
    store: LeaseStore | None = None
    watch: Watch | None = None
    methods: Methods | None = None


class Leases:
    """Who may run what on this node.

    Args:
        context: the service's.
        settings: the service's; without a database machines of this host alone are kept apart.
        changed: called when ``reason`` may be another.
        has_active: whether any machine runs here, as far as is known.
    """

    def __init__(
        self,
        context: ServiceContext,
        settings: VmSettings,
        changed: Callable[[], None],
        has_active: Callable[[], bool],
    ) -> None:
        self._context = context
        self._settings = settings
        self._changed = changed
        self._has_active = has_active
        self._loaded: _Loaded | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._last_reason = ""

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" while it is not."""
        if self._loaded is None:
            return ""
        watch = self._loaded.watch
        return (watch.reason if watch else "") or self._loaded.host.reason

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls, by name."""
        if self._settings.postgres is None:
            return {}
        return {"vm.leases": self._call_leases, "vm.assign": self._call_assign}

    def open(self) -> None:
        """Begin to renew leases."""
        if self._settings.postgres is not None:
            self._task = asyncio.create_task(self._run(), name="vm-leases")
            self._task.add_done_callback(self._over)

    async def close(self) -> None:
        """Close what was opened; leases and guests stay."""
        tasks = [task for task in (self._task, *self._ending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            if loaded.store is not None:
                await loaded.store.close()
            await loaded.host.close()

    @asynccontextmanager
    async def starting(
        self, ref: str, *, by: str, takeover: bool = False, xml: str = ""
    ) -> AsyncIterator[None]:
        """See ``Guard.starting``."""
        async with self._load().guard.starting(ref, by=by, takeover=takeover, xml=xml):
            yield

    @asynccontextmanager
    async def adding(
        self, machine: Machine, devices_xml: str, *, has_below: bool = False
    ) -> AsyncIterator[None]:
        """See ``Guard.adding``."""
        async with self._load().guard.adding(machine, devices_xml, has_below=has_below):
            yield

    async def claim(self, uuid: str, name: str) -> int:
        """See ``Moves.claim``."""
        from services.vm.leases.model import Machine

        return await self._load().moves.claim(Machine(uuid=uuid, name=name))

    async def hand_over(self, uuid: str, *, to_node: str, epoch: int) -> None:
        """See ``Moves.hand_over``."""
        await self._load().moves.hand_over(uuid, to_node=to_node, epoch=epoch)

    def hold(self, uuid: str) -> None:
        """See ``Moves.hold``."""
        self._load().moves.hold(uuid)

    def leave(self, uuid: str) -> None:
        """See ``Moves.leave``."""
        self._load().moves.leave(uuid)
        self.look_soon()

    async def refresh(self, machine: Machine) -> None:
        """See ``Guard.refresh``; nothing where no lease was ever taken or looked for."""
        if self._loaded is not None:
            await self._loaded.guard.refresh(machine)

    async def check_resume(self, ref: str) -> None:
        """See ``Guard.check_resume``."""
        await self._load().guard.check_resume(ref)

    async def ended(self, uuid: str) -> None:
        """See ``Guard.ended``; nothing where no lease was ever taken or looked for."""
        if self._loaded is not None:
            await self._loaded.guard.ended(uuid)

    def note_ended(self, uuid: str) -> None:
        """The same, later: for events."""
        if self._loaded is not None:
            if self._loaded.watch is not None and uuid in self._loaded.watch.fenced:
                self.look_soon()
            task = asyncio.create_task(self.ended(uuid), name="vm-lease-ended")
            self._ending.add(task)
            task.add_done_callback(self._ending_over)

    def look_soon(self) -> None:
        """What runs, or what it uses, has changed."""
        self._wake.set()

    async def _run(self) -> None:
        """Look from time to time, for ever."""
        period_s = self._settings.lease_ttl_s / RENEWALS
        await self._pause(min(FIRST_LOOK_S, period_s))
        while True:
            if self._loaded is not None or self._has_active() or self._record_file.exists():
                watch = self._load().watch
                assert watch is not None, "there is a database"
                await watch.look()
                self._tell()
            await self._pause(period_s)

    async def _pause(self, pause_s: float) -> None:
        """Wait, or until something has changed."""
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
            await asyncio.sleep(_SOON_S)
        except TimeoutError:
            pass
        self._wake.clear()

    def _tell(self) -> None:
        if self.reason != self._last_reason:
            self._last_reason = self.reason
            self._changed()

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fail(error)

    def _ending_over(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        self._over(task)

    async def _call_leases(self, _request: Request) -> Plain:
        """Reply: LeaseList."""
        return to_wire(await self._methods().leases())

    async def _call_assign(self, request: Request) -> Plain:
        """Body: AssignRequest. Reply: AssignReply."""
        from services.vm.leases.model import AssignRequest

        body = from_wire(AssignRequest, request.body)
        return to_wire(await self._methods().assign(body, request.caller))

    def _methods(self) -> Methods:
        methods = self._load().methods
        assert methods is not None, "the calls are offered with a database alone"
        return methods

    @property
    def _record_file(self) -> Path:
        return Path(self._settings.state_dir, "vm", "leases.json")

    def _load(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = self._make()
        return self._loaded

    def _make(self) -> _Loaded:
        # Imported here: most nodes boot without a machine, and psycopg and libvirt cost time and
        # memory.
        from services.vm.leases.driver import LeaseDriver
        from services.vm.leases.guard import Guard
        from services.vm.leases.host import Host
        from services.vm.leases.moves import Moves
        from services.vm.leases.remembered import Remembered
        from services.vm.operations.driver import Driver

        context, settings = self._context, self._settings
        node_id = settings.node_id or "this"
        driver = LeaseDriver(Driver(settings.libvirt_uri), node_id)
        host = Host(context, node_id=node_id, driver=driver, changed=self._changed)
        remembered = Remembered(context, self._record_file, node_id)
        store = self._make_store()
        guard = Guard(context, node_id=node_id, store=store, host=host, remembered=remembered)
        moves = Moves(
            context, node_id=node_id, store=store, host=host, guard=guard, remembered=remembered
        )
        if store is None:
            return _Loaded(guard=guard, moves=moves, host=host)
        from services.vm.leases.methods import Methods
        from services.vm.leases.watch import Watch

        watch = Watch(
            context,
            node_id=node_id,
            store=store,
            host=host,
            guard=guard,
            remembered=remembered,
            action=settings.fenced_guests,
        )
        methods = Methods(
            context,
            node_id=node_id,
            store=store,
            host=host,
            guard=guard,
            watch=watch,
            remembered=remembered,
        )
        return _Loaded(
            guard=guard, moves=moves, host=host, store=store, watch=watch, methods=methods
        )

    def _make_store(self) -> LeaseStore | None:
        if self._settings.postgres is None:
            return None
        from services.data.connecting import connect
        from services.data.model import PostgresSettings
        from services.vm.leases.store import LeaseStore

        postgres = from_wire(PostgresSettings, self._settings.postgres)
        return LeaseStore(
            partial(connect, postgres, application="novacron-vm-leases"),
            ttl_s=self._settings.lease_ttl_s,
        )
