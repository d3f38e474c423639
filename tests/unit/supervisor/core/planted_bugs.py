"""Faults to plant in the supervisor's state machine, each as small as a slip of the pen.

A bug is a function that puts its fault in place; ``monkeypatch`` takes it out again.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable

import pytest

from supervisor.core import advance, ends, strategy
from supervisor.core.child import Child, ChildState, Order
from supervisor.core.intensity import RestartWindow
from supervisor.core.reason import ExitReason
from supervisor.core.roster import Roster
from supervisor.core.spec import FailureClass, RestartIntensity
from supervisor.core.state import Mode, State
from supervisor.core.supervisor import Supervisor

Patch = pytest.MonkeyPatch


def intensity_off_by_one(patch: Patch) -> None:
    """One restart too many is allowed."""
    add = RestartWindow.add

    def generous(window: RestartWindow, now_s: float, limit: RestartIntensity) -> bool:
        more = RestartIntensity(intensity=limit.intensity + 1, period_s=limit.period_s)
        return add(window, now_s, more)

    patch.setattr(RestartWindow, "add", generous)


def intensity_edge_exclusive(patch: Patch) -> None:
    """A restart exactly one period old no longer counts."""
    add = RestartWindow.add

    def shorter(window: RestartWindow, now_s: float, limit: RestartIntensity) -> bool:
        period_s = limit.period_s - 1e-6
        return add(window, now_s, RestartIntensity(intensity=limit.intensity, period_s=period_s))

    patch.setattr(RestartWindow, "add", shorter)


def window_never_pruned(patch: Patch) -> None:
    """Restarts count for ever."""
    add = RestartWindow.add

    def unforgiving(window: RestartWindow, now_s: float, limit: RestartIntensity) -> bool:
        return add(window, now_s, RestartIntensity(intensity=limit.intensity, period_s=1e9))

    patch.setattr(RestartWindow, "add", unforgiving)


def window_clock_runs_on(patch: Patch) -> None:
    """A child that is slow to start outlives the limit."""
    patch.setattr(RestartWindow, "hold", lambda _window, _now_s: None)


def stops_in_start_order(patch: Patch) -> None:
    """The first is stopped first."""

    def want_stop(roster: Roster, child: Child) -> None:
        if child.spec.id not in roster.to_stop:
            roster.to_stop.add(child.spec.id)
            heapq.heappush(roster._stops, (child.index, child.spec.id))

    patch.setattr(Roster, "want_stop", want_stop)


def stops_overlap(patch: Patch) -> None:
    """The next one is asked before the one before has ended."""

    def stop_next(state: State) -> bool:
        if (child := state.roster.last_to_stop()) is not None:
            advance._ask_stop(state, child)
        return bool(state.roster.to_stop)

    patch.setattr(advance, "_stop_next", stop_next)


def starts_do_not_wait_for_stops(patch: Patch) -> None:
    """A start begins while others are still to stop."""
    stop_next = advance._stop_next

    def impatient(state: State) -> bool:
        return stop_next(state) and state.is_ending

    patch.setattr(advance, "_stop_next", impatient)


def sibling_lost(patch: Patch) -> None:
    """The last of a group keeps the process that it should have lost."""
    affected = strategy.affected

    def fewer(*args: object) -> frozenset[str]:
        group = affected(*args)  # type: ignore[arg-type]  # handed on as they came
        return group - {max(group)} if len(group) > 1 else group

    patch.setattr(strategy, "affected", fewer)


def sibling_not_started_again(patch: Patch) -> None:
    """A bystander of a group restart stays down."""
    settle = ends._settle_stopped

    def forgetful(state: State, child: Child) -> None:
        if child.order is Order.NONE and not child.removed:
            child.wanted = False
        settle(state, child)

    patch.setattr(ends, "_settle_stopped", forgetful)


def temporary_restarted(patch: Patch) -> None:
    """A temporary bystander comes back with its group."""

    def settle(state: State, child: Child) -> None:
        if child.removed:
            state.forget(child)
        elif child.wanted and not state.is_ending:
            state.move(child, ChildState.WAITING)
        else:
            state.move(child, ChildState.STOPPED)

    patch.setattr(ends, "_settle_stopped", settle)


def group_counted_twice(patch: Patch) -> None:
    """Each sibling of a group restart counts as a restart of its own."""
    stop_group = ends._stop_group

    def count(state: State, child: Child) -> None:
        before = len(state.roster.to_stop)
        stop_group(state, child)
        for _ in range(len(state.roster.to_stop) - before):
            state.window.add(state.now_s, state.spec.intensity)

    patch.setattr(ends, "_stop_group", count)


def doom_ignored(patch: Patch) -> None:
    """What a child that was killed says of its end is believed."""
    understood = ends._understood

    def naive(child: Child, reason: ExitReason, *, is_to_stop: bool) -> ExitReason:
        child.doom = None
        return understood(child, reason, is_to_stop=is_to_stop)

    patch.setattr(ends, "_understood", naive)


def dependency_not_awaited(patch: Patch) -> None:
    """A child starts as soon as what it depends on has a process."""

    def may_start(state: State, child: Child, *, all_preceding_settled: bool) -> bool:
        if child.spec.depends_on is None:
            return all_preceding_settled
        needed = (state.children.get(name) for name in child.spec.depends_on)
        return all(other is None or other.is_alive or other.is_settled for other in needed)

    patch.setattr(advance, "_may_start", may_start)


def operator_stop_forgotten(patch: Patch) -> None:
    """A group restart brings back who was stopped by order, as OTP's does."""
    stop_group = ends._stop_group

    def revive(state: State, child: Child) -> None:
        stop_group(state, child)
        for other in state.children.values():
            if other.state is ChildState.STOPPED:
                other.wanted = True
                state.move(other, ChildState.WAITING)

    patch.setattr(ends, "_stop_group", revive)


