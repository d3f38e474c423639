"""Random trees, and orders for them; everything comes from the generator that is handed in.

Times are multiples of 1/1024 s wherever possible: their sums are exact, so that the very edges of
deadlines and windows are hit and can be told apart.
"""

from __future__ import annotations

import dataclasses
from random import Random

from supervisor.core import events
from supervisor.core.events import Event
from supervisor.core.spec import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    ChildType,
    FailureClass,
    RestartIntensity,
    RestartStrategy,
    RestartType,
    SpecError,
    SupervisorSpec,
    validate,
)

_DEPTH_MAX = 2
_STRATEGIES = (
    RestartStrategy.ONE_FOR_ONE,
    RestartStrategy.ONE_FOR_ONE,
    RestartStrategy.ONE_FOR_ALL,
    RestartStrategy.REST_FOR_ONE,
    RestartStrategy.REST_FOR_ONE,
    RestartStrategy.SIMPLE_ONE_FOR_ONE,
)
_RESTARTS = (
    RestartType.PERMANENT,
    RestartType.PERMANENT,
    RestartType.PERMANENT,
    RestartType.TRANSIENT,
    RestartType.TEMPORARY,
)
_CLASSES = (
    FailureClass.CRITICAL,
    FailureClass.RECOVERABLE,
    FailureClass.RECOVERABLE,
    FailureClass.DEGRADED,
)
_POOL = RestartStrategy.SIMPLE_ONE_FOR_ONE


def random_tree(random: Random) -> SupervisorSpec:
    """A valid tree of up to three levels."""
    return _supervisor(random, 0)


def random_order(random: Random, spec: SupervisorSpec, present: list[str]) -> Event:
    """Something that an operator may order.

    Args:
        random: decides.
        spec: the supervisor's, for reloads.
        present: ids of its children; now and then another one is named.
    """
    name = random.choice([*present, *present, "n0", "nobody"])
    match random.randrange(12):
        case 0 | 1:
            return events.StartChild(name, is_strict=random.random() < 0.5)
        case 2 | 3:
            return events.StopChild(name)
        case 4 | 5:
            return events.RestartChild(name)
        case 6:
            return events.DeleteChild(name)
        case 7:
            return events.AddInstance({"number": random.randrange(100)})
        case 8 | 9:
            if spec.strategy is _POOL:
                return events.AddInstance({})
            return events.AddChild(_added(random, spec, present))
        case _:
            return events.Reconfigure(changed_tree(random, spec))


def changed_tree(random: Random, spec: SupervisorSpec) -> SupervisorSpec:
    """A valid specification that differs in some ways, or in none."""
    while True:
        changed = _changed(random, spec)
        try:
            validate(changed)
        except SpecError:
            continue
        return changed


def _supervisor(random: Random, depth: int) -> SupervisorSpec:
    while True:
        strategy = random.choice(_STRATEGIES)
        is_pool = strategy is _POOL
        auto = AutoShutdown.NEVER if is_pool else random.choice(tuple(AutoShutdown))
        count = 1 if is_pool else random.randrange(1 if depth else 2, 6)
        children: list[ChildSpec] = []
        for number in range(count):
            children.append(_child(random, depth, f"{'abc'[depth]}{number}", children, auto))
        if is_pool:
            children = [dataclasses.replace(children[0], depends_on=None)]
        spec = SupervisorSpec(
            strategy=strategy,
            intensity=_intensity(random),
            backoff=_backoff(random),
            auto_shutdown=auto,
            start_concurrency=random.choice((1, 2, 4)),
            children=tuple(children),
        )
        try:
            validate(spec)
        except SpecError:
            continue
        return spec


def _intensity(random: Random) -> RestartIntensity:
    period_s = random.choice((1.0, 2.0, 5.0, 10.0, 30.0))
    return RestartIntensity(intensity=random.choice((0, 1, 1, 2, 3, 5)), period_s=period_s)


def _backoff(random: Random) -> Backoff:
    return Backoff(
        initial_s=random.choice((0.0, 0.125, 0.5)),
        factor=random.choice((1.0, 2.0)),
        max_s=random.choice((0.5, 1.0, 2.0)),
        jitter=random.choice((0.0, 0.0, 0.25)),
        reset_s=random.choice((1.0, 4.0, 30.0)),
        degraded_initial_s=random.choice((1.0, 4.0)),
        degraded_max_s=random.choice((4.0, 8.0)),
    )


def _child(
    random: Random, depth: int, name: str, before: list[ChildSpec], auto: AutoShutdown
) -> ChildSpec:
    restart = random.choice(_RESTARTS)
    can_be_heard = auto is not AutoShutdown.NEVER and restart is not RestartType.PERMANENT
    depends_on: tuple[str, ...] | None = None
    if random.random() < 0.5:
        depends_on = tuple(child.id for child in before if random.random() < 0.4)
    common = ChildSpec(
        id=name,
        restart=restart,
        significant=can_be_heard and random.random() < 0.5,
        shutdown_s=random.choice((0.0, 0.25, 1.0, 1.0, 5.0, None)),
        start_timeout_s=random.choice((0.5, 2.0, 2.0, 10.0)),
        depends_on=depends_on,
        failure=random.choice(_CLASSES),
    )
    if depth < _DEPTH_MAX and random.random() < 0.2:
        inner = _supervisor(random, depth + 1)
        return dataclasses.replace(common, type=ChildType.SUPERVISOR, children=inner)
    return dataclasses.replace(common, start="package:Name")


def _added(random: Random, spec: SupervisorSpec, present: list[str]) -> ChildSpec:
    name = random.choice(["n0", "n1", "n2", *present])
    before = [child for child in spec.children if child.id != name]
    child = _child(random, _DEPTH_MAX, name, before, spec.auto_shutdown)
    if random.random() < 0.1:
        child = dataclasses.replace(child, depends_on=("nobody",))
    return child


def _changed(random: Random, spec: SupervisorSpec) -> SupervisorSpec:
    children = list(spec.children)
    is_pool = spec.strategy is _POOL
    for index, child in enumerate(children):
        roll = random.random()
        if roll < 0.2:
            settings = {"version": random.randrange(1000)}
            children[index] = dataclasses.replace(child, settings=settings)
        elif roll < 0.7 and child.children is not None:
            inner = _changed(random, child.children)
            children[index] = dataclasses.replace(child, children=inner)
    if not is_pool and children and random.random() < 0.4:
        del children[random.randrange(len(children))]
    if not is_pool and random.random() < 0.4:
        name = f"m{random.randrange(3)}"
        if all(child.id != name for child in children):
            at = random.randrange(len(children) + 1)
            children.insert(at, _child(random, _DEPTH_MAX, name, children[:at], spec.auto_shutdown))
    if random.random() < 0.1:
        random.shuffle(children)
    changed = dataclasses.replace(spec, children=tuple(children))
    if random.random() < 0.2:
        changed = dataclasses.replace(changed, intensity=_intensity(random))
    if not is_pool and random.random() < 0.15:
        changed = dataclasses.replace(changed, strategy=random.choice(_STRATEGIES))
    return changed
