"""Which siblings share the fate of an ended child.

rest_for_one means those that were started after it, because they may depend on it. Where children
declare what they depend on, it means exactly those that do, however indirectly. The death of a
degraded child touches nobody: its dependents are written to work without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from supervisor.core.spec import ChildSpec, FailureClass, RestartStrategy


def affected(
    strategy: RestartStrategy, children: Sequence[ChildSpec], ended_id: str
) -> frozenset[str]:
    """Ids of the children to restart, the ended one included."""
    ended = next(child for child in children if child.id == ended_id)
    if ended.failure is FailureClass.DEGRADED:
        return frozenset((ended_id,))
    match strategy:
        case RestartStrategy.ONE_FOR_ONE | RestartStrategy.SIMPLE_ONE_FOR_ONE:
            return frozenset((ended_id,))
        case RestartStrategy.ONE_FOR_ALL:
            return frozenset(child.id for child in children)
        case RestartStrategy.REST_FOR_ONE:
            return dependents(children, ended_id)
        case _:
            assert_never(strategy)


def dependents(children: Sequence[ChildSpec], id: str) -> frozenset[str]:  # noqa: A002 - OTP's word
    """The child and every later sibling that depends on it, directly or not."""
    found = {id}
    seen = False
    for child in children:
        if child.id == id:
            seen = True
        elif seen and (child.depends_on is None or not found.isdisjoint(child.depends_on)):
            found.add(child.id)
    return frozenset(found)
