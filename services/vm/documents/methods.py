"""The calls about documents: what is wanted, what there is, and how one becomes the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from protocol.records import Plain, from_wire, to_wire
from services.vm.documents.apply import Applier
from services.vm.documents.errors import (
    AdoptionError,
    ApplyBusyError,
    DocumentNotFoundError,
    DomainRunningError,
    FencedError,
    PlanRefusedError,
)
from services.vm.documents.model import VmDocument
from services.vm.documents.plan import plan_machines
from services.vm.documents.records import (
    ApplyReply,
    ApplyRequest,
    DocumentInfo,
    DocumentList,
    NameRequest,
    PlanReply,
    PlanRequest,
    StoredDocument,
    VmView,
    fit_results,
    fit_steps,
)
from services.vm.documents.steps import (
    Allowed,
    Desired,
    Observed,
    Step,
    StepKind,
    VmPlan,
)
from services.vm.documents.store import DocumentStore, Reading
from services.vm.errors import DomainNotFoundError
from supervisor.child.service import Request, ServiceContext

# Steps of ``vm.define``: what changes neither a running guest nor whether it runs.
_DEFINING = frozenset((StepKind.DEFINE, StepKind.REDEFINE, StepKind.MARK, StepKind.AUTOSTART))
_REASONS_MAX = 10


class Methods:
    """The calls; each takes a request and gives its reply.

    Args:
        context: the service's.
        node_id: of this node.
        store: of its documents; closed with this.
        applier: for its domains; closed with this.
    """

    def __init__(
        self, context: ServiceContext, *, node_id: str, store: DocumentStore, applier: Applier
    ) -> None:
        self._context = context
        self._node_id = node_id
        self._store = store
        self._applier = applier
        self._busy = asyncio.Lock()

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" while it is not."""
        return self._applier.reason

    async def close(self) -> None:
        """Close what was opened; guests go on."""
        await self._store.close()
        await self._applier.close()

    async def documents(self, _request: Request) -> Plain:
        """Reply: DocumentList."""
        reading = await self._store.read()
        infos = tuple(_info(item) for item in reading.documents)
        return to_wire(
            DocumentList(documents=infos, is_stale=reading.is_stale, unreadable=reading.unreadable)
        )

    async def get(self, request: Request) -> Plain:
        """Reply: VmView."""
        name = from_wire(NameRequest, request.body).name
        store, applier = self._store, self._applier
        reading = await store.read()
        observed = await applier.observe()
        stored = _find(reading, name)
        domain = observed.get(name)
        if stored is None and domain is None:
            raise DocumentNotFoundError(f"there is neither a document nor a domain {name}")
        plan = self._plan(reading.documents, observed, reading, Allowed(), frozenset({name}))
        adopted = None if domain is None else domain.adopted
        return to_wire(
            VmView(
                name=name,
                stored=stored,
                domain=None if domain is None else domain.record,
                found=None if adopted is None else adopted.document,
                left_out=() if adopted is None else adopted.left_out,
                is_ours=adopted is not None and adopted.mark is not None,
                steps=plan.steps,
                fault="" if domain is None else domain.fault,
                is_stale=reading.is_stale,
            )
        )

    async def plan(self, request: Request) -> Plain:
        """Body: PlanRequest. Reply: PlanReply."""
        wanted = from_wire(PlanRequest, request.body)
        store, applier = self._store, self._applier
        reading = await store.read()
        observed = await applier.observe()
        await applier.check(wanted.documents, observed)
        merged = _merge(reading.documents, wanted.documents)
        only = _only(wanted.names, wanted.documents)
        plan = self._plan(merged, observed, reading, wanted.allowed, only)
        steps, omitted = fit_steps(plan.steps)
        reply = PlanReply(plan=VmPlan(steps=steps), is_stale=reading.is_stale, omitted=omitted)
        return to_wire(reply)

    async def apply(self, request: Request) -> Plain:
        """Body: ApplyRequest. Reply: ApplyReply."""
        wanted = from_wire(ApplyRequest, request.body)
        if request.method == "vm.define":  # who may define need not be who may start
            wanted = replace(wanted, define_only=True)
        async with _Alone(self._busy):
            return to_wire(await self._apply(wanted, request))

    async def _apply(self, wanted: ApplyRequest, request: Request) -> ApplyReply:
        store, applier = self._store, self._applier
        reading = await store.read()
        observed = await applier.observe()
        await applier.check(wanted.documents, observed)
        given = frozenset(document.name for document in wanted.documents)
        merged = _merge(reading.documents, wanted.documents)
        first = self._plan(merged, observed, reading, wanted.allowed, given)
        _check_refusals(first)
        versions = await self._keep(wanted.documents, request.caller, wanted.expected)
        if versions:
            reading = await store.read()
        only = _only(wanted.names, wanted.documents)
        plan = self._plan(reading.documents, observed, reading, wanted.allowed, only)
        steps = [step for step in plan.effects if not wanted.define_only or step.kind in _DEFINING]
        results = await applier.take(steps, reading.documents, by=request.caller)
        notes, omitted = fit_steps([step for step in plan.steps if step.kind.is_note])
        return ApplyReply(
            results=fit_results(results),
            notes=notes,
            versions=versions,
            is_stale=reading.is_stale,
            omitted=omitted,
        )

    async def undefine(self, request: Request) -> Plain:
        """Body: NameRequest. Reply: ApplyReply. Removes document and domain; the disks stay."""
        wanted = from_wire(NameRequest, request.body)
        async with _Alone(self._busy):
            store, applier = self._store, self._applier
            reading = await store.read()
            observed = await applier.observe()
            domain = observed.get(wanted.name)
            stored = _find(reading, wanted.name)
            is_ours = domain is not None and domain.adopted is not None and domain.adopted.mark
            if domain is None and stored is None:
                raise DocumentNotFoundError(f"there is no machine {wanted.name} of ours")
            if domain is not None and not is_ours and stored is None:
                raise AdoptionError(
                    f"the domain {wanted.name} is not ours: adopt it first, or use virsh"
                )
            if domain is not None and is_ours and domain.record.state.is_active:
                raise DomainRunningError(f"{wanted.name} runs: stop it before it is undefined")
            _check_owner(domain, stored)
            if stored is not None:
                await store.remove(
                    wanted.name, by=request.caller, now_s=time.time(), expected=wanted.expected
                )
                self._context.emit("vm:document-removed", vm=wanted.name, caller=request.caller)
                reading = await store.read()
            allowed = Allowed(undefine=True)
            only = frozenset({wanted.name})
            plan = self._plan(reading.documents, observed, reading, allowed, only)
            results = await applier.take(plan.effects, reading.documents, by=request.caller)
            return to_wire(ApplyReply(results=results))

    async def adopt(self, request: Request) -> Plain:
        """Body: NameRequest. Reply: ApplyReply. The domain gets our mark and no other change."""
        name = from_wire(NameRequest, request.body).name
        async with _Alone(self._busy):
            store, applier = self._store, self._applier
            reading = await store.read()
            observed = await applier.observe()
            document = _adoptable(name, observed, _find(reading, name))
            versions = await self._keep((document,), request.caller, {name: 0})
            reading = await store.read()
            allowed = Allowed(adopt=True)
            plan = self._plan(reading.documents, observed, reading, allowed, frozenset({name}))
            # Whether libvirt starts it with the host is changed by the next apply.
            steps = [step for step in plan.effects if step.kind is not StepKind.AUTOSTART]
            results = await applier.take(steps, reading.documents, by=request.caller)
            notes = tuple(step for step in plan.steps if step.kind.is_note)
            return to_wire(ApplyReply(results=results, notes=notes, versions=versions))

    async def _keep(
        self, documents: Sequence[VmDocument], caller: str, expected: Mapping[str, int]
    ) -> dict[str, int]:
        """Keep documents, all or none; returns their versions."""
        if not documents:
            return {}
        kept = await self._store.put(documents, by=caller, now_s=time.time(), expected=expected)
        for stored in kept:
            name, version = stored.document.name, stored.version
            self._context.emit("vm:document-kept", vm=name, version=version, caller=caller)
        return {stored.document.name: stored.version for stored in kept}

    def _plan(
        self,
        documents: Iterable[StoredDocument],
        observed: Mapping[str, Observed],
        reading: Reading,
        allowed: Allowed,
        only: frozenset[str] | None,
    ) -> VmPlan:
        return plan_machines(
            [
                Desired(
                    document=item.document, epoch=item.epoch, seed=self._applier.seed(item.document)
                )
                for item in documents
            ],
            observed,
            node_id=self._node_id,
            allowed=allowed,
            only=only,
            unreadable=frozenset(reading.unreadable),
        )


