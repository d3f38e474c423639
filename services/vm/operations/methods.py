"""The calls of operations, one method each: parse, look the guest up, begin, answer."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from protocol.records import from_wire
from services.vm.errors import LibvirtRefusedError
from services.vm.leases.part import Leases
from services.vm.migration.model import LimitRequest, Limits, MigrateRequest
from services.vm.migration.part import Migrations
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.consoles import Consoles
from services.vm.operations.desk import Desk, Progress
from services.vm.operations.device_driver import DeviceDriver
from services.vm.operations.devices import Devices
from services.vm.operations.driver import Driver, Guest
from services.vm.operations.images import Images
from services.vm.operations.lifecycle import Lifecycle
from services.vm.operations.model import (
    AttachDiskRequest,
    AttachInterfaceRequest,
    AutostartRequest,
    ConsoleOutput,
    ConsoleTurn,
    DetachRequest,
    DomainRequest,
    OperationQuery,
    OperationRecord,
    Outcome,
    Picture,
    ResizeRequest,
    RestoreRequest,
    SaveRequest,
    StartRequest,
    StopRequest,
)
from services.vm.operations.places import confine
from services.vm.operations.snapshots import Snapshots
from services.vm.operations.storage_model import (
    ImageCopyRequest,
    ImageCreateRequest,
    ImageRecord,
    ImageRequest,
    SeedRequest,
    SnapshotCreateRequest,
    SnapshotList,
    SnapshotRequest,
)
from supervisor.child.service import Request, ServiceContext

if TYPE_CHECKING:
    from services.vm.migration.mover import Mover

D = TypeVar("D", bound=DomainRequest)


B = TypeVar("B", ImageCreateRequest, ImageCopyRequest, SeedRequest)


class Methods:
    """See ``part.Operations`` for the arguments; each method's name is its call's, dots apart."""

    def __init__(
        self,
        context: ServiceContext,
        desk: Desk,
        *,
        libvirt_uri: str,
        call_timeout_s: float,
        image_dirs: tuple[str, ...],
        leases: Leases,
        changed: Callable[[], None],
        mover: Callable[[Driver, DeadlineCalls], Mover],
    ) -> None:
        self._context = context
        self._desk = desk
        self._driver = Driver(libvirt_uri)
        self._deadlines = DeadlineCalls(changed)
        self._image_dirs = image_dirs
        self._images = Images(image_dirs)
        self._life = Lifecycle(self._driver, self._deadlines, leases, short_s=call_timeout_s)
        self._devices = Devices(
            DeviceDriver(self._driver), self._deadlines, self._life, self._images, leases
        )
        self._consoles = Consoles(self._driver, self._deadlines, timeout_s=call_timeout_s)
        self._snapshots = Snapshots(self._driver, self._deadlines, self._life, image_dirs, leases)
        self._migrations = Migrations(desk, mover(self._driver, self._deadlines))

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" while it is not."""
        return self._deadlines.reason

    async def close(self) -> None:
        """Close consoles and connection, as far as they let themselves be closed."""
        await self._migrations.close()
        await self._consoles.close_all()
        await self._deadlines.abandon(self._driver.close)

    async def vm_start(self, request: Request) -> OperationRecord:
        """Body: StartRequest."""

        async def work(guest: Guest, body: StartRequest, progress: Progress) -> Outcome:
            self._migrations.check_start(guest)
            return await self._life.start(guest, body, progress, by=request.caller)

        return await self._on_guest(request, from_wire(StartRequest, request.body), work)

    async def vm_stop(self, request: Request) -> OperationRecord:
        """Body: StopRequest."""
        return await self._on_guest(request, from_wire(StopRequest, request.body), self._life.stop)

    async def vm_reboot(self, request: Request) -> OperationRecord:
        """Body: DomainRequest."""
        return await self._plain(request, self._life.reboot)

    async def vm_reset(self, request: Request) -> OperationRecord:
        """Body: DomainRequest."""
        return await self._plain(request, self._life.reset)

    async def vm_pause(self, request: Request) -> OperationRecord:
        """Body: DomainRequest."""
        return await self._plain(request, self._life.pause)

    async def vm_resume(self, request: Request) -> OperationRecord:
        """Body: DomainRequest."""
        return await self._plain(request, self._life.resume)

    async def vm_save(self, request: Request) -> OperationRecord:
        """Body: SaveRequest."""
        body = from_wire(SaveRequest, request.body)
        if body.file:
            body = replace(body, file=await self._confine(body.file))
        return await self._on_guest(request, body, self._life.save)

    async def vm_restore(self, request: Request) -> OperationRecord:
        """Body: RestoreRequest."""
        body = from_wire(RestoreRequest, request.body)
        body = replace(body, file=await self._confine(body.file))
        saved = await self._life.saved_guest(body.file)
        name, uuid = _identity(saved)

        async def work(progress: Progress) -> Outcome:
            return await self._life.restore(name, body, progress, by=request.caller, xml=saved)

        return await self._begin(request, work, key=uuid, subject=name, wait_s=body.wait_s)

    async def vm_autostart(self, request: Request) -> OperationRecord:
        """Body: AutostartRequest."""

        async def work(guest: Guest, body: AutostartRequest, _progress: Progress) -> Outcome:
            return await self._life.autostart(guest, body)

        return await self._on_guest(request, from_wire(AutostartRequest, request.body), work)

    async def vm_migrate(self, request: Request) -> OperationRecord:
        """Body: MigrateRequest."""
        body = from_wire(MigrateRequest, request.body)
        work = partial(self._migrations.migrate, by=request.caller)
        return await self._on_guest(request, body, work)

    async def vm_migration_limit(self, request: Request) -> Limits:
        """Body: LimitRequest. Reply: Limits."""
        body = from_wire(LimitRequest, request.body)
        return await self._migrations.limit(await self._life.look(body.domain), body)

    def take_up_migrations(self) -> None:
        """Bring to their ends those that an earlier start of the service has left."""
        self._migrations.take_up()

    async def vm_screenshot(self, request: Request) -> Picture:
        """Body: DomainRequest. Reply: Picture.

        Raises:
            OperationRefusedError: the guest does not run, or the picture fits into no message.
        """
        from services.vm.operations.picture import as_png

        body = from_wire(DomainRequest, request.body)
        mime, data = await self._life.screenshot(await self._life.look(body.domain))
        return Picture(data=await asyncio.to_thread(as_png, mime, data))

    async def vm_resize(self, request: Request) -> OperationRecord:
        """Body: ResizeRequest."""
        body = from_wire(ResizeRequest, request.body)
        return await self._on_guest(request, body, self._devices.resize)

    async def vm_disk_attach(self, request: Request) -> OperationRecord:
        """Body: AttachDiskRequest."""
        body = from_wire(AttachDiskRequest, request.body)
        return await self._on_guest(request, body, self._devices.attach_disk)

    async def vm_interface_attach(self, request: Request) -> OperationRecord:
        """Body: AttachInterfaceRequest."""
        body = from_wire(AttachInterfaceRequest, request.body)
        return await self._on_guest(request, body, self._devices.attach_interface)

    async def vm_detach(self, request: Request) -> OperationRecord:
        """Body: DetachRequest."""
        body = from_wire(DetachRequest, request.body)
        return await self._on_guest(request, body, self._devices.detach)

    async def vm_snapshot_list(self, request: Request) -> SnapshotList:
        """Body: DomainRequest."""
        body = from_wire(DomainRequest, request.body)
        return await self._snapshots.known(await self._life.look(body.domain))

    async def vm_snapshot_create(self, request: Request) -> OperationRecord:
        """Body: SnapshotCreateRequest."""
        body = from_wire(SnapshotCreateRequest, request.body)
        return await self._on_guest(request, body, self._snapshots.create)

    async def vm_snapshot_revert(self, request: Request) -> OperationRecord:
        """Body: SnapshotRequest."""
        body = from_wire(SnapshotRequest, request.body)
        work = partial(self._snapshots.revert, by=request.caller)
        return await self._on_guest(request, body, work)

    async def vm_snapshot_delete(self, request: Request) -> OperationRecord:
        """Body: SnapshotRequest."""
        body = from_wire(SnapshotRequest, request.body)
        return await self._on_guest(request, body, self._snapshots.delete)

    async def vm_console_open(self, request: Request) -> ConsoleOutput:
        """Body: DomainRequest."""
        body = from_wire(DomainRequest, request.body)
        guest = await self._life.look(body.domain)
        opened = await self._consoles.open(guest, request.caller)
        self._context.emit(
            "vm:console-opened", vm=guest.name, uuid=guest.uuid, caller=request.caller
        )
        return opened

    async def vm_console_read(self, request: Request) -> ConsoleOutput:
        """Body: ConsoleTurn."""
        return await self._consoles.read(from_wire(ConsoleTurn, request.body), request.caller)

    async def vm_console_write(self, request: Request) -> ConsoleOutput:
        """Body: ConsoleTurn."""
        return await self._consoles.write(from_wire(ConsoleTurn, request.body), request.caller)

    async def vm_console_close(self, request: Request) -> ConsoleOutput:
        """Body: ConsoleTurn."""
        return await self._consoles.close(from_wire(ConsoleTurn, request.body), request.caller)

    async def image_info(self, request: Request) -> ImageRecord:
        """Body: ImageRequest."""
        return await self._images.info(from_wire(ImageRequest, request.body).path)

    async def image_create(self, request: Request) -> OperationRecord:
        """Body: ImageCreateRequest."""
        body = from_wire(ImageCreateRequest, request.body)
        return await self._on_image(request, body, body.path, self._images.create)

    async def image_copy(self, request: Request) -> OperationRecord:
        """Body: ImageCopyRequest."""
        body = from_wire(ImageCopyRequest, request.body)
        return await self._on_image(request, body, body.target, self._images.copy)

    async def image_seed(self, request: Request) -> OperationRecord:
        """Body: SeedRequest."""
        body = from_wire(SeedRequest, request.body)
        return await self._on_image(request, body, body.path, self._images.seed)

    async def _on_image(
        self,
        request: Request,
        body: B,
        path: str,
        work: Callable[[B, Progress], Awaitable[Outcome]],
    ) -> OperationRecord:
        place = await self._confine(path)

        async def bound(progress: Progress) -> Outcome:
            return await work(body, progress)

        return await self._begin(request, bound, key=place, subject=place, wait_s=body.wait_s)

    async def _plain(
        self, request: Request, work: Callable[[Guest, Progress], Awaitable[Outcome]]
    ) -> OperationRecord:
        async def on_guest(guest: Guest, _body: DomainRequest, progress: Progress) -> Outcome:
            return await work(guest, progress)

        return await self._on_guest(request, from_wire(DomainRequest, request.body), on_guest)

    async def _on_guest(
        self,
        request: Request,
        body: D,
        work: Callable[[Guest, D, Progress], Awaitable[Outcome]],
    ) -> OperationRecord:
        guest = await self._life.look(body.domain)

        async def bound(progress: Progress) -> Outcome:
            return await work(guest, body, progress)

        return await self._begin(
            request, bound, key=guest.uuid, subject=guest.name, wait_s=body.wait_s
        )

    async def _begin(
        self,
        request: Request,
        work: Callable[[Progress], Awaitable[Outcome]],
        *,
        key: str,
        subject: str,
        wait_s: float,
    ) -> OperationRecord:
        """Begin an operation and wait for it; ``key`` is the guest's UUID or a path."""
        number = self._desk.begin(
            request.method,
            key,
            work,
            subject=subject,
            uuid="" if "/" in key else key,
            caller=request.caller,
        )
        return await self._desk.ask(OperationQuery(id=number, wait_s=wait_s))

    async def _confine(self, path: str) -> str:
        return str(await asyncio.to_thread(confine, path, self._image_dirs))


def _identity(domain_xml: str) -> tuple[str, str]:
    root = ET.fromstring(domain_xml)  # noqa: S314 - libvirt made it out of a file it believes in
    name, uuid = root.findtext("name"), root.findtext("uuid")
    if not name or not uuid:
        raise LibvirtRefusedError("the saved guest has no name")
    return name, uuid
