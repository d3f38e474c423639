"""From documents and domains to steps. Pure; what a step means is said here, and nowhere else.

Nothing destructive happens unasked: a document that is gone leaves its domain alone, a domain of
somebody else is never taken over, what a document can't say is never lost by a redefinition, a
running guest is never stopped unless its document says ``power: off``, and no step ever deletes a
disk. Each of these is a note instead of a step, with what to do.

Order: what frees (stop, undefine), definitions, changes of running guests, starts; within a kind
by priority, the highest first, then by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from services.vm.documents.adopt import Adopted
from services.vm.documents.differences import Difference, differences, follow_snapshots
from services.vm.documents.model import Power, VmDocument
from services.vm.documents.steps import Allowed, Desired, Observed, Step, StepKind, VmPlan
from services.vm.documents.xml import MODES
from services.vm.model import DomainState

DETAILS_MAX = 20


_ORDER = {kind: number for number, kind in enumerate(StepKind)}


def plan_machines(
    desired: Sequence[Desired],
    observed: Mapping[str, Observed],
    *,
    node_id: str,
    allowed: Allowed = Allowed(),  # noqa: B008 - frozen
    only: frozenset[str] | None = None,
    unreadable: frozenset[str] = frozenset(),
) -> VmPlan:
    """What is to be done.

    Args:
        desired: all documents of this node; others matter for ``apart_from``.
        observed: all domains of this host, by name.
        node_id: this node.
        allowed: what was asked for.
        only: names to look at; None for all.
        unreadable: names whose documents a newer program wrote.
    """
    steps: list[Step] = []
    present = {item.document.name for item in desired}
    priorities = {item.document.name: item.document.priority for item in desired}
    for item in desired:
        name = item.document.name
        if only is None or name in only:
            steps += _machine(item, observed, desired, node_id=node_id, allowed=allowed)
    for name in sorted(unreadable):
        if only is None or name in only:
            steps.append(_note(StepKind.REFUSED, name, "its document is of a newer program"))
    present |= unreadable
    for name, domain in observed.items():
        is_ours = domain.adopted is not None and domain.adopted.mark is not None
        if is_ours and name not in present and (only is None or name in only):
            steps += _orphan(domain, allowed)
    steps.sort(key=lambda step: (_ORDER[step.kind], -priorities.get(step.name, 0), step.name))
    return VmPlan(steps=tuple(steps))


def _machine(
    item: Desired,
    observed: Mapping[str, Observed],
    desired: Sequence[Desired],
    *,
    node_id: str,
    allowed: Allowed,
) -> list[Step]:
    document = item.document
    domain = observed.get(document.name)
    obstacle = _obstacle(document, observed, desired, node_id)
    if domain is None:
        if obstacle is not None:
            return [obstacle]
        clash = _clash(document, observed, desired)
        if clash:
            return [_note(StepKind.REFUSED, document.name, clash)]
        steps = [_step(StepKind.DEFINE, document.name, "it has a document and no domain")]
        return [*steps, *_power(document, DomainState.SHUTOFF)]
    steps, may_go_on = _definition(item, domain, allowed)
    if any(step.kind is StepKind.REDEFINE for step in steps):
        clash = _clash(document, observed, desired)
        if clash:
            return [_note(StepKind.REFUSED, document.name, clash)]
    if not may_go_on:
        return steps
    if domain.record.autostart:
        steps.append(_no_libvirt_autostart(document))
    if obstacle is not None and not domain.record.state.is_active:
        return [*steps, obstacle]
    will_restart = any(step.kind is StepKind.RESTART for step in steps)
    return steps if will_restart else [*steps, *_power(document, domain.record.state)]


def _definition(item: Desired, domain: Observed, allowed: Allowed) -> tuple[list[Step], bool]:
    """Steps for an existing domain's definition, and whether anything else may be done to it."""
    document, name = item.document, item.document.name
    adopted = domain.adopted
    if not domain.record.is_persistent:
        return [
            _note(StepKind.REFUSED, name, "its domain is transient; define it with virsh")
        ], False
    if adopted is None:
        return [_note(StepKind.REFUSED, name, domain.fault or "its domain can't be read")], False
    mark = adopted.mark
    if mark is None and not allowed.adopt:
        reason = f"a domain of that name is not ours; 'novacronctl vm adopt {name}' takes it over"
        return [_note(StepKind.REFUSED, name, reason)], False
    if mark is not None and mark.epoch > item.epoch:
        reason = f"the domain has a newer owner (epoch {mark.epoch}, here {item.epoch})"
        return [_note(StepKind.REFUSED, name, reason)], False
    if domain.record.uuid != (document.uuid or domain.record.uuid):
        reason = f"the domain has the UUID {domain.record.uuid}; say it as uuid in the document"
        return [_note(StepKind.REFUSED, name, reason)], False
    changes = differences(adopted, document, item.seed)
    steps: list[Step] = []
    if changes and adopted.left_out and not allowed.replace:
        reason = "its domain has parts that a document can't say, which a redefinition would lose"
        return [_note(StepKind.REFUSED, name, reason, adopted.left_out)], False
    lost = _lost_disks(document, adopted)
    if lost and not allowed.replace:
        reason = "it would lose disks: say them in the document, or give --replace"
        return [_note(StepKind.REFUSED, name, reason, lost)], False
    if changes:
        reason = "the domain differs from its document"
        steps.append(_step(StepKind.REDEFINE, name, reason, map(str, changes)))
    elif mark is None or mark.fingerprint != document.fingerprint or mark.epoch != item.epoch:
        steps.append(_step(StepKind.MARK, name, "the mark names another document or epoch"))
    if domain.record.state.is_active:
        steps += _running(item, domain, changes, allowed)
    return steps, True


