"""libvirt's numbers become the right words, and readings are compared correctly."""

from __future__ import annotations

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm.domains import (
    _EVENTS,
    _STATES,
    apply_event,
    changes_between,
    event_from_libvirt,
    state_from_libvirt,
)
from services.vm.model import DomainEvent, DomainEventKind, DomainRecord, DomainState


def words(prefix: str) -> dict[int, str]:
    """The library's constants of one enumeration, as our words by number."""
    found = {
        name.removeprefix(prefix).lower().replace("_", "-"): number
        for name, number in vars(libvirt).items()
        if name.startswith(prefix) and not name.endswith("_LAST")
    }
    return {number: word for word, number in found.items()}


STATE_PREFIXES = {
    DomainState.RUNNING: "VIR_DOMAIN_RUNNING_",
    DomainState.PAUSED: "VIR_DOMAIN_PAUSED_",
    # Not SHUTTING_DOWN: the flags of a shutdown share its prefix.
    DomainState.SHUTOFF: "VIR_DOMAIN_SHUTOFF_",
    DomainState.CRASHED: "VIR_DOMAIN_CRASHED_",
}
EVENT_PREFIXES = {
    DomainEventKind.DEFINED: "VIR_DOMAIN_EVENT_DEFINED_",
    DomainEventKind.UNDEFINED: "VIR_DOMAIN_EVENT_UNDEFINED_",
    DomainEventKind.STARTED: "VIR_DOMAIN_EVENT_STARTED_",
    DomainEventKind.SUSPENDED: "VIR_DOMAIN_EVENT_SUSPENDED_",
    DomainEventKind.RESUMED: "VIR_DOMAIN_EVENT_RESUMED_",
    DomainEventKind.STOPPED: "VIR_DOMAIN_EVENT_STOPPED_",
    DomainEventKind.SHUT_DOWN: "VIR_DOMAIN_EVENT_SHUTDOWN_",
    DomainEventKind.PM_SUSPENDED: "VIR_DOMAIN_EVENT_PMSUSPENDED_",
    DomainEventKind.CRASHED: "VIR_DOMAIN_EVENT_CRASHED_",
}


@pytest.mark.parametrize(("state", "prefix"), STATE_PREFIXES.items())
def test_every_state_and_reason_of_the_library_has_its_word(
    state: DomainState, prefix: str
) -> None:
    """The table agrees with the library's own constants."""
    number = next(index for index, (word, _) in enumerate(_STATES) if word is state)

    for reason, word in words(prefix).items():
        assert state_from_libvirt(number, reason) == (state, word)


@pytest.mark.parametrize(("kind", "prefix"), EVENT_PREFIXES.items())
def test_every_event_and_detail_of_the_library_has_its_word(
    kind: DomainEventKind, prefix: str
) -> None:
    """The table agrees with the library's own constants; a crash is called one."""
    number = next(index for index, (word, _) in enumerate(_EVENTS) if word is kind)

    for detail, word in words(prefix).items():
        event = event_from_libvirt(number, detail, uuid="u", name="n")
        assert event is not None
        assert event.detail == word
        is_crash = kind is DomainEventKind.STOPPED and word in {"crashed", "failed"}
        assert event.kind is (DomainEventKind.CRASHED if is_crash else kind)


def test_the_state_numbers_are_the_library_s() -> None:
    """Position in the table is virDomainState."""
    numbers = {
        libvirt.VIR_DOMAIN_NOSTATE: DomainState.UNKNOWN,
        libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
        libvirt.VIR_DOMAIN_BLOCKED: DomainState.BLOCKED,
        libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
        libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.SHUTTING_DOWN,
        libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUTOFF,
        libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
        libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.PM_SUSPENDED,
    }

    assert {number: state_from_libvirt(number, 0)[0] for number in numbers} == numbers