class _Alone:
    """One change at a time; a second one is refused, as its plan would be old when it ran."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        if self._lock.locked():
            raise ApplyBusyError("another change of documents is under way; ask again")
        await self._lock.acquire()

    async def __aexit__(self, *_error: object) -> None:
        self._lock.release()


def _adoptable(
    name: str, observed: Mapping[str, Observed], stored: StoredDocument | None
) -> VmDocument:
    domain = observed.get(name)
    if domain is None:
        raise DomainNotFoundError(f"there is no domain {name}")
    if stored is not None:
        raise AdoptionError(f"{name} has a document already; apply it with --adopt")
    if domain.adopted is None:
        raise AdoptionError(f"{name} can't be adopted: {domain.fault}")
    if not domain.record.is_persistent:
        raise AdoptionError(f"{name} is transient: it is gone when it stops")
    return replace(domain.adopted.document, autostart=domain.record.autostart)


def _check_owner(domain: Observed | None, stored: StoredDocument | None) -> None:
    mark = None if domain is None or domain.adopted is None else domain.adopted.mark
    if mark is not None and stored is not None and mark.epoch > stored.epoch:
        raise FencedError(
            f"{stored.document.name} has a newer owner (epoch {mark.epoch}, here {stored.epoch})",
            epoch=mark.epoch,
        )


def _check_refusals(plan: VmPlan) -> None:
    refused = [step for step in plan.steps if step.kind is StepKind.REFUSED]
    if refused:
        listed = "; ".join(_words(step) for step in refused[:_REASONS_MAX])
        raise PlanRefusedError(f"nothing was changed: {listed}")


def _words(step: Step) -> str:
    details = f" ({', '.join(step.details)})" if step.details else ""
    return f"{step.name}: {step.reason}{details}"


def _merge(
    kept: Iterable[StoredDocument], given: Iterable[VmDocument]
) -> tuple[StoredDocument, ...]:
    """The documents as they would be if the given ones were kept."""
    merged = {item.document.name: item for item in kept}
    for document in given:
        known = merged.get(document.name)
        epoch = 1 if known is None else known.epoch
        merged[document.name] = StoredDocument(document=document, version=0, epoch=epoch)
    return tuple(merged[name] for name in sorted(merged))


def _only(names: Iterable[str], documents: Iterable[VmDocument]) -> frozenset[str] | None:
    found = frozenset(names) | frozenset(document.name for document in documents)
    return found or None


def _find(reading: Reading, name: str) -> StoredDocument | None:
    return next((item for item in reading.documents if item.document.name == name), None)


def _info(item: StoredDocument) -> DocumentInfo:
    document = item.document
    return DocumentInfo(
        name=document.name,
        version=item.version,
        epoch=item.epoch,
        power=document.power.value,
        autostart=document.autostart,
        priority=document.priority,
        updated_s=item.updated_s,
        updated_by=item.updated_by,
    )
