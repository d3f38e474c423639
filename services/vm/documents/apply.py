"""Carries a plan's steps out, one after the other, each in a thread and within its deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from protocol.errors import NovacronError
from services.threads import start_thread
from services.vm.documents.definitions import STOP_TIMEOUT_S, Definitions, Target
from services.vm.documents.devices import DiskFormat
from services.vm.documents.errors import DocumentError
from services.vm.documents.model import VmDocument
from services.vm.documents.records import Outcome, StepResult, StoredDocument
from services.vm.documents.seeds import check_seed, drop_seeds, seed_path
from services.vm.documents.steps import Observed, Step, StepKind
from services.vm.leases.part import Leases
from services.vm.operations.calls import DeadlineCalls
from services.vm.operations.driver import Driver
from services.vm.operations.errors import OperationUnknownError
from services.vm.operations.images import Images
from services.vm.operations.places import confine
from supervisor.child.service import ServiceContext

# libvirt starts QEMU, and probes it first where it is new to it: 48 s were seen on a busy machine.
START_TIMEOUT_S = 120.0
# Reading a few hundred definitions while libvirt starts guests.
OBSERVE_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 1.0
_STARTS = frozenset((StepKind.START, StepKind.RESTART))
# After these no other image than the document's is in use; older ones may hold passwords.
_ENDS_SEEDS = _STARTS | {StepKind.UNDEFINE}


class Applier:
    """Reads domains and takes steps.

    Args:
        context: for events and the log.
        libvirt_uri: where libvirt is.
        call_timeout_s: for steps that libvirt answers at once.
        image_dirs: the directories that guests' disks may be in.
        leases: asked before a guest starts.
        changed: called when ``reason`` may be another.
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
    ) -> None:
        self._context = context
        self._definitions = Definitions(Driver(libvirt_uri))
        self._calls = DeadlineCalls(changed)
        self._images = Images(image_dirs)
        self._image_dirs = image_dirs
        self._leases = leases
        start = START_TIMEOUT_S + call_timeout_s
        self._timeouts_s = {
            StepKind.START: start,
            StepKind.STOP: STOP_TIMEOUT_S + call_timeout_s,
            StepKind.RESTART: STOP_TIMEOUT_S + start,
            # The first definition on a host has libvirt probe its QEMU.
            StepKind.DEFINE: start,
        }
        self._call_timeout_s = call_timeout_s

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" when all answers came."""
        return self._calls.reason

    def seed(self, document: VmDocument) -> str:
        """Where the image for its cloud-init is; "" for none."""
        return seed_path(document, Path(self._image_dirs[0]))

    async def observe(self) -> dict[str, Observed]:
        """All domains, by name.

        Raises:
            OperationUnknownError: no answer in time.
            LibvirtUnavailableError, LibvirtLostError, LibvirtRefusedError: as for every request.
        """
        return await self._calls.run(
            self._definitions.observe,
            subject="definitions",
            what="read all definitions",
            timeout_s=OBSERVE_TIMEOUT_S,
        )

    async def check(
        self, documents: Iterable[VmDocument], observed: Mapping[str, Observed]
    ) -> None:
        """Refuse what cloud-init would not take, and disks that are not what they should be.

        The hypervisor may read and write more than the person who asks, so files lie in the
        directories for them, with all that they are overlays of. What a domain has may stay.

        Raises:
            DocumentError: a text is of no use, or a disk is elsewhere.
        """
        for document in documents:
            check_seed(document)
            domain = observed.get(document.name)
            adopted = None if domain is None else domain.adopted
            had = () if adopted is None else adopted.document.disks
            known = {disk.path for disk in had}
            for index, disk in enumerate(document.disks):
                if not disk.path or disk.path in known:
                    continue
                await self._check_disk(document, index)

    async def _check_disk(self, document: VmDocument, index: int) -> None:
        """A file that is not there yet has no content to be wrong; libvirt starts no guest on it.

        Raises:
            DocumentError: it is elsewhere, not of its format, or an overlay of something elsewhere.
        """
        disk = document.disks[index]
        where = f"{document.name}: disks[{index}]"
        try:
            place = confine(disk.path, self._image_dirs)
            if not await asyncio.to_thread(place.exists):
                return
            record = await self._images.inspect(disk.path)
        except NovacronError as exc:
            raise DocumentError(f"{where}.path: {exc.message}") from exc
        if record.format != disk.format.value:
            raise DocumentError(
                f"{where}.format is {disk.format.value}; {disk.path} is {record.format}"
            )

    async def take(
        self, steps: Sequence[Step], documents: Iterable[StoredDocument], *, by: str
    ) -> tuple[StepResult, ...]:
        """Take the steps in order; what fails keeps later steps of its machine from being taken.

        Args:
            steps: of a plan.
            documents: of this node.
            by: who ordered it.
        """
        targets = {
            item.document.name: Target(
                document=item.document, epoch=item.epoch, seed=self.seed(item.document)
            )
            for item in documents
        }
        results: list[StepResult] = []
        failed: set[str] = set()
        for step in steps:
            if step.name in failed:
                message = "a step before it was not done"
                results.append(StepResult(step=step, outcome=Outcome.SKIPPED, message=message))
                continue
            result = await self._take(step, targets.get(step.name, Target(document=None)), by)
            results.append(result)
            if result.outcome is not Outcome.DONE:
                failed.add(step.name)
            elif step.kind in _ENDS_SEEDS:
                target = targets.get(step.name)
                keep = "" if target is None else target.seed
                directory = Path(self._image_dirs[0])
                await asyncio.to_thread(drop_seeds, step.name, directory, keep=keep)
            self._tell(result)
        return tuple(results)

    async def close(self) -> None:
        """Close the connection, waiting no longer than a second."""
        future = start_thread(self._definitions.close, "definitions-close")
        await asyncio.wait((future,), timeout=_CLOSE_TIMEOUT_S)

    async def _take(self, step: Step, target: Target, by: str) -> StepResult:
        began_s = time.monotonic()
        outcome, message, code = Outcome.DONE, "", ""
        try:
            if step.kind in _STARTS and target.document is not None:
                await self._check_overlays(target.document)
            if step.kind in _STARTS:
                async with self._leases.starting(step.name, by=by):
                    message = await self._run(step, target)
            else:
                message = await self._run(step, target)
        except OperationUnknownError as exc:
            outcome, message, code = Outcome.UNKNOWN, exc.message, exc.code
        except NovacronError as exc:
            outcome, message, code = Outcome.FAILED, exc.message, exc.code
        took_s = time.monotonic() - began_s
        return StepResult(step=step, outcome=outcome, message=message, code=code, took_s=took_s)

    async def _run(self, step: Step, target: Target) -> str:
        return await self._calls.run(
            partial(self._definitions.take, step, target),
            subject=step.name,
            what=f"{step.kind.value} {step.name}",
            timeout_s=self._timeouts_s.get(step.kind, self._call_timeout_s),
        )

    async def _check_overlays(self, document: VmDocument) -> None:
        """Look again: a file may have come since the document was taken."""
        for index, disk in enumerate(document.disks):
            in_dirs = any(Path(disk.path).is_relative_to(place) for place in self._image_dirs)
            if disk.format is DiskFormat.QCOW2 and disk.path and in_dirs:
                await self._check_disk(document, index)

    def _tell(self, result: StepResult) -> None:
        fields = {
            "vm": result.step.name,
            "step": result.step.kind.value,
            "outcome": result.outcome.value,
            "reason": result.message or result.step.reason,
        }
        self._context.emit("vm:step", **fields)
        log = self._context.log
        tell = log.info if result.outcome is Outcome.DONE else log.warning
        tell("vm_step", took_s=result.took_s, **fields)
