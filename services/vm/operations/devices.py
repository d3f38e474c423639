"""Memory, processors and disks resized, devices attached and detached, while the guest runs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from services.vm.leases.model import Machine
from services.vm.leases.part import Leases
from services.vm.operations import device_xml
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.desk import Progress
from services.vm.operations.device_driver import DeviceDriver, Scope
from services.vm.operations.driver import Guest
from services.vm.operations.errors import OperationFailedError, OperationRefusedError
from services.vm.operations.lifecycle import SHORT_TIMEOUT_S, Lifecycle
from services.vm.operations.model import (
    AttachDiskRequest,
    AttachInterfaceRequest,
    DetachRequest,
    Outcome,
    ResizeRequest,
)
from services.vm.operations.storage_model import ImageFormat

if TYPE_CHECKING:
    from services.vm.operations.images import Images

T = TypeVar("T")
_POLL_S = 0.2
# Less than this no guest boots with, and a balloon that takes all kills what it holds.
MEMORY_MIN_BYTES = 16 << 20


class Devices:
    """The operations; errors are those of ``lifecycle`` and what each names."""

    def __init__(
        self,
        driver: DeviceDriver,
        calls: DeadlineCalls,
        life: Lifecycle,
        images: Images,
        leases: Leases,
    ) -> None:
        self._driver = driver
        self._calls = calls
        self._life = life
        self._images = images
        self._leases = leases

    async def resize(self, guest: Guest, request: ResizeRequest, progress: Progress) -> Outcome:
        """Change memory, processors and the size of a disk, all checked before the first.

        Raises:
            OperationRefusedError: more than the guest's maximum, or a disk would shrink.
        """
        guest = await self._life.look(guest.uuid)
        scope = Scope.of(guest)
        xml = await self._run(guest, "look at", partial(self._driver.xml, guest.uuid))
        self._check_limits(guest, request, xml)
        size = await self._disk_size(guest, request, xml)
        told = []
        if request.memory_bytes is not None:
            progress.step("resizing its memory")
            work = partial(self._driver.set_memory, guest.uuid, request.memory_bytes, scope)
            await self._run(guest, "resize the memory of", work)
            told.append(f"{request.memory_bytes >> 20} MiB of memory")
        if request.vcpus is not None:
            progress.step("changing its processors")
            work = partial(self._driver.set_vcpus, guest.uuid, request.vcpus, scope)
            await self._run(guest, "change the processors of", work)
            told.append(f"{request.vcpus} processors")
        if request.disk_bytes is not None:
            if size != request.disk_bytes:
                progress.step("growing its disk")
                work = partial(self._driver.grow_disk, guest.uuid, request.disk, request.disk_bytes)
                await self._run(guest, "grow a disk of", work)
            told.append(f"{request.disk_bytes >> 20} MiB on {request.disk}")
        return Outcome(note=f"{guest.name} has {', '.join(told)}")

    async def attach_disk(
        self, guest: Guest, request: AttachDiskRequest, progress: Progress
    ) -> Outcome:
        """Give it another disk, whose image must be what its name says and be nobody else's."""
        guest = await self._life.look(guest.uuid)
        image = await self._images.inspect(request.file)
        if image.is_in_use and not request.is_readonly:
            raise OperationRefusedError(f"{image.path} is in use by another guest or program")
        xml = await self._run(guest, "look at", partial(self._driver.xml, guest.uuid))
        asked = replace(request, file=image.path)
        made, target = device_xml.disk_xml(asked, ImageFormat(image.format), xml)
        progress.step(f"attaching {target}")
        machine = Machine(uuid=guest.uuid, name=guest.name)
        if guest.state.is_active:
            async with self._leases.adding(machine, made):
                await self._attach(guest, made)
        else:
            await self._attach(guest, made)
        return Outcome(note=f"{guest.name} has {image.path} as {target}", result={"target": target})

    async def attach_interface(
        self, guest: Guest, request: AttachInterfaceRequest, progress: Progress
    ) -> Outcome:
        """Give it another interface."""
        guest = await self._life.look(guest.uuid)
        xml = await self._run(guest, "look at", partial(self._driver.xml, guest.uuid))
        made, mac = device_xml.interface_xml(request, xml)
        progress.step(f"attaching {mac}")
        await self._attach(guest, made)
        where = request.bridge or request.network
        return Outcome(note=f"{guest.name} has {mac} on {where}", result={"mac": mac})

    async def detach(self, guest: Guest, request: DetachRequest, progress: Progress) -> Outcome:
        """Take a disk or interface away: first from the running guest, then from its definition.

        Raises:
            OperationFailedError: the guest does not let go; its definition is as it was.
        """
        guest = await self._life.look(guest.uuid)
        was_there = False
        for scope in Scope.of(guest):
            read = partial(self._driver.xml, guest.uuid, of_definition=scope is Scope.CONFIG)
            found = device_xml.find_device(await self._run(guest, "look at", read), request.device)
            if found is None:
                continue
            was_there = True
            progress.step(f"detaching {found.label}")
            work = partial(self._driver.detach, guest.uuid, found.xml, scope)
            await self._run(guest, "detach a device from", work)
            if scope is Scope.LIVE:
                await self._wait_gone(guest, request)
        await self._leases.refresh(Machine(uuid=guest.uuid, name=guest.name))
        if not was_there:
            return Outcome(note=f"{guest.name} has no device {request.device}", changed=False)
        return Outcome(note=f"{guest.name} has let {request.device} go")

    async def _attach(self, guest: Guest, made: str) -> None:
        work = partial(self._driver.attach, guest.uuid, made, Scope.of(guest))
        await self._run(guest, "attach a device to", work)

    async def _wait_gone(self, guest: Guest, request: DetachRequest) -> None:
        until_s = time.monotonic() + request.within_s
        while True:
            xml = await self._run(guest, "look at", partial(self._driver.xml, guest.uuid))
            if device_xml.find_device(xml, request.device) is None:
                return
            if time.monotonic() >= until_s:
                raise OperationFailedError(
                    f"{guest.name} has been asked to let {request.device} go and has not within "
                    f"{request.within_s:g} s; it may yet. A guest without a system never does: "
                    "stop it first"
                )
            await asyncio.sleep(_POLL_S)

    def _check_limits(self, guest: Guest, request: ResizeRequest, xml: str) -> None:
        memory_max, vcpus_max = device_xml.read_limits(xml)
        wanted = request.memory_bytes
        if wanted is not None and not MEMORY_MIN_BYTES <= wanted <= memory_max:
            raise OperationRefusedError(
                f"{guest.name} can have from {MEMORY_MIN_BYTES >> 20} to {memory_max >> 20} MiB "
                "of memory; its maximum changes with its definition"
            )
        if request.vcpus is not None and not 1 <= request.vcpus <= vcpus_max:
            raise OperationRefusedError(
                f"{guest.name} can have from 1 to {vcpus_max} processors; its maximum changes "
                "with its definition"
            )

    async def _disk_size(self, guest: Guest, request: ResizeRequest, xml: str) -> int:
        if request.disk_bytes is None:
            return 0
        targets = [disk.target for disk in device_xml.read_disks(xml)]
        if request.disk not in targets:
            raise OperationRefusedError(
                f"{guest.name} has no disk {request.disk}; it has {', '.join(targets) or 'none'}"
            )
        if not guest.state.is_active:
            raise OperationRefusedError(f"{guest.name} does not run; start it to grow a disk")
        work = partial(self._driver.disk_size, guest.uuid, request.disk)
        size = await self._run(guest, "look at a disk of", work)
        if request.disk_bytes < size:
            raise OperationRefusedError(
                f"{request.disk} of {guest.name} has {size} bytes and never shrinks: what is "
                "beyond the end would be lost"
            )
        return size

    async def _run(self, guest: Guest, verb: str, work: partial[T]) -> T:
        return await self._calls.run(
            work, subject=guest.uuid, what=f"{verb} {guest.name}", timeout_s=SHORT_TIMEOUT_S
        )
