"""The recording of decisions: what it holds, when it runs, and how readers get it."""

from __future__ import annotations

import dataclasses

import msgpack
import pytest

from protocol.codec import MESSAGE_BYTES_MAX
from protocol.messages.trace import TracePage, TraceQuery
from protocol.records import from_wire, to_wire
from supervisor.core import actions, events
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec
from supervisor.core.supervisor import Supervisor
from supervisor.runtime import trace
from supervisor.runtime.trace import Recorder, describe

CRASH = ExitReason(kind=ExitKind.CRASHED, detail="exit code 1", code="x.y")
SPEC = SupervisorSpec(children=(ChildSpec(id="a", start="p:N", settings={"password": "hidden"}),))


class Traced:
    """A recorder whose answers are collected."""

    def __init__(self) -> None:
        self.machine = Supervisor(SPEC)
        self.recorder = Recorder("core")
        self.pages: list[TracePage] = []

    def read(self, now_s: float, **query: object) -> None:
        """Ask as a reader does."""
        self.recorder.read(TraceQuery(**query), now_s, self.pages.append)  # type: ignore[arg-type]  # test data

    def step(self, event: events.Event, now_s: float) -> None:
        """One step as the loop takes it."""
        decided = self.machine.step(event, now_s=now_s, draw=0.5)
        if self.recorder.is_on:
            self.recorder.add(event, decided, self.machine, now_s)


def test_nothing_is_recorded_before_somebody_asks() -> None:
    """Until the first query the recorder is off; the first answer names the recording, at once."""
    traced = Traced()
    traced.step(events.Begin(), 1.0)
    assert (traced.recorder.is_on, traced.recorder.due_s()) == (False, None)

    traced.read(2.0, wait_s=5.0)

    (page,) = traced.pages
    assert page.recording
    assert (page.decisions, page.next, page.lost) == ((), 1, 0)
    assert traced.recorder.is_on


def test_new_reader_begins_now_and_a_returning_one_at_the_beginning() -> None:
    """What was recorded for others is no news; after a restart of the supervisor all of it is."""
    traced = Traced()
    traced.read(1.0)
    traced.step(events.Begin(), 1.0)

    traced.read(2.0)
    traced.read(2.0, recording="of the process before", since=70)

    assert (traced.pages[1].decisions, traced.pages[1].next) == ((), 2)
    assert [decision.seq for decision in traced.pages[2].decisions] == [1]


def test_reader_gets_a_burst_as_one_page() -> None:
    """A waiting reader is answered a moment after the first decision, with all that gathered."""
    traced = Traced()
    traced.read(1.0)
    recording = traced.pages[0].recording
    traced.read(1.0, recording=recording, since=1, wait_s=5.0)
    traced.step(events.Begin(), 2.0)
    traced.step(events.Spawned("a", 1, 77), 2.01)

    traced.recorder.turn(2.01)
    assert len(traced.pages) == 1
    assert traced.recorder.due_s() == pytest.approx(2.0 + trace.GATHER_S)
    traced.recorder.turn(2.03)

    begin, spawned = traced.pages[1].decisions
    assert (begin.seq, begin.event.name, begin.supervisor, begin.mode) == (
        1,
        "begin",
        "core",
        "booting",
    )
    assert [item.name for item in begin.actions] == ["changed", "spawn"]
    assert begin.actions[1].fields == {"id": "a", "type": "service", "incarnation": 1}
    assert spawned.event.fields == {"id": "a", "incarnation": 1, "pid": 77}
    assert traced.pages[1].next == 3


def test_wait_ends_with_an_empty_page() -> None:
    """A reader that waited long enough is answered with nothing."""
    traced = Traced()
    traced.read(1.0)
    traced.read(1.0, recording=traced.pages[0].recording, since=1, wait_s=5.0)

    traced.recorder.turn(5.9)
    assert len(traced.pages) == 1
    traced.recorder.turn(6.0)

    assert traced.pages[1].decisions == ()


