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
        if state.mode is Mode.BOOTING and _is_up(state):
            state.mode = Mode.RUNNING
            state.actions.append(AllUp())


def due_s(state: State) -> float | None:
    """When time alone changes something; None when only an event can."""
    due = [
        at
        for child in state.children.values()
        # A pause that is over waits for a dependency or a slot, which no Tick can bring.
        if (at := child.due_s) is not None and (child.is_alive or at > state.now_s)
    ]
    return min(due, default=None)


def _pass_deadlines(state: State) -> None:
    for child in state.children.values():
        if child.deadline_s is not None and child.deadline_s <= state.now_s:
            _deadline_passed(state, child)
        elif child.state is ChildState.DEGRADED and child.not_before_s <= state.now_s:
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
    """Stop the last child that is to go; True while there is one."""
    for child in reversed(state.children.values()):
        if not child.is_alive:
            continue
        if state.mode is not Mode.STOPPING and child.spec.id not in state.to_stop:
            continue
        if child.state is not ChildState.STOPPING:
            _ask_stop(state, child)
        return True
    return False


def _ask_stop(state: State, child: Child) -> None:
    timeout_s = child.spec.shutdown_s
    child.doom = None
    state.move(child, ChildState.STOPPING)
    if timeout_s == 0:
        child.deadline_s = None
        state.actions.append(Kill(child.spec.id, child.incarnation))
    else:
        child.deadline_s = None if timeout_s is None else state.now_s + timeout_s
        state.actions.append(AskStop(child.spec.id, child.incarnation))


def _start_next(state: State) -> None:
    starting = sum(child.state is ChildState.STARTING for child in state.children.values())
    all_settled = True
    for child in state.children.values():
        if starting >= state.spec.start_concurrency:
            return
        if (
            child.state is ChildState.WAITING
            and child.wanted
            and child.not_before_s <= state.now_s
            and _may_start(state, child, all_preceding_settled=all_settled)
        ):
            _spawn(state, child)
            starting += 1
        all_settled = all_settled and (child.is_settled or not child.wanted)


def _may_start(state: State, child: Child, *, all_preceding_settled: bool) -> bool:
    if child.spec.depends_on is None:
        return all_preceding_settled
    return all(state.children[name].is_settled for name in child.spec.depends_on)


def _spawn(state: State, child: Child) -> None:
    child.restarts += child.incarnation > 0
    child.incarnation += 1
    child.started_s = state.now_s
    child.deadline_s = state.now_s + child.spec.start_timeout_s
    state.move(child, ChildState.STARTING)
    state.actions.append(Spawn(child.spec, child.incarnation))


def _is_up(state: State) -> bool:
    return all(child.is_settled or not child.wanted for child in state.children.values())
