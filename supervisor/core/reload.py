"""How another specification is taken over: the difference between it and the one before is applied.

Children that changed get a new process, new ones start, those left out stop, each in its place in
the order. What the difference does not name stays as it is: a child that was stopped by order
stays stopped, one that ended for good or was deleted stays away, one that was added by order
stays, last, as long as it fits.
"""

from __future__ import annotations

import contextlib

from protocol.dataclass import dataclass, replace
from supervisor.core import pool
from supervisor.core.actions import Changed, Update
from supervisor.core.child import Child, ChildState
from supervisor.core.commands import replace_process
from supervisor.core.spec import (
    ChildSpec,
    ChildType,
    RestartStrategy,
    SpecError,
    SupervisorSpec,
    validate,
    validate_child,
)
from supervisor.core.state import State


def reconfigure(state: State, spec: SupervisorSpec) -> None:
    """Take over a specification.

    Raises:
        SpecError: it is invalid, or makes a pool of what is none; nothing changed.
    """
    validate(spec)
    if state.is_ending:
        return  # whoever follows this supervisor begins with it
    if (spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE) != state.is_pool:
        raise SpecError("supervisor", "a pool stays one, and nothing else becomes one")
    if state.is_pool:
        _take_over_template(state, spec)
    else:
        _take_over_children(state, spec)
    state.keep_clocks()


def _take_over_template(state: State, spec: SupervisorSpec) -> None:
    state.spec = spec
    instances = list(state.children.values())
    changes = [
        _change(child, pool.instance_spec(spec, child.spec.id, child.extra)) for child in instances
    ]
    state.roster.arrange(instances)
    for change in changes:
        change.apply(state)


def _take_over_children(state: State, spec: SupervisorSpec) -> None:
    before = {child.id: child for child in state.spec.children}
    old, state.spec = state.children, spec
    order: list[Child] = []
    changes: list[_Change] = []
    for wanted in spec.children:
        child = old.get(wanted.id)
        if child is not None:
            child.is_added = False
            changes.append(_change(child, wanted))
        elif before.get(wanted.id) == wanted:
            continue  # it was in the specification before, and is gone for good
        else:
            child = Child(wanted, not_before_s=state.now_s)
            state.actions.append(Changed(wanted.id))
        order.append(child)
    order += _added(old, spec)
    staying = {child.spec.id for child in order}
    state.roster.arrange(_with_leaving(order, old, staying))
    for name, child in old.items():
        if name not in staying:
            _leave(state, child)
    for change in changes:
        change.apply(state)


@dataclass(frozen=True, slots=True)
class _Change:
    child: Child
    old: ChildSpec

    def apply(self, state: State) -> None:
        """Bring the child in line with the specification that it has now."""
        child, new = self.child, self.child.spec
        if child.removed and not state.is_pool:  # it was on its way out and is wanted again
            child.removed = False
            replace_process(state, child)
        elif self.old == new or not child.wanted:
            pass
        elif _is_same_process(self.old, new):
            if child.is_alive and new.children is not None:
                state.actions.append(Update(new.id, child.incarnation, new.children))
        elif child.is_alive:
            replace_process(state, child)
        else:
            child.failures = child.attempts = 0
            child.not_before_s = state.now_s
            state.move(child, ChildState.WAITING)


def _change(child: Child, new: ChildSpec) -> _Change:
    old, child.spec = child.spec, new
    return _Change(child, old)


def _is_same_process(old: ChildSpec, new: ChildSpec) -> bool:
    """Whether a nested supervisor can take over what changed without being replaced."""
    if new.type is not ChildType.SUPERVISOR or old.children is None or new.children is None:
        return False
    pool_kind = RestartStrategy.SIMPLE_ONE_FOR_ONE
    is_pool = (old.children.strategy is pool_kind, new.children.strategy is pool_kind)
    return replace(old, children=new.children) == new and is_pool[0] == is_pool[1]


def _added(old: dict[str, Child], spec: SupervisorSpec) -> list[Child]:
    """The children added by order that still fit, now that the specification is another one."""
    present = {child.id for child in spec.children}
    found = []
    for name, child in old.items():
        if child.is_added and name not in present:
            with contextlib.suppress(SpecError):
                validate_child(child.spec, spec, preceding=present)
                present.add(name)
                found.append(child)
    return found


def _leave(state: State, child: Child) -> None:
    if child.is_alive:
        child.removed, child.wanted = True, False
        state.roster.want_stop(child)
    else:
        state.forget(child)


def _with_leaving(order: list[Child], old: dict[str, Child], staying: set[str]) -> list[Child]:
    """The new order, with those that leave behind all whom they came after, to stop before them."""
    places = {child.spec.id: place for place, child in enumerate(order)}
    leaving: dict[int, list[Child]] = {}
    after = -1
    for name, child in old.items():
        if name in staying:
            after = max(after, places[name])
        else:
            leaving.setdefault(after, []).append(child)
    found = leaving.get(-1, [])
    for place, child in enumerate(order):
        found.append(child)
        found += leaving.get(place, ())
    return found