def test_recording_ends_after_the_last_reader() -> None:
    """Some seconds without a reader drop everything; the next recording has another name."""
    traced = Traced()
    traced.read(1.0)
    traced.step(events.Begin(), 2.0)

    traced.recorder.turn(10.9)
    assert traced.recorder.is_on
    assert traced.recorder.due_s() == 11.0
    traced.recorder.turn(11.0)

    assert not traced.recorder.is_on
    traced.read(12.0, recording=traced.pages[0].recording, since=5)
    assert traced.pages[1].recording != traced.pages[0].recording
    assert traced.pages[1].next == 1


def test_waiting_reader_keeps_the_recording() -> None:
    """A reader that waits counts as one that asks, until it is answered."""
    traced = Traced()
    traced.read(1.0)
    traced.read(1.0, recording=traced.pages[0].recording, since=1, wait_s=50.0)

    traced.recorder.turn(40.0)

    assert traced.recorder.is_on


def test_lost_decisions_are_counted() -> None:
    """Only the last decisions are kept; a reader that was too slow is told how many it missed."""
    traced = Traced()
    traced.read(1.0)
    for _ in range(trace.DECISIONS_MAX + 2):
        traced.step(events.Tick(), 2.0)

    traced.read(3.0, recording=traced.pages[0].recording, since=1, limit=2)

    page = traced.pages[1]
    assert [decision.seq for decision in page.decisions] == [3, 4]
    assert (page.lost, page.next) == (2, 5)


def test_readers_are_bounded() -> None:
    """One reader too many pushes out the oldest, which is answered."""
    traced = Traced()
    traced.read(1.0)
    for _ in range(trace.READERS_MAX + 1):
        traced.read(1.0, recording=traced.pages[0].recording, since=1, wait_s=5.0)

    assert len(traced.pages) == 2


def test_change_tells_the_state_and_the_next_try() -> None:
    """An end is told with its reason, the restart it costs, and what the child is like then."""
    traced = Traced()
    traced.read(0.0)
    traced.step(events.Begin(), 1.0)
    traced.step(events.BecameReady("a", 1), 1.0)
    traced.step(events.Exited("a", 1, CRASH), 2.0)

    traced.read(3.0, recording="before")

    exited = traced.pages[1].decisions[-1]
    assert exited.event.fields["reason"] == {
        "kind": "crashed",
        "detail": "exit code 1",
        "code": "x.y",
    }
    assert (exited.used, exited.intensity) == (1, 1)
    assert exited.actions[0].name == "changed"
    assert exited.actions[0].fields["failures"] == 1


@pytest.mark.parametrize(
    "item",
    [
        events.Reconfigure(SPEC),
        actions.Spawn(SPEC.children[0], 1),
        actions.Update("a", 1, SPEC),
        actions.Finish(CRASH),
        events.StopAll(CRASH),
    ],
)
def test_settings_are_never_told(item: object) -> None:
    """Whatever carries a specification is told without it: settings may hold secrets."""
    described = describe(item)

    assert "hidden" not in str(described)
    assert "password" not in str(described)
    assert described.fields


def test_page_fits_a_message() -> None:
    """The largest page of the largest decisions stays below the limit of a message."""
    children = tuple(ChildSpec(id=f"child-{n:04}", start="p:N") for n in range(200))
    machine = Supervisor(SupervisorSpec(children=children))
    recorder = Recorder("core/dwcp")
    pages: list[TracePage] = []
    recorder.read(TraceQuery(), 0.0, pages.append)
    long = dataclasses.replace(CRASH, detail="é" * 10_000)
    many = [actions.Changed(child.id) for child in children]
    for _ in range(trace.PAGE_DECISIONS_MAX + 1):
        recorder.add(events.Exited("a", 1, long), [actions.Finish(long), *many], machine, 0.0)

    recorder.read(TraceQuery(recording="before", limit=10_000), 0.0, pages.append)

    wire = to_wire(pages[1])
    assert len(pages[1].decisions) == trace.PAGE_DECISIONS_MAX
    assert pages[1].decisions[0].actions[-1].fields == {"count": 201 - trace.ACTIONS_MAX}
    assert len(msgpack.packb(wire)) < MESSAGE_BYTES_MAX
    assert from_wire(TracePage, wire) == pages[1]


def test_supervisor_type_is_told() -> None:
    """A spawn says what kind of child it is."""
    child = ChildSpec(id="core", type=ChildType.SUPERVISOR, children=SPEC)

    assert describe(actions.Spawn(child, 2)).fields["type"] == "supervisor"
