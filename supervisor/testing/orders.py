"""What operators' orders imply for the children of one supervisor, and which must be refused.

Part of the model: told in the plainest way, without a line of the state machine's own code.
"""

from __future__ import annotations

import dataclasses

from supervisor.core import events
from supervisor.core.events import Event
from supervisor.core.spec import (
    AutoShutdown,
    ChildSpec,
    ChildType,
    RestartStrategy,
    RestartType,
    SupervisorSpec,
)
from supervisor.testing.model import Kid, Model, Ordered


def expected_refusal(model: Model, event: Event) -> str | None:
    """The name of the error that must refuse an event; None where it must be taken."""
    match event:
        case events.StartChild() | events.RestartChild() | events.DeleteChild():
            return _refusal_by_id(model, event)
        case events.StopChild():
            return "UnknownChildError" if _known(model, event.id) is None else None
        case events.AddChild():
            return _refusal_of_add(model, event.spec)
        case events.AddInstance():
            if model.ending is not None:
                return "SupervisorStoppingError"
            return None if model.is_pool else "PoolError"
        case events.Reconfigure():
            is_pool = event.spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE
            return "SpecError" if is_pool != model.is_pool and model.ending is None else None
        case _:
            return None


def take_order(model: Model, event: Event, now_s: float) -> None:
    """Bring the model in line with an order that was taken."""
    match event:
        case events.StartChild():
            _start(model.kids[event.id], now_s)
        case events.RestartChild():
            kid = model.kids[event.id]
            if kid.alive:
                _replace(kid, now_s)
            else:
                _start(kid, now_s)
        case events.StopChild():
            _stop(model, model.kids[event.id])
        case events.DeleteChild():
            del model.kids[event.id]
        case events.AddChild():
            _add(model, event.spec, now_s)
        case events.AddInstance():
            _add(model, _instance(model.spec, model.instances, event.settings), now_s)
            model.instances += 1
        case events.Reconfigure():
            if model.ending is None:
                _reconfigure(model, event.spec, now_s)
        case _:
            raise AssertionError(f"no rule for {event}")


def _known(model: Model, name: str) -> Kid | None:
    kid = model.kids.get(name)
    return None if kid is None or kid.removed else kid


def _refusal_by_id(
    model: Model, event: events.StartChild | events.RestartChild | events.DeleteChild
) -> str | None:
    if model.is_pool and event.id in model.kids:
        return "PoolError"
    kid = _known(model, event.id)
    if kid is None:
        return "UnknownChildError"
    if model.ending is not None:
        return "SupervisorStoppingError"
    is_delete = isinstance(event, events.DeleteChild)
    if is_delete or (isinstance(event, events.StartChild) and event.is_strict):
        if kid.alive:
            return "ChildRunningError"
        if kid.wanted:
            return "ChildRestartingError"
    is_needed = any(event.id in (other.spec.depends_on or ()) for other in model.kids.values())
    return "ChildNeededError" if is_delete and is_needed else None


def _refusal_of_add(model: Model, spec: ChildSpec) -> str | None:
    if model.ending is not None:
        return "SupervisorStoppingError"
    if model.is_pool:
        return "PoolError"
    if spec.id in model.kids:
        return "AlreadyStartedError" if model.kids[spec.id].alive else "AlreadyPresentError"
    return None if _fits(spec, model.spec, set(model.kids)) else "SpecError"


def _fits(spec: ChildSpec, within: SupervisorSpec, before: set[str]) -> bool:
    if not set(spec.depends_on or ()) <= before:
        return False
    hears = within.auto_shutdown is not AutoShutdown.NEVER
    return not spec.significant or (hears and spec.restart is not RestartType.PERMANENT)


def _start(kid: Kid, now_s: float) -> None:
    if not kid.wanted:
        kid.wanted, kid.finished, kid.ordered = True, False, Ordered.START
    if not kid.alive:
        kid.failures = kid.attempts = 0
        kid.earliest_s = kid.latest_s = now_s
        kid.window.counted_s.clear()


def _replace(kid: Kid, now_s: float) -> None:
    kid.wanted, kid.must_stop, kid.ordered = True, True, Ordered.RESTART
    kid.earliest_s = kid.latest_s = now_s


def _stop(model: Model, kid: Kid) -> None:
    kid.wanted, kid.finished, kid.ordered = False, False, Ordered.NOTHING
    kid.removed = model.is_pool
    if kid.alive:
        kid.must_stop = True
    elif model.is_pool or kid.is_temporary:
        del model.kids[kid.spec.id]


def _add(model: Model, spec: ChildSpec, now_s: float) -> None:
    model.kids[spec.id] = Kid(
        spec, is_added=True, ordered=Ordered.ADD, earliest_s=now_s, latest_s=now_s
    )


def _instance(spec: SupervisorSpec, number: int, settings: dict[str, object]) -> ChildSpec:
    (template,) = spec.children
    together = {**template.settings, **settings}
    return dataclasses.replace(
        template, id=f"{template.id}.{number}", settings=together, depends_on=()
    )


def _reconfigure(model: Model, spec: SupervisorSpec, now_s: float) -> None:
    before = {child.id: child for child in model.spec.children}
    old, model.spec = model.kids, spec
    if model.is_pool:
        for instance in list(old.values()):
            extra = {
                key: value
                for key, value in instance.spec.settings.items()
                if key not in before[next(iter(before))].settings
            }
            number = int(instance.spec.id.rpartition(".")[2])
            _change(model, instance, _instance(spec, number, extra), now_s)
        return
    kids: dict[str, Kid] = {}
    for wanted in spec.children:
        if (kid := old.get(wanted.id)) is not None:
            kid.is_added = False
            kids[wanted.id] = kid
            _change(model, kid, wanted, now_s)
        elif before.get(wanted.id) != wanted:
            kids[wanted.id] = Kid(wanted, earliest_s=now_s, latest_s=now_s)
    present = {child.id for child in spec.children}
    for name, kid in old.items():
        if name in kids:
            continue
        if kid.is_added and _fits(kid.spec, spec, present):
            present.add(name)
            kids[name] = kid
    for name, kid in old.items():
        if name not in kids and kid.alive:
            kid.removed, kid.wanted, kid.must_stop = True, False, True
            kids[name] = kid
    model.kids = kids


def _change(model: Model, kid: Kid, new: ChildSpec, now_s: float) -> None:
    old, kid.spec = kid.spec, new
    if kid.removed and not _is_instance(kid):
        kid.removed = False
        _replace(kid, now_s)
    elif old == new or not kid.wanted:
        return
    elif _is_taken_over(old, new):
        if kid.alive:
            model.told.append(("Update", new.id))
    elif kid.alive:
        _replace(kid, now_s)
    else:
        kid.failures = kid.attempts = 0
        kid.earliest_s = kid.latest_s = now_s


def _is_instance(kid: Kid) -> bool:
    return "." in kid.spec.id


def _is_taken_over(old: ChildSpec, new: ChildSpec) -> bool:
    """Whether a nested supervisor adopts the change itself."""
    if new.type is not ChildType.SUPERVISOR or old.children is None or new.children is None:
        return False
    pools = [
        spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE for spec in (old.children, new.children)
    ]
    return pools[0] == pools[1] and dataclasses.replace(old, children=new.children) == new
