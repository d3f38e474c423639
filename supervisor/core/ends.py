"""What the end of a child's process leads to: let it be, start it again, or give up."""

from __future__ import annotations

import dataclasses

from supervisor.core import backoff, strategy
from supervisor.core.child import Child, ChildState
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import FailureClass, RestartType
from supervisor.core.state import Mode, State, blame


def take_exit(state: State, child: Child, reason: ExitReason) -> None:
    """A process of the child is gone."""
    was, lifetime_s = child.state, state.now_s - (child.up_s or state.now_s)
    reason = child.doom or reason
    if was is ChildState.STARTING and reason.kind in (ExitKind.NORMAL, ExitKind.CRASHED):
        reason = dataclasses.replace(reason, kind=ExitKind.START_FAILED)
    elif was is ChildState.STOPPING and child.doom is None:
        reason = dataclasses.replace(reason, kind=ExitKind.SHUTDOWN)
    child.pid = child.up_s = child.deadline_s = child.doom = None
    child.last_exit = reason
    state.to_stop.discard(child.spec.id)
    if was is ChildState.STOPPING:
        _settle_stopped(state, child)
    elif state.mode is Mode.STOPPING:
        state.move(child, ChildState.STOPPED)
    else:
        if lifetime_s >= state.spec.backoff.reset_s:
            child.failures = child.attempts = 0
        _ended(state, child, reason, is_starting=was is ChildState.STARTING)


def _settle_stopped(state: State, child: Child) -> None:
    """A child that ended because we wanted it to: what follows depends on why we did."""
    if child.removed or child.spec.restart is RestartType.TEMPORARY:
        state.forget(child)
    elif child.wanted and state.mode is not Mode.STOPPING:
        state.move(child, ChildState.WAITING)
    else:
        state.move(child, ChildState.STOPPED)


def _ended(state: State, child: Child, reason: ExitReason, *, is_starting: bool) -> None:
    """A child that ended by itself: give up, let it be, or start it again."""
    spec = child.spec
    is_degradable = spec.failure is FailureClass.DEGRADED
    if reason.kind is ExitKind.CRITICAL and not is_degradable:
        state.move(child, ChildState.STOPPED)
        state.finish(blame(child, reason))
    elif reason.kind is ExitKind.DECLINED:
        _let_be(state, child)
    elif is_starting and state.mode is Mode.BOOTING and not is_degradable:
        state.move(child, ChildState.STOPPED)
        kind = ExitKind.START_FAILED
        state.finish(blame(child, dataclasses.replace(reason, kind=kind)))
    elif spec.restart is RestartType.TEMPORARY:
        state.forget(child)
    elif spec.restart is RestartType.TRANSIENT and not reason.is_abnormal:
        _let_be(state, child)
    elif is_degradable:
        _retry_degraded(state, child, reason)
    else:
        _restart(state, child, reason)


def _let_be(state: State, child: Child) -> None:
    child.wanted = False
    state.move(child, ChildState.STOPPED)


def _restart(state: State, child: Child, reason: ExitReason) -> None:
    if not state.window.add(state.now_s, state.spec.intensity):
        state.move(child, ChildState.STOPPED)
        limit = state.spec.intensity
        sentence = f"more than {limit.intensity} restarts in {limit.period_s:g} s; {reason}"
        state.finish(blame(child, ExitReason(kind=ExitKind.ESCALATED, detail=sentence)))
        return
    _pause(state, child)
    group = strategy.affected(state.spec.strategy, state.child_specs(), child.spec.id)
    state.to_stop.update(name for name in group if state.children[name].is_alive)


def _retry_degraded(state: State, child: Child, reason: ExitReason) -> None:
    is_within = child.window.add(state.now_s, state.spec.intensity)
    if is_within and reason.kind is not ExitKind.CRITICAL:
        _pause(state, child)
        return
    child.failures += 1
    child.attempts += 1
    child.window.clear()
    child.not_before_s = state.now_s + backoff.degraded_pause_s(
        state.spec.backoff, attempts=child.attempts, draw=state.draw
    )
    state.move(child, ChildState.DEGRADED)


def _pause(state: State, child: Child) -> None:
    child.failures += 1
    child.not_before_s = state.now_s + backoff.restart_pause_s(
        state.spec.backoff, failures=child.failures, draw=state.draw
    )
    state.move(child, ChildState.WAITING)
