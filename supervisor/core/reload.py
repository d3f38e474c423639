"""How another specification is taken over: only what differs is touched."""

from __future__ import annotations

import dataclasses

from supervisor.core.actions import Update
from supervisor.core.child import Child
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec, validate
from supervisor.core.state import State


def reconfigure(state: State, spec: SupervisorSpec) -> None:
    """Take over a specification.

    Raises:
        SpecError: it is invalid; nothing changed.
    """
    validate(spec)
    old, state.spec = state.children, spec
    state.children = {}
    for wanted in spec.children:
        child = old.pop(wanted.id, None)
        if child is None or child.removed:
            child = Child(wanted, not_before_s=state.now_s)
        elif child.spec != wanted:
            _respecify(state, child, wanted)
        state.children[wanted.id] = child
    for name, child in old.items():
        if child.is_alive:
            child.removed, child.wanted = True, False
            state.children[name] = child
            state.to_stop.add(name)


def _respecify(state: State, child: Child, wanted: ChildSpec) -> None:
    old, child.spec = child.spec, wanted
    is_same_process = dataclasses.replace(old, children=wanted.children) == wanted
    if wanted.type is ChildType.SUPERVISOR and is_same_process:
        if child.is_alive and wanted.children is not None:
            state.actions.append(Update(wanted.id, child.incarnation, wanted.children))
    elif child.is_alive:
        child.not_before_s = state.now_s
        state.to_stop.add(wanted.id)
