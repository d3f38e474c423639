"""What the end of a child's process leads to: let it be, start it again, or give up.

An end is one of four things, told apart in ``take_exit``:

    a stop      the child was to end; neither counted nor repaired
    a failed    start by order: an added child is discarded, a started one stays stopped; a
                restarted one is tried again; none counts
    final       declined, finished, temporary, critical, or at boot: nothing starts it again
    a failure   counted against the intensity, repaired by the strategy
"""

from __future__ import annotations

from protocol.dataclass import replace
from supervisor.core import backoff, strategy
from supervisor.core.actions import Discarded
from supervisor.core.child import Child, ChildState, Order
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import AutoShutdown, FailureClass, RestartStrategy, RestartType
from supervisor.core.state import Mode, State, blame


def take_exit(state: State, child: Child, reason: ExitReason) -> None:
    """A process of the child is gone."""
    was, is_to_stop = child.state, child.spec.id in state.roster.to_stop
    if child.up_s is not None and state.now_s - child.up_s >= state.spec.backoff.reset_s:
        child.failures = child.attempts = 0
    reason = _understood(child, reason, is_to_stop=is_to_stop)
    child.pid = child.up_s = child.deadline_s = child.doom = None
    child.last_exit = reason
    state.roster.to_stop.discard(child.spec.id)
    is_critical = reason.kind is ExitKind.CRITICAL and not _is_degradable(child)
    is_by_order = was is ChildState.STARTING and child.order in (Order.ADD, Order.START)
    if is_by_order and not is_to_stop:
        _settle_failed_order(state, child, reason)
    elif is_critical and child.wanted:
        state.move(child, ChildState.STOPPED)
        state.finish(blame(child, reason))
    elif is_to_stop:
        _settle_stopped(state, child)
    else:
        _ended(state, child, reason, is_starting=was is ChildState.STARTING)


def _understood(child: Child, reason: ExitReason, *, is_to_stop: bool) -> ExitReason:
    """The reason in view of what the process was doing, and of what we did to it."""
    kind = reason.kind
    if child.doom is not None:
        return child.doom
    if child.state is ChildState.STOPPING or (is_to_stop and kind is not ExitKind.CRITICAL):
        kind = ExitKind.SHUTDOWN
    elif child.state is ChildState.STARTING and kind in (ExitKind.NORMAL, ExitKind.CRASHED):
        kind = ExitKind.START_FAILED
    elif child.state is ChildState.UP and kind is ExitKind.DECLINED:
        kind = ExitKind.CRASHED  # too late to decline
    return reason if kind is reason.kind else replace(reason, kind=kind)


def _settle_stopped(state: State, child: Child) -> None:
    """A child that ended because we wanted it to: what follows depends on why we did."""
    is_coming_back = child.order in (Order.START, Order.RESTART)
    is_gone = child.spec.restart is RestartType.TEMPORARY and not is_coming_back
    if child.removed or (is_gone and not state.is_ending):
        state.forget(child)
    elif child.wanted and not state.is_ending:
        state.move(child, ChildState.WAITING)
        state.roster.schedule(child)
    else:
        state.move(child, ChildState.STOPPED)


def _settle_failed_order(state: State, child: Child, reason: ExitReason) -> None:
    if reason.kind is ExitKind.DECLINED:
        _let_be(state, child)
    elif child.order is Order.ADD:
        state.actions.append(Discarded(child.spec.id, reason))
        state.forget(child)
    else:
        child.wanted, child.order = False, Order.NONE
        _list_stopped(state, child)


def _ended(state: State, child: Child, reason: ExitReason, *, is_starting: bool) -> None:
    """A child that ended by itself: give up, let it be, or start it again."""
    restart = child.spec.restart
    is_first_start = is_starting and state.mode is Mode.BOOTING and child.restarts == 0
    if reason.kind is ExitKind.DECLINED:
        _let_be(state, child)
    elif is_first_start and not _is_degradable(child):
        state.move(child, ChildState.STOPPED)
        kind = ExitKind.START_FAILED
        state.finish(blame(child, replace(reason, kind=kind)))
    elif restart is RestartType.TEMPORARY or (
        restart is RestartType.TRANSIENT and not reason.is_abnormal
    ):
        _let_be(state, child)
        _end_with_significant(state, child, reason)
    elif _is_degradable(child):
        _retry_degraded(state, child, reason)
    else:
        _restart(state, child, reason)


def _let_be(state: State, child: Child) -> None:
    child.wanted, child.finished, child.order = False, True, Order.NONE
    _list_stopped(state, child)


def _list_stopped(state: State, child: Child) -> None:
    """The child is down for good; a temporary one or a pool's is no child any more."""
    if child.spec.restart is RestartType.TEMPORARY or state.is_pool:
        state.forget(child)
    else:
        state.move(child, ChildState.STOPPED)


def _end_with_significant(state: State, child: Child, reason: ExitReason) -> None:
    """Auto-shutdown: the end of a significant child may be the end of the supervisor."""
    if not child.spec.significant:
        return
    if state.spec.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT and any(
        other.spec.significant and other.wanted for other in state.children.values()
    ):
        return
    sentence = f"its significant child {child.spec.id} ended; {reason}"
    state.finish(ExitReason(kind=ExitKind.SHUTDOWN, detail=sentence))


def _restart(state: State, child: Child, reason: ExitReason) -> None:
    is_counted = child.order is not Order.RESTART and state.counts(reason)
    child.order = Order.NONE
    if is_counted and not state.window.add(state.now_s, state.spec.intensity):
        state.move(child, ChildState.STOPPED)
        limit = state.spec.intensity
        sentence = f"more than {limit.intensity} restarts in {limit.period_s:g} s; {reason}"
        state.finish(blame(child, ExitReason(kind=ExitKind.ESCALATED, detail=sentence)))
        return
    _pause(state, child)
    if state.spec.strategy not in (
        RestartStrategy.ONE_FOR_ONE,
        RestartStrategy.SIMPLE_ONE_FOR_ONE,
    ):
        _stop_group(state, child)


def _stop_group(state: State, child: Child) -> None:
    specs = [other.spec for other in state.children.values()]
    for name in strategy.affected(state.spec.strategy, specs, child.spec.id):
        other = state.children[name]
        if other.is_alive:
            if other.order is not Order.ADD:
                other.order = Order.NONE
            state.roster.want_stop(other)


def _retry_degraded(state: State, child: Child, reason: ExitReason) -> None:
    child.order = Order.NONE
    is_within = child.window.add(state.now_s, state.spec.intensity)
    if is_within and reason.kind is not ExitKind.CRITICAL:
        _pause(state, child)
        return
    child.failures += 1
    child.attempts += 1
    child.window.clear()
    child.not_before_s = state.now_s + backoff.degraded_pause_s(
        state.spec.backoff, attempts=child.attempts, draw=state.draw()
    )
    state.move(child, ChildState.DEGRADED)
    state.roster.schedule(child)


def _pause(state: State, child: Child) -> None:
    child.failures += 1
    child.not_before_s = state.now_s + backoff.restart_pause_s(
        state.spec.backoff, failures=child.failures, draw=state.draw()
    )
    state.move(child, ChildState.WAITING)
    state.roster.schedule(child)


def _is_degradable(child: Child) -> bool:
    return child.spec.failure is FailureClass.DEGRADED
