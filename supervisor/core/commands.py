"""What operators order: start, stop, restart, add and delete a child.

None of it counts against an intensity, and what is refused has changed nothing.
"""

from __future__ import annotations

from supervisor.core.actions import Changed
from supervisor.core.child import Child, ChildState, Order
from supervisor.core.errors import (
    AlreadyPresentError,
    AlreadyStartedError,
    ChildNeededError,
    ChildRestartingError,
    ChildRunningError,
    PoolError,
    SupervisorStoppingError,
    TooManyChildrenError,
    UnknownChildError,
)
from supervisor.core.spec import CHILDREN_MAX, ChildSpec, RestartType, validate_child
from supervisor.core.state import State


def start_child(state: State, name: str, *, is_strict: bool) -> None:
    """Start a child that is down, without waiting for a pause to be over."""
    refuse_pool(state, name)
    child = named(state, name)
    refuse_while_ending(state)
    if is_strict:
        _refuse_unless_stopped(child)
    _start(state, child)


def stop_child(state: State, name: str) -> None:
    """Stop a child; it stays down until it is started by order.

    A temporary child and one of a pool are forgotten with it, as in OTP.
    """
    child = named(state, name)
    child.wanted, child.finished, child.order = False, False, Order.NONE
    child.removed = state.is_pool
    if child.is_alive:
        state.roster.want_stop(child)
    elif state.is_pool or child.spec.restart is RestartType.TEMPORARY:
        state.forget(child)
    else:
        state.move(child, ChildState.STOPPED)


def restart_child(state: State, name: str) -> None:
    """Give a child a new process."""
    refuse_pool(state, name)
    child = named(state, name)
    refuse_while_ending(state)
    if child.is_alive:
        replace_process(state, child)
    else:
        _start(state, child)


def add_child(state: State, spec: ChildSpec) -> None:
    """Add a child, last in order, and start it."""
    refuse_while_ending(state)
    if state.is_pool:
        raise PoolError("the children of a pool are made from its template")
    if (present := state.children.get(spec.id)) is not None:
        if present.is_alive:
            raise AlreadyStartedError(f"{spec.id} runs already", pid=present.pid)
        raise AlreadyPresentError(f"there is a child {spec.id}, which is {present.state.value}")
    validate_child(spec, state.spec, preceding=state.children)
    put_in(state, Child(spec, is_added=True))


def delete_child(state: State, name: str) -> None:
    """Take a child that is down off the list."""
    refuse_pool(state, name)
    child = named(state, name)
    refuse_while_ending(state)
    _refuse_unless_stopped(child)
    for other in state.children.values():
        if name in (other.spec.depends_on or ()):
            raise ChildNeededError(f"{other.spec.id} depends on {name}", needed_by=other.spec.id)
    state.forget(child)


def named(state: State, name: str) -> Child:
    """The child of that id.

    Raises:
        UnknownChildError: there is none, or it is on its way out.
    """
    child = state.children.get(name)
    if child is None or child.removed:
        raise UnknownChildError(f"there is no child {name!r}")
    return child


def replace_process(state: State, child: Child) -> None:
    """End the process of a child that is alive; another one follows at once."""
    child.wanted, child.order, child.not_before_s = True, Order.RESTART, state.now_s
    state.roster.want_stop(child)


def put_in(state: State, child: Child) -> None:
    """Add a new child by order."""
    if len(state.children) >= CHILDREN_MAX:
        raise TooManyChildrenError(f"there are {len(state.children)} children already")
    child.order, child.not_before_s = Order.ADD, state.now_s
    state.roster.add(child)
    state.actions.append(Changed(child.spec.id))


def refuse_while_ending(state: State) -> None:
    """Refuse a command to a supervisor that is about to end.

    Raises:
        SupervisorStoppingError: it is.
    """
    if state.is_ending:
        raise SupervisorStoppingError("the supervisor is stopping")


def refuse_pool(state: State, name: str) -> None:
    """Refuse a command that addresses an instance of a pool as if it had a specification.

    Raises:
        PoolError: it does.
    """
    if state.is_pool and name in state.children:
        raise PoolError(f"{name} is an instance of a pool: it can be added and stopped")


def _refuse_unless_stopped(child: Child) -> None:
    if child.is_alive:
        raise ChildRunningError(f"{child.spec.id} is {child.state.value}", pid=child.pid)
    if child.wanted:
        raise ChildRestartingError(f"{child.spec.id} is about to be started")


def _start(state: State, child: Child) -> None:
    if not child.wanted:
        child.wanted, child.finished, child.order = True, False, Order.START
    if not child.is_alive:
        child.failures = child.attempts = 0
        child.not_before_s = state.now_s
        child.window.clear()
        state.move(child, ChildState.WAITING)