@pytest.mark.parametrize("number", [-1, 99])
def test_numbers_of_a_newer_libvirt_do_not_fail(number: int) -> None:
    """What is not in the tables reads unknown, and an unknown kind of event is left out."""
    assert state_from_libvirt(number, 0) == (DomainState.UNKNOWN, "unknown")
    assert state_from_libvirt(1, number) == (DomainState.RUNNING, "unknown")
    assert event_from_libvirt(number, 0, uuid="u", name="n") is None


def domain(state: DomainState, reason: str = "unknown", uuid: str = "u1") -> DomainRecord:
    """A domain in a state."""
    return DomainRecord(name=f"name-{uuid}", uuid=uuid, state=state, reason=reason)


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (None, domain(DomainState.SHUTOFF), ["defined"]),
        (None, domain(DomainState.RUNNING), ["defined", "started"]),
        (domain(DomainState.RUNNING), None, ["stopped", "undefined"]),
        (domain(DomainState.SHUTOFF), None, ["undefined"]),
        (domain(DomainState.SHUTOFF), domain(DomainState.RUNNING), ["started"]),
        (domain(DomainState.SHUTOFF), domain(DomainState.PAUSED), ["started", "suspended"]),
        (domain(DomainState.RUNNING), domain(DomainState.PAUSED), ["suspended"]),
        (domain(DomainState.PAUSED), domain(DomainState.RUNNING), ["resumed"]),
        (domain(DomainState.RUNNING), domain(DomainState.SHUTOFF), ["stopped"]),
        (domain(DomainState.RUNNING), domain(DomainState.SHUTOFF, "crashed"), ["crashed"]),
        (domain(DomainState.PAUSED), domain(DomainState.CRASHED), ["crashed"]),
        (domain(DomainState.RUNNING), domain(DomainState.RUNNING), []),
        (domain(DomainState.RUNNING), domain(DomainState.SHUTTING_DOWN), []),
    ],
)
def test_the_net_change_between_two_readings_is_found(
    before: DomainRecord | None, after: DomainRecord | None, kinds: list[str]
) -> None:
    """What happened in a gap becomes events, marked as not observed."""
    old = {before.uuid: before} if before else {}
    new = {after.uuid: after} if after else {}

    events = changes_between(old, new)

    assert [event.kind.value for event in events] == kinds
    assert not any(event.is_observed for event in events)


readings = st.dictionaries(st.sampled_from(["u1", "u2", "u3"]), st.sampled_from(DomainState)).map(
    lambda found: {uuid: domain(state, uuid=uuid) for uuid, state in found.items()}
)


@given(before=readings, after=readings)
def test_following_the_events_leads_from_one_reading_to_the_other(
    before: dict[str, DomainRecord], after: dict[str, DomainRecord]
) -> None:
    """A listener that only follows events knows which domains exist and which are active."""
    known = before

    for event in changes_between(before, after):
        known = apply_event(known, event)

    assert _activity(known) == _activity(after)


def _activity(domains: dict[str, DomainRecord]) -> dict[str, bool]:
    return {uuid: record.state.is_active for uuid, record in domains.items()}


def test_an_active_domain_that_is_undefined_goes_on_until_it_stops() -> None:
    """Undefining only takes the configuration away; a transient domain ends with its stop."""
    running = {"u1": domain(DomainState.RUNNING)}
    undefined = DomainEvent(kind=DomainEventKind.UNDEFINED, uuid="u1", name="name-u1")
    stopped = DomainEvent(kind=DomainEventKind.STOPPED, uuid="u1", name="name-u1")

    transient = apply_event(running, undefined)

    assert not transient["u1"].is_persistent
    assert transient["u1"].state is DomainState.RUNNING
    assert apply_event(transient, stopped) == {}


def test_an_event_of_an_unknown_domain_makes_it_known() -> None:
    """A domain whose definition was missed appears with its first event."""
    started = DomainEvent(kind=DomainEventKind.STARTED, uuid="u9", name="new", detail="booted")

    known = apply_event({}, started)["u9"]

    assert (known.name, known.state, known.reason) == ("new", DomainState.RUNNING, "booted")
