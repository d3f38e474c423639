"""What time and order bring: deadlines that pass, the next stop, the next start, the end."""

from __future__ import annotations

from supervisor.core.actions import Abort, AllUp, AskStop, Finish, Kill, Spawn
from supervisor.core.child import Child, ChildState
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.state import Mode, State

# A hung child gets this long to write its stacks before it is killed.
ABORT_GRACE_S = 0.5


def abort(state: State, child: Child) -> None:
    """A child's loop has stopped turning: make it say where, and kill it soon after."""
    if child.state is not ChildState.UP or child.doom is not None:
        return
    child.doom = ExitReason(
        kind=ExitKind.UNRESPONSIVE, detail="its loop stopped turning and it was killed"
    )
    child.deadline_s = state.now_s + ABORT_GRACE_S
    state.roster.schedule(child)
    state.actions.append(Abort(child.spec.id, child.incarnation))


def advance(state: State) -> None:
    """Do what is due, then what the order of stops and starts allows."""
    _pass_deadlines(state)
    if _stop_next(state):
        return
    if state.mode is Mode.STOPPING:
        assert state.final is not None
        state.mode = Mode.FINISHED
        state.actions.append(Finish(state.final))
    elif state.mode in (Mode.BOOTING, Mode.RUNNING):
        _start_next(state)
        if state.mode is Mode.BOOTING and state.roster.is_up():
            state.mode = Mode.RUNNING
            state.actions.append(AllUp())


def _pass_deadlines(state: State) -> None:
    for child in state.roster.take_due(state.now_s):
        if child.is_alive:
            _deadline_passed(state, child)
        elif child.state is ChildState.DEGRADED:
            state.move(child, ChildState.WAITING)


def _deadline_passed(state: State, child: Child) -> None:
    child.deadline_s = None
    if child.state is ChildState.STARTING and child.doom is None:
        child.doom = ExitReason(
            kind=ExitKind.START_FAILED,
            detail=f"not ready within {child.spec.start_timeout_s:g} s",
        )
    state.actions.append(Kill(child.spec.id, child.incarnation))


def _stop_next(state: State) -> bool:
    """Stop whoever is to go and is needed by nobody any more; True while there is somebody.

    By OTP's order that is one after another, the last first.
    """
    roster = state.roster
    if not roster.to_stop:
        return False
    if state.is_pool:  # nobody there needs anybody else
        while (child := roster.last_to_stop()) is not None:
            _ask_stop(state, child)
    elif not roster.is_in_order:
        for child in roster.free_to_stop():
            _ask_stop(state, child)
    elif not roster.stopping:
        last = roster.last_to_stop()
        assert last is not None
        _ask_stop(state, last)
    return True


def _ask_stop(state: State, child: Child) -> None:
    timeout_s = child.spec.shutdown_s
    state.move(child, ChildState.STOPPING)
    if timeout_s == 0:
        child.deadline_s = None
        state.actions.append(Kill(child.spec.id, child.incarnation))
        return
    due = [] if timeout_s is None else [state.now_s + timeout_s]
    if child.doom is not None and child.deadline_s is not None:
        due.append(child.deadline_s)  # it hangs and is about to be killed anyway
    child.deadline_s = min(due, default=None)
    state.roster.schedule(child)
    state.actions.append(AskStop(child.spec.id, child.incarnation))


def _start_next(state: State) -> None:
    for child, all_preceding_settled in state.roster.pending():
        if state.roster.starting >= state.spec.start_concurrency:
            return
        if (
            child.state is ChildState.WAITING
            and child.not_before_s <= state.now_s
            and _may_start(state, child, all_preceding_settled=all_preceding_settled)
        ):
            _spawn(state, child)


def _may_start(state: State, child: Child, *, all_preceding_settled: bool) -> bool:
    if child.spec.depends_on is None:
        return all_preceding_settled
    # One that is off the list for good keeps nobody waiting.
    needed = (state.children.get(name) for name in child.spec.depends_on)
    return all(other is None or other.is_settled for other in needed)


def _spawn(state: State, child: Child) -> None:
    child.restarts += child.incarnation > child.base
    child.incarnation += 1
    child.started_s = state.now_s
    child.deadline_s = state.now_s + child.spec.start_timeout_s
    state.move(child, ChildState.STARTING)
    state.roster.schedule(child)
    state.actions.append(Spawn(child.spec, child.incarnation))
