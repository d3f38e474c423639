"""The connection machine reconnects, tells why it can't, and is not confused by the past."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages.health import HEALTHY, Health, HealthState
from services.vm.connection import (
    Answered,
    CallTimedOut,
    Connection,
    Discard,
    Event,
    Lost,
    Open,
    Opened,
    OpenFailed,
    OpenSlow,
    Phase,
    ReadAll,
    ReadDue,
    Report,
    RetryDue,
    WaitRetry,
    step,
)

NEW = Connection(retry_initial_s=0.2, retry_max_s=5.0)
OPENING = replace(NEW, phase=Phase.OPENING, generation=1)
CONNECTED = replace(OPENING, phase=Phase.CONNECTED, connections=1, reason="")
MUTE = replace(CONNECTED, phase=Phase.MUTE, reason="slow")


def degraded(reason: str) -> Report:
    """The report of a component that waits for libvirt."""
    return Report(Health(HealthState.DEGRADED, reason))


@pytest.mark.parametrize(
    ("before", "event", "phase", "actions"),
    [
        (NEW, RetryDue(), Phase.OPENING, (Open(1),)),
        (OPENING, Opened(1), Phase.CONNECTED, (Report(HEALTHY),)),
        (OPENING, OpenSlow(1, "slow"), Phase.OPENING, (degraded("slow"),)),
        (OPENING, OpenFailed(1, "no"), Phase.WAITING, (degraded("no"), WaitRetry(0.2))),
        (OPENING, Lost(1, "eof"), Phase.OPENING, ()),
        (CONNECTED, CallTimedOut(1, "slow"), Phase.MUTE, (degraded("slow"),)),
        (CONNECTED, ReadDue(1), Phase.CONNECTED, (ReadAll(),)),
        (
            CONNECTED,
            Lost(1, "eof"),
            Phase.WAITING,
            (Discard(1), degraded("eof"), WaitRetry(0.2)),
        ),
        (MUTE, Answered(1), Phase.CONNECTED, (ReadAll(), Report(HEALTHY))),
        (MUTE, Lost(1, "gone"), Phase.WAITING, (Discard(1), degraded("gone"), WaitRetry(0.2))),
        (CONNECTED, RetryDue(), Phase.CONNECTED, ()),
        (OPENING, RetryDue(), Phase.OPENING, ()),
        (MUTE, CallTimedOut(1, "again"), Phase.MUTE, ()),
    ],
)
def test_transitions(
    before: Connection, event: Event, phase: Phase, actions: tuple[object, ...]
) -> None:
    """Each line of the table."""
    after, done = step(before, event)

    assert after.phase is phase
    assert done == actions


def test_a_connection_that_broke_while_it_was_opened_does_not_count() -> None:
    """The close callback may come before the attempt's own end."""
    broken, _ = step(OPENING, Lost(1, "eof"))

    after, actions = step(broken, Opened(1))

    assert after.phase is Phase.WAITING
    assert actions == (Discard(1), degraded("eof"), WaitRetry(0.2))


def test_pauses_double_up_to_the_limit_and_start_anew_after_a_success() -> None:
    """A libvirt that stays away is asked ever less often; one that came back is not punished."""
    connection, pauses = NEW, []
    for _ in range(8):
        connection, _ = step(connection, RetryDue())
        connection, actions = step(connection, OpenFailed(connection.generation, "no"))
        pauses += [action.delay_s for action in actions if isinstance(action, WaitRetry)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]

    connection, _ = step(connection, RetryDue())
    connection, _ = step(connection, Opened(connection.generation))
    _, actions = step(connection, Lost(connection.generation, "eof"))

    assert WaitRetry(0.2) in actions


events = st.one_of(
    st.builds(RetryDue),
    st.builds(Opened, st.integers(0, 4)),
    st.builds(OpenFailed, st.integers(0, 4), st.just("no")),
    st.builds(OpenSlow, st.integers(0, 4), st.just("slow")),
    st.builds(Lost, st.integers(0, 4), st.just("eof")),
    st.builds(CallTimedOut, st.integers(0, 4), st.just("late")),
    st.builds(Answered, st.integers(0, 4)),
    st.builds(ReadDue, st.integers(0, 4)),
)


@given(st.lists(events, max_size=40))
def test_whatever_happens_there_is_one_way_on(happened: list[Event]) -> None:
    """Waiting means a pause runs, an open connection is discarded once, a reason is there."""
    connection, is_pausing, is_open = NEW, True, False
    for event in happened:
        before = connection
        if isinstance(event, RetryDue) and not is_pausing:
            continue
        if isinstance(event, RetryDue):
            is_pausing = False
        connection, actions = step(connection, event)
        if isinstance(event, Opened) and before.phase is Phase.OPENING:
            is_open = is_open or event.generation == before.generation
        for action in actions:
            if isinstance(action, Discard):
                assert is_open
                is_open = False
            if isinstance(action, WaitRetry):
                assert not is_pausing
                is_pausing = True

        assert is_pausing == (connection.phase is Phase.WAITING)
        assert is_open == (connection.phase in (Phase.CONNECTED, Phase.MUTE))
        assert bool(connection.reason) == (connection.phase is not Phase.CONNECTED)