def _lost_disks(document: VmDocument, adopted: Adopted) -> tuple[str, ...]:
    """Disks of the domain that the document does not have."""
    kept = {disk.source for disk in follow_snapshots(document, adopted).disks}
    return tuple(
        disk.source
        for disk in adopted.document.disks
        if not disk.is_cdrom and disk.source not in kept
    )


def _running(
    item: Desired, domain: Observed, changes: Sequence[Difference], allowed: Allowed
) -> list[Step]:
    """What a running guest can be given at once, and what it needs a restart for."""
    document, now = item.document, _as_defined(domain)
    pending = changes if now is None else differences(now, document, item.seed)
    steps: list[Step] = []
    rest: list[str] = []
    for change in pending:
        if change.path == "memory.size" and now is not None and _fits(document, now):
            size = document.memory.bytes
            steps.append(_step(StepKind.RESIZE_MEMORY, document.name, str(change), value=size))
        elif change.path == "cpus.count" and _may_add(document, now):
            count = document.cpus.count
            steps.append(_step(StepKind.RESIZE_CPUS, document.name, str(change), value=count))
        elif change.path != "title" and not change.path.endswith(".segment"):
            rest.append(str(change))
    if not rest or document.power is Power.OFF:
        return steps
    if allowed.restart:
        reason = "the running guest has an older definition"
        return [_step(StepKind.RESTART, document.name, reason, rest)]
    reason = "it takes effect with the next start; --restart does that now"
    return [*steps, _note(StepKind.NEEDS_RESTART, document.name, reason, rest)]


def _as_defined(domain: Observed) -> Adopted | None:
    """What runs, without what makes no difference to its definition.

    A guest takes and gives memory in its own time; the host's model is a certain one in a running
    guest.
    """
    now, defined = domain.active, domain.adopted
    if now is None or defined is None:
        return now
    running, wanted = now.document, defined.document
    if running.memory.bytes_max == wanted.memory.bytes_max:
        running = replace(running, memory=wanted.memory)
    if wanted.cpus.model in MODES:
        running = replace(running, cpus=replace(running.cpus, model=wanted.cpus.model))
    return replace(now, document=running)


def _fits(document: VmDocument, now: Adopted) -> bool:
    return document.memory.bytes <= now.document.memory.bytes_max


