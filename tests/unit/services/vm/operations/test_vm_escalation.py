"""How a guest is stopped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.vm.operations.escalation import (
    ASK_AGAIN_S,
    Ask,
    Asked,
    Begin,
    Escalation,
    Event,
    GiveUp,
    Refused,
    Report,
    Step,
    Stopped,
    Tick,
    step,
)


def run(state: Escalation, *events: tuple[float, Event]) -> tuple[Escalation, list[object]]:
    """The state after the events, and all that was to be done."""
    done: list[object] = []
    for now_s, event in events:
        state, actions = step(state, event, now_s)
        done.extend(actions)
    return state, done


def test_each_step_gets_its_time_in_order() -> None:
    """Agent, ACPI, force: the next is asked once the last had its time, and not before."""
    state = Escalation(agent_s=30, acpi_s=60, force_s=15)

    _, early = run(state, (0, Begin()), (29.9, Tick()))
    _, all_of_it = run(state, (0, Begin()), (30, Tick()), (89, Tick()), (90, Tick()), (105, Tick()))

    assert early == [Ask(Step.AGENT)]
    assert all_of_it[:3] == [Ask(Step.AGENT), Ask(Step.ACPI), Ask(Step.FORCE)]
    assert isinstance(all_of_it[3], GiveUp)


def test_a_step_that_nobody_hears_costs_no_time() -> None:
    """Without an agent the power button is pressed at once."""
    state, done = run(
        Escalation(agent_s=30, acpi_s=60, force_s=15), (0, Begin()), (0.1, Refused("no agent"))
    )

    assert done == [Ask(Step.AGENT), Ask(Step.ACPI)]
    assert state.late_s == 60.1


def test_a_deaf_guest_is_asked_again() -> None:
    """A guest that boots hears the second time; a refusal then ends nothing."""
    state, done = run(
        Escalation(agent_s=0, acpi_s=60, force_s=15),
        (0, Begin()),
        (0, Asked()),
        (ASK_AGAIN_S, Tick()),
        (ASK_AGAIN_S, Refused("it is on its way down")),
        (ASK_AGAIN_S + 1, Tick()),
    )

    assert done == [Ask(Step.ACPI), Ask(Step.ACPI)]
    assert state.step is Step.ACPI


def test_without_force_a_guest_that_ignores_all_runs_on() -> None:
    """The end tells the whole story."""
    _, done = run(
        Escalation(agent_s=5, acpi_s=10, force_s=0),
        (0, Begin()),
        (0, Refused("it has no agent")),
        (10, Tick()),
    )

    assert done[-1] == GiveUp(
        "its agent was asked in vain: it has no agent; "
        "its power button was pressed (ACPI) and it did not stop within 10 s"
    )


def test_a_guest_that_is_off_is_not_asked() -> None:
    """It was off already: nothing is done."""
    _, done = run(Escalation(agent_s=5, acpi_s=10, force_s=5), (0, Stopped()), (1, Begin()))

    assert done == [Report("was off already")]


events = st.one_of(
    st.just(Begin()), st.just(Asked()), st.just(Tick()), st.just(Stopped()), st.just(Refused("x"))
)


@given(
    st.tuples(*[st.sampled_from([0.0, 1.0, 20.0])] * 3),
    st.lists(st.tuples(st.floats(0, 10), events), max_size=40),
)
def test_power_is_taken_last_and_only_where_it_may_be(
    times: tuple[float, float, float], moves: list[tuple[float, Event]]
) -> None:
    """Whatever happens: steps come in order, left-out steps never, and after an end nothing."""
    agent_s, acpi_s, force_s = times
    state = Escalation(agent_s=agent_s, acpi_s=acpi_s, force_s=force_s)
    now_s, asked, ends = 0.0, [], 0
    for pause_s, event in moves:
        now_s += pause_s
        state, actions = step(state, event, now_s)
        assert not (ends and actions)
        asked += [action.step for action in actions if isinstance(action, Ask)]
        ends += sum(isinstance(action, Report | GiveUp) for action in actions)

    order = [Step.AGENT, Step.ACPI, Step.FORCE]
    assert [order.index(s) for s in asked] == sorted(order.index(s) for s in asked)
    assert all(getattr(state, f"{s.value}_s") > 0 for s in asked)
    assert asked.count(Step.FORCE) <= 1
    assert ends <= 1
