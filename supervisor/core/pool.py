"""Pools: any number of children of one kind, added by order (OTP's simple_one_for_one).

The specification's one child is the template. An instance is named after it and numbered; numbers
are never used twice. Instances know nothing of each other: they start side by side, are stopped
all at once within one shared time, and none is kept on the list when it is down for good.
"""

from __future__ import annotations

from protocol.dataclass import replace
from protocol.records import Plain
from supervisor.core.child import Child
from supervisor.core.commands import put_in, refuse_while_ending
from supervisor.core.errors import PoolError
from supervisor.core.spec import ChildSpec, SupervisorSpec
from supervisor.core.state import State


def next_instance_id(state: State) -> str:
    """What the next instance will be called."""
    return f"{state.spec.children[0].id}.{state.instances}"


def add_instance(state: State, settings: dict[str, Plain]) -> None:
    """Add a child to the pool and start it."""
    refuse_while_ending(state)
    if not state.is_pool:
        raise PoolError("this supervisor is no pool: a child needs a specification")
    spec = instance_spec(state.spec, next_instance_id(state), settings)
    put_in(state, Child(spec, is_added=True, extra=settings))
    state.instances += 1


def instance_spec(spec: SupervisorSpec, name: str, settings: dict[str, Plain]) -> ChildSpec:
    """The specification of one instance."""
    (template,) = spec.children
    return replace(template, id=name, settings={**template.settings, **settings}, depends_on=())