def _may_add(document: VmDocument, now: Adopted | None) -> bool:
    # Taking processors away from a running guest needs its consent, which it may not give.
    if now is None:
        return False
    return now.document.cpus.count < document.cpus.count <= now.document.cpus.most


def _power(document: VmDocument, state: DomainState) -> list[Step]:
    if document.power is Power.ON and not state.is_active:
        return [_step(StepKind.START, document.name, "its document says power: on")]
    if document.power is Power.OFF and state.is_active:
        return [_step(StepKind.STOP, document.name, "its document says power: off")]
    return []


def _obstacle(
    document: VmDocument,
    observed: Mapping[str, Observed],
    desired: Sequence[Desired],
    node_id: str,
) -> Step | None:
    """Why this node may not have it, or None."""
    placement = document.placement
    if placement.nodes and node_id not in placement.nodes:
        reason = f"its placement allows {', '.join(placement.nodes)[:200]}, and not {node_id}"
        return _note(StepKind.ELSEWHERE, document.name, reason)
    reverse = {
        item.document.name
        for item in desired
        if document.name in item.document.placement.apart_from
    }
    for other in sorted({*placement.apart_from, *reverse} - {document.name}):
        found = observed.get(other)
        if found is not None and found.record.state.is_active:
            reason = f"its placement keeps it apart from {other}, which runs here"
            return _note(StepKind.ELSEWHERE, document.name, reason)
    return None


def _clash(
    document: VmDocument, observed: Mapping[str, Observed], desired: Sequence[Desired]
) -> str:
    """What another machine of this host has that this one wants for itself; "" for nothing."""
    others = {
        name: domain.adopted.document
        for name, domain in observed.items()
        if domain.adopted is not None
    }
    others |= {item.document.name: item.document for item in desired}
    uuids = {name: domain.record.uuid for name, domain in observed.items()}
    macs = {document.mac(index) for index in range(len(document.networks))}
    paths = {disk.path for disk in document.disks if disk.path}
    shared = {disk.path for disk in document.disks if disk.read_only or disk.is_cdrom}
    for name in sorted(({*others, *uuids}) - {document.name}):
        other = others.get(name)
        own = uuids.get(name) or (other.domain_uuid if other is not None else "")
        if own == document.domain_uuid:
            return f"{name} has the same UUID {own}; say another"
        if other is None:
            continue
        for index in range(len(other.networks)):
            if other.mac(index) in macs:
                return f"{name} has the same MAC {other.mac(index)}; say another"
        for disk in other.disks:
            is_shared = disk.path in shared and (disk.read_only or disk.is_cdrom)
            if disk.path in paths and not is_shared:
                return f"{name} has the same disk {disk.path}; two guests would destroy it"
    return ""


def _orphan(domain: Observed, allowed: Allowed) -> list[Step]:
    name = domain.record.name
    if not allowed.undefine:
        reason = f"its document is gone; 'novacronctl vm undefine {name}' removes the domain"
        return [_note(StepKind.ORPHAN, name, reason)]
    if domain.record.state.is_active:
        return [_note(StepKind.REFUSED, name, "it runs: stop it before it is undefined")]
    return [_step(StepKind.UNDEFINE, name, "its document is gone; the disks stay")]


def _no_libvirt_autostart(document: VmDocument) -> Step:
    """Libvirt knows no order and none of our checks, so it starts none of our machines."""
    words = "libvirt no longer starts it with the host"
    if document.autostart:
        words += ": the platform does, by its priority"
    return _step(StepKind.AUTOSTART, document.name, words, value=0)


def _step(
    kind: StepKind, name: str, reason: str, details: Sequence[str] | map[str] = (), value: int = 0
) -> Step:
    found = tuple(details)
    if len(found) > DETAILS_MAX:
        found = (*found[:DETAILS_MAX], f"and {len(found) - DETAILS_MAX} more")
    return Step(kind=kind, name=name, reason=reason, details=found, value=value)


def _note(kind: StepKind, name: str, reason: str, details: Sequence[str] = ()) -> Step:
    return _step(kind, name, reason, details)