def backoff_never_reset(patch: Patch) -> None:
    """However long a child was up, its pauses go on growing."""
    take_exit = ends.take_exit

    def forget_uptime(state: State, child: Child, reason: ExitReason) -> None:
        child.up_s = None
        take_exit(state, child, reason)

    patch.setattr(ends, "take_exit", forget_uptime)


def retries_back_to_back(patch: Patch) -> None:
    """Failed starts are tried again without a pause."""

    def pause(state: State, child: Child) -> None:
        child.failures += 1
        child.not_before_s = state.now_s
        state.move(child, ChildState.WAITING)

    patch.setattr(ends, "_pause", pause)


def deaths_in_order_of_arrival(patch: Patch) -> None:
    """Of deaths found together the first one seen is dealt with first."""
    patch.setattr(Supervisor, "_place", lambda _machine, _exited: 0)


def incarnations_begin_again(patch: Patch) -> None:
    """A child added under an old name counts from one."""
    patch.setattr(Roster, "_begin", lambda _roster, _child: None)


def late_words_believed(patch: Patch) -> None:
    """An end of an earlier process is taken for one of the present one."""

    def living(machine: Supervisor, name: str, _incarnation: int) -> Child | None:
        child = machine.children.get(name)
        return child if child is not None and child.is_alive else None

    patch.setattr(Supervisor, "_living", living)


def last_significant_ignored(patch: Patch) -> None:
    """The supervisor goes on though its significant children have ended."""
    patch.setattr(ends, "_end_with_significant", lambda _state, _child, _reason: None)


def degraded_takes_siblings_along(patch: Patch) -> None:
    """The death of a degraded child restarts its group."""
    affected, retry = strategy.affected, ends._retry_degraded

    def retry_all(state: State, child: Child, reason: ExitReason) -> None:
        retry(state, child, reason)
        specs = [
            dataclasses.replace(other.spec, failure=FailureClass.RECOVERABLE)
            for other in state.children.values()
        ]
        for name in affected(state.spec.strategy, specs, child.spec.id):
            if state.children[name].is_alive:
                state.roster.want_stop(state.children[name])

    patch.setattr(ends, "_retry_degraded", retry_all)


def order_counted(patch: Patch) -> None:
    """A restart by order that fails counts as a failure."""
    restart = ends._restart

    def strict(state: State, child: Child, reason: ExitReason) -> None:
        child.order = Order.NONE
        restart(state, child, reason)

    patch.setattr(ends, "_restart", strict)


def stop_deadline_forgotten(patch: Patch) -> None:
    """Nobody wakes up to kill a child that is deaf."""
    ask_stop = advance._ask_stop

    def trusting(state: State, child: Child) -> None:
        ask_stop(state, child)
        child.deadline_s = None

    patch.setattr(advance, "_ask_stop", trusting)


def slots_ignored(patch: Patch) -> None:
    """One start too many at a time."""

    def start_next(state: State) -> None:
        for child, is_turn in state.roster.pending():
            if state.roster.starting > state.spec.start_concurrency:
                return
            if (
                child.state is ChildState.WAITING
                and child.not_before_s <= state.now_s
                and advance._may_start(state, child, all_preceding_settled=is_turn)
            ):
                advance._spawn(state, child)

    patch.setattr(advance, "_start_next", start_next)


def finish_with_children_alive(patch: Patch) -> None:
    """The supervisor ends while its last child is still stopping."""
    stop_next = advance._stop_next

    def hasty(state: State) -> bool:
        is_stopping = stop_next(state)
        return is_stopping and not (state.mode is Mode.STOPPING and len(state.roster.to_stop) == 1)

    patch.setattr(advance, "_stop_next", hasty)


def pool_stops_one_by_one(patch: Patch) -> None:
    """The instances of a pool are stopped one after another."""

    def stop_next(state: State) -> bool:
        if not state.roster.to_stop:
            return False
        if not state.roster.stopping and (child := state.roster.last_to_stop()) is not None:
            advance._ask_stop(state, child)
        return True

    patch.setattr(advance, "_stop_next", stop_next)


BUGS: tuple[Callable[[Patch], None], ...] = (
    intensity_off_by_one,
    intensity_edge_exclusive,
    window_never_pruned,
    window_clock_runs_on,
    stops_in_start_order,
    stops_overlap,
    starts_do_not_wait_for_stops,
    sibling_lost,
    sibling_not_started_again,
    temporary_restarted,
    group_counted_twice,
    doom_ignored,
    dependency_not_awaited,
    operator_stop_forgotten,
    backoff_never_reset,
    retries_back_to_back,
    deaths_in_order_of_arrival,
    incarnations_begin_again,
    late_words_believed,
    last_significant_ignored,
    degraded_takes_siblings_along,
    order_counted,
    stop_deadline_forgotten,
    slots_ignored,
    finish_with_children_alive,
    pool_stops_one_by_one,
)
