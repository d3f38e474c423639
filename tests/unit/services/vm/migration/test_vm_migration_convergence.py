"""When a guest may stand still for longer, and when its migration is given up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.vm.migration.convergence import (
    FINISH_MS,
    STEP_S,
    STEPS,
    Allow,
    Convergence,
    GiveUp,
    change_limit,
    step,
)
from services.vm.migration.model import Figures, OnTimeout

START = Convergence(limit_ms=500, timeout_s=100, on_timeout=OnTimeout.CANCEL, stall_s=30)


def run(
    state: Convergence, looks: Iterable[tuple[float, Figures | None]]
) -> tuple[Convergence, list[tuple[float, object]]]:
    """The state in the end, and all actions with their times."""
    done: list[tuple[float, object]] = []
    for now_s, figures in looks:
        state, actions = step(state, now_s, figures)
        done += [(now_s, action) for action in actions]
    return state, done


def moving(sent: int, iteration: int = 2) -> Figures:
    """Figures of a migration that moves."""
    return Figures(total_bytes=1000, sent_bytes=sent, remaining_bytes=10, iteration=iteration)


def test_the_downtime_grows_to_its_limit_and_no_further() -> None:
    """A tenth at first, one more each five seconds once the memory was gone through."""
    _, done = run(START, [(float(t), moving(t)) for t in range(80)])

    allowed = [action.downtime_ms for _, action in done if isinstance(action, Allow)]
    assert allowed == [50 * n for n in range(1, STEPS + 1)]
    assert [now_s for now_s, _ in done[:3]] == [0.0, STEP_S, 2 * STEP_S]


def test_the_first_pass_is_waited_for() -> None:
    """While the memory is sent for the first time nothing is raised, nor without figures."""
    _, done = run(START, [(float(t), moving(t, iteration=1)) for t in range(20)])
    _, blind = run(START, [(float(t), None) for t in range(20)])

    assert len(done) == 1
    assert len(blind) == 1


def test_it_is_given_up_at_its_timeout() -> None:
    """Once, with what stood against it."""
    figures = replace(moving(1), dirty_bytes_s=2 << 20, bytes_s=1 << 20)
    looks = [(float(t), replace(figures, sent_bytes=t)) for t in (0, 99, 100, 101)]
    _, done = run(START, looks)

    [(when_s, last)] = [(t, action) for t, action in done if isinstance(action, GiveUp)]
    assert when_s == 100
    assert isinstance(last, GiveUp)
    assert "not done within 100 s" in last.reason
    assert "2048 KiB/s" in last.reason


def test_it_is_finished_at_its_timeout_where_that_is_wanted() -> None:
    """The guest stands still for the rest; only a line that is silent ends it then."""
    state = replace(START, on_timeout=OnTimeout.FINISH)

    _, done = run(state, [(float(t), moving(t)) for t in range(0, 400, 5)])
    state, _ = run(state, [(0.0, moving(1)), (100.0, moving(2))])
    _, silent = run(state, [(131.0, moving(2))])

    assert [a for _, a in done if a == Allow(FINISH_MS)] == [Allow(FINISH_MS)]
    assert not any(isinstance(action, GiveUp) for _, action in done)
    assert isinstance(silent[0][1], GiveUp)


def test_a_line_that_is_silent_ends_it() -> None:
    """Nothing sent for 30 s, and not a moment earlier; figures that can't be read are silence."""
    _, early = run(START, [(0.0, moving(1)), (10.0, moving(2)), (39.9, moving(2))])
    _, late = run(START, [(0.0, moving(1)), (10.0, moving(2)), (40.0, None)])

    assert not any(isinstance(action, GiveUp) for _, action in early)
    assert late[-1] == (40.0, GiveUp("nothing has been sent for 30 s"))


def test_no_timeout_is_none() -> None:
    """A migration may take weeks as long as something is sent."""
    state = replace(START, timeout_s=0)
    _, done = run(state, [(1e3 * t, moving(t)) for t in range(1000)])

    assert not any(isinstance(action, GiveUp) for _, action in done)


def test_another_limit_holds_at_once_where_it_is_lower() -> None:
    """A higher one is approached in steps as before."""
    state, _ = run(START, [(float(t), moving(t)) for t in range(40)])

    lower, told = change_limit(state, 20)
    higher, nothing = change_limit(state, 5000)

    assert (lower.allowed_ms, told) == (20, (Allow(20),))
    assert (higher.allowed_ms, nothing) == (state.allowed_ms, ())
    assert step(higher, 45.0, moving(45))[1] == (Allow(state.allowed_ms + 500),)


@given(
    st.integers(1, 60_000),
    st.sampled_from(OnTimeout),
    st.lists(
        st.tuples(
            st.floats(0, 50),
            st.none() | st.builds(moving, st.integers(0, 3), st.integers(0, 5)),
            st.none() | st.integers(1, 60_000),
        ),
        max_size=60,
    ),
)
def test_its_invariants(
    limit_ms: int, on_timeout: OnTimeout, looks: list[tuple[float, Figures | None, int | None]]
) -> None:
    """Never above the limit but to finish, never lower by itself, given up at most once."""
    state = replace(START, limit_ms=limit_ms, on_timeout=on_timeout)
    now_s, given_up, allowed = 0.0, 0, 0

    for pause_s, figures, new_limit in looks:
        now_s += pause_s
        if new_limit is not None:
            state, actions = change_limit(state, new_limit)
            allowed = min(allowed, state.allowed_ms)
            assert state.allowed_ms <= max(new_limit, 1) or state.is_finishing
        state, actions = step(state, now_s, figures)
        assert given_up == 0 or actions == ()
        for action in actions:
            if isinstance(action, Allow):
                assert action.downtime_ms >= allowed
                assert action.downtime_ms <= max(state.limit_ms, 1) or (
                    action.downtime_ms == FINISH_MS and state.is_finishing
                )
                allowed = action.downtime_ms
            else:
                given_up += 1
    assert given_up <= 1
