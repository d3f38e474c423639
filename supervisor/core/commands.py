"""What operators order: start, stop and restart a child."""

from __future__ import annotations

from supervisor.core.child import Child, ChildState
from supervisor.core.state import State


class UnknownChildError(LookupError):
    """A command names a child that the specification does not have."""


def start_child(state: State, name: str) -> None:
    """Start a child that is down, without waiting for a pause to be over."""
    _start(state, _named(state, name))


def stop_child(state: State, name: str) -> None:
    """Stop a child; it stays down until it is started by order."""
    child = _named(state, name)
    child.wanted = False
    if child.is_alive:
        state.to_stop.add(name)
    else:
        state.move(child, ChildState.STOPPED)


def restart_child(state: State, name: str) -> None:
    """Give a child a new process."""
    child = _named(state, name)
    if child.is_alive:
        child.wanted = True
        child.not_before_s = state.now_s
        state.to_stop.add(name)
    else:
        _start(state, child)


def _named(state: State, name: str) -> Child:
    child = state.children.get(name)
    if child is None or child.removed:
        raise UnknownChildError(name)
    return child


def _start(state: State, child: Child) -> None:
    child.wanted = True
    if child.state in (ChildState.STOPPED, ChildState.DEGRADED, ChildState.WAITING):
        child.failures = child.attempts = 0
        child.not_before_s = state.now_s
        child.window.clear()
        state.move(child, ChildState.WAITING)
