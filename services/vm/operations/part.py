"""The operations of the VM service: its calls, and what they share. Loads the rest when asked.

A call looks the guest up, begins an operation and answers with its record; with ``wait_s`` it waits
for the end. The operation goes on when the caller leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.records import Plain, from_wire, to_wire
from supervisor.child.service import CallHandler, Request, ServiceContext

if TYPE_CHECKING:
    from services.vm.leases.part import Leases
    from services.vm.migration.mover import Mover
    from services.vm.operations.calls import DeadlineCalls
    from services.vm.operations.desk import Desk
    from services.vm.operations.driver import Driver
    from services.vm.operations.methods import Methods

# Where libvirt's tools and most people keep images.
IMAGE_DIRS = ("/var/lib/libvirt/images", "/var/lib/novacron/images")
METHODS = (
    "vm.start",
    "vm.stop",
    "vm.reboot",
    "vm.reset",
    "vm.pause",
    "vm.resume",
    "vm.save",
    "vm.restore",
    "vm.autostart",
    "vm.screenshot",
    "vm.resize",
    "vm.disk.attach",
    "vm.interface.attach",
    "vm.detach",
    "vm.snapshot.create",
    "vm.snapshot.list",
    "vm.snapshot.revert",
    "vm.snapshot.delete",
    "vm.console.open",
    "vm.console.read",
    "vm.console.write",
    "vm.console.close",
    "image.info",
    "image.create",
    "image.copy",
    "image.seed",
    "vm.migrate",
    "vm.migration.limit",
)


class Operations:
    """Everything that changes a guest or an image on somebody's order.

    Args:
        context: the service's.
        libvirt_uri: where libvirt is.
        call_timeout_s: for short questions to it.
        image_dirs: the directories that guests' files may be in.
        leases: asked before a guest starts or is moved.
        changed: called when ``reason`` may be another.
        migration: wire form of MigrationSettings; None for the usual ones.
        node_id: of this node.
        state_dir: below it unfinished migrations are kept; "" keeps none.
    """

    def __init__(
        self,
        context: ServiceContext,
        *,
        libvirt_uri: str,
        call_timeout_s: float,
        image_dirs: tuple[str, ...],
        leases: Leases,
        changed: Callable[[], None],
        migration: Plain = None,
        node_id: str = "",
        state_dir: str = "",
    ) -> None:
        self._context = context
        self._leases = leases
        self._migration = migration
        self._node_id = node_id
        self._migrations = Path(state_dir, "vm", "migrations") if state_dir else None
        self._uri = libvirt_uri
        self._call_timeout_s = call_timeout_s
        self._image_dirs = image_dirs
        self._changed = changed
        self._loaded: tuple[Desk, Methods] | None = None

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" while it is not."""
        return self._loaded[1].reason if self._loaded else ""

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls, by name."""
        return {
            "vm.operation": self._call_operation,
            "vm.operations": self._call_operations,
            "vm.operation.cancel": self._call_cancel,
            **{method: self._call(method) for method in METHODS},
        }

    def open(self) -> None:
        """Take up migrations that an earlier start of the service has left."""
        if self._migrations is not None and any(self._migrations.glob("*.json")):
            _, methods = self._load()
            methods.take_up_migrations()

    async def close(self) -> None:
        """End what is under way; guests go on as they are."""
        if self._loaded is not None:
            desk, methods = self._loaded
            await desk.close()
            await methods.close()

    def _call(self, method: str) -> CallHandler:
        async def handle(request: Request) -> Plain:
            _, methods = self._load()
            name = method.replace(".", "_")
            work: Callable[[Request], Awaitable[object]] = getattr(methods, name)
            return to_wire(await work(request))

        return handle

    async def _call_operation(self, request: Request) -> Plain:
        """Body: OperationQuery. Reply: OperationRecord."""
        from services.vm.operations.model import OperationQuery

        desk, _ = self._load()
        return to_wire(await desk.ask(from_wire(OperationQuery, request.body)))

    async def _call_operations(self, _request: Request) -> Plain:
        """Reply: OperationList."""
        desk, _ = self._load()
        return to_wire(desk.list())

    async def _call_cancel(self, request: Request) -> Plain:
        """Body: OperationQuery. Reply: OperationRecord, once it has ended or ``wait_s`` passed."""
        from services.vm.operations.model import OperationQuery

        desk, _ = self._load()
        query = from_wire(OperationQuery, request.body)
        desk.cancel(query.id)
        return to_wire(await desk.ask(query))

    def _load(self) -> tuple[Desk, Methods]:
        """All else is imported at the first call: most nodes boot and are told nothing."""
        if self._loaded is None:
            from services.vm.operations.desk import Desk
            from services.vm.operations.methods import Methods

            desk = Desk(self._context)
            methods = Methods(
                self._context,
                desk,
                libvirt_uri=self._uri,
                call_timeout_s=self._call_timeout_s,
                image_dirs=self._image_dirs,
                leases=self._leases,
                changed=self._changed,
                mover=self._make_mover,
            )
            self._loaded = desk, methods
        return self._loaded

    def _make_mover(self, driver: Driver, calls: DeadlineCalls) -> Mover:
        from services.vm.migration.mover import Mover
        from services.vm.migration.routes import MigrationSettings

        return Mover(
            self._context,
            driver,
            calls,
            settings=from_wire(MigrationSettings, self._migration or {}),
            node_id=self._node_id,
            directory=self._migrations,
            owners=self._leases,
        )
