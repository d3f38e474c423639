"""libvirt's numbers as our words, and what changed between two readings. Pure.

The numbers are libvirt's ABI (virDomainState, virDomain*Reason, virDomainEventType and its detail
enumerations in libvirt-domain.h). A newer libvirt may send numbers that are not here; they read
``unknown`` and never fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from services.vm.model import DomainEvent, DomainEventKind, DomainRecord, DomainState

# By virDomainState: the state, and its reasons by number.
_STATES: tuple[tuple[DomainState, tuple[str, ...]], ...] = (
    (DomainState.UNKNOWN, ("unknown",)),
    (
        DomainState.RUNNING,
        (
            "unknown",
            "booted",
            "migrated",
            "restored",
            "from-snapshot",
            "unpaused",
            "migration-canceled",
            "save-canceled",
            "wakeup",
            "crashed",
            "postcopy",
            "postcopy-failed",
        ),
    ),
    (DomainState.BLOCKED, ("unknown",)),
    (
        DomainState.PAUSED,
        (
            "unknown",
            "user",
            "migration",
            "save",
            "dump",
            "ioerror",
            "watchdog",
            "from-snapshot",
            "shutting-down",
            "snapshot",
            "crashed",
            "starting-up",
            "postcopy",
            "postcopy-failed",
            "api-error",
        ),
    ),
    (DomainState.SHUTTING_DOWN, ("unknown", "user")),
    (
        DomainState.SHUTOFF,
        (
            "unknown",
            "shutdown",
            "destroyed",
            "crashed",
            "migrated",
            "saved",
            "failed",
            "from-snapshot",
            "daemon",
        ),
    ),
    (DomainState.CRASHED, ("unknown", "panicked")),
    (DomainState.PM_SUSPENDED, ("unknown",)),
)

# By virDomainEventType: the kind, and its details by number.
_EVENTS: tuple[tuple[DomainEventKind, tuple[str, ...]], ...] = (
    (DomainEventKind.DEFINED, ("added", "updated", "renamed", "from-snapshot")),
    (DomainEventKind.UNDEFINED, ("removed", "renamed")),
    (DomainEventKind.STARTED, ("booted", "migrated", "restored", "from-snapshot", "wakeup")),
    (
        DomainEventKind.SUSPENDED,
        (
            "paused",
            "migrated",
            "ioerror",
            "watchdog",
            "restored",
            "from-snapshot",
            "api-error",
            "postcopy",
            "postcopy-failed",
        ),
    ),
    (
        DomainEventKind.RESUMED,
        ("unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"),
    ),
    (
        DomainEventKind.STOPPED,
        ("shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot"),
    ),
    (DomainEventKind.SHUT_DOWN, ("finished", "guest", "host")),
    (DomainEventKind.PM_SUSPENDED, ("memory", "disk")),
    (DomainEventKind.CRASHED, ("panicked", "crashloaded")),
)
_STATE_AFTER = {
    DomainEventKind.STARTED: DomainState.RUNNING,
    DomainEventKind.SUSPENDED: DomainState.PAUSED,
    DomainEventKind.RESUMED: DomainState.RUNNING,
    DomainEventKind.STOPPED: DomainState.SHUTOFF,
    DomainEventKind.SHUT_DOWN: DomainState.SHUTTING_DOWN,
    DomainEventKind.PM_SUSPENDED: DomainState.PM_SUSPENDED,
    DomainEventKind.CRASHED: DomainState.SHUTOFF,
}
# A guest whose hypervisor died stopped without anybody wanting it.
_CRASH_DETAILS = frozenset({"crashed", "failed"})


def state_from_libvirt(state: int, reason: int) -> tuple[DomainState, str]:
    """The words for what ``virDomainGetState`` returned."""
    if not 0 <= state < len(_STATES):
        return DomainState.UNKNOWN, "unknown"
    word, reasons = _STATES[state]
    return word, _word(reasons, reason)


def event_from_libvirt(event: int, detail: int, *, uuid: str, name: str) -> DomainEvent | None:
    """The record for a lifecycle event; None for a kind that this version does not know.

    A stop because the hypervisor crashed or failed is a crash.
    """
    if not 0 <= event < len(_EVENTS):
        return None
    kind, details = _EVENTS[event]
    word = _word(details, detail)
    if kind is DomainEventKind.STOPPED and word in _CRASH_DETAILS:
        kind = DomainEventKind.CRASHED
    return DomainEvent(kind=kind, uuid=uuid, name=name, detail=word)


def changes_between(
    before: Mapping[str, DomainRecord], after: Mapping[str, DomainRecord]
) -> tuple[DomainEvent, ...]:
    """What must have happened between two readings, both by UUID.

    Only the net change is found: a guest that was stopped and started again shows none.

    Returns:
        Events in an order that a listener can follow, each with ``is_observed`` False.
    """
    events: list[DomainEvent] = []
    for uuid, old in before.items():
        if uuid not in after:
            if old.state.is_active:
                events.append(_found(DomainEventKind.STOPPED, old, "unknown"))
            events.append(_found(DomainEventKind.UNDEFINED, old, "removed"))
    for uuid, new in after.items():
        known = before.get(uuid)
        if known is None:
            events.append(_found(DomainEventKind.DEFINED, new, "added"))
        events.extend(_state_changes(known.state if known else DomainState.SHUTOFF, new))
    return tuple(events)


def apply_event(domains: Mapping[str, DomainRecord], event: DomainEvent) -> dict[str, DomainRecord]:
    """The domains as far as an event alone tells, until they can be read.

    Without it a connection that breaks right after the event would leave a state that is known to
    be wrong, and the event would be found a second time after the reconnection.
    """
    after = dict(domains)
    known = after.get(event.uuid) or DomainRecord(
        name=event.name, uuid=event.uuid, state=DomainState.SHUTOFF
    )
    if event.kind is DomainEventKind.UNDEFINED:
        if known.state.is_active:  # it goes on as a transient domain
            after[event.uuid] = replace(known, is_persistent=False)
        else:
            after.pop(event.uuid, None)
        return after
    state = _STATE_AFTER.get(event.kind)
    if state is None:
        after[event.uuid] = replace(known, name=event.name)
    elif not state.is_active and not known.is_persistent:
        after.pop(event.uuid, None)
    else:
        after[event.uuid] = replace(known, state=state, reason=event.detail)
    return after


def _state_changes(old: DomainState, new: DomainRecord) -> list[DomainEvent]:
    was_paused, is_paused = (state is DomainState.PAUSED for state in (old, new.state))
    if old.is_active and not new.state.is_active:
        is_crash = new.state is DomainState.CRASHED or new.reason in _CRASH_DETAILS
        kind = DomainEventKind.CRASHED if is_crash else DomainEventKind.STOPPED
        return [_found(kind, new, new.reason)]
    events = []
    if not old.is_active and new.state.is_active:
        events.append(_found(DomainEventKind.STARTED, new, "unknown" if is_paused else new.reason))
    if is_paused and not was_paused:
        events.append(_found(DomainEventKind.SUSPENDED, new, new.reason))
    if was_paused and new.state is DomainState.RUNNING:
        events.append(_found(DomainEventKind.RESUMED, new, new.reason))
    return events


def _found(kind: DomainEventKind, domain: DomainRecord, detail: str) -> DomainEvent:
    return DomainEvent(
        kind=kind, uuid=domain.uuid, name=domain.name, detail=detail, is_observed=False
    )


def _word(words: tuple[str, ...], number: int) -> str:
    return words[number] if 0 <= number < len(words) else "unknown"
