"""What a supervisor answers about its children, in OTP's terms.

OTP's listing knows three states: a pid, restarting, not running. It waits while a child starts;
we answer at once, and therefore have a fourth.
"""

from __future__ import annotations

import enum

from protocol.dataclass import dataclass
from supervisor.core.child import Child, ChildState
from supervisor.core.spec import ChildType, RestartType
from supervisor.core.state import State


class Presence(enum.Enum):
    """Whether a child runs."""

    RUNNING = "running"
    STARTING = "starting"
    RESTARTING = "restarting"
    NOT_RUNNING = "not_running"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildInfo:
    """One line of which_children.

    Attributes:
        id: the child's.
        presence: see Presence.
        pid: of its process, while there is one.
        type: what kind of process it is.
        restart: its restart type.
    """

    id: str
    presence: Presence
    pid: int | None
    type: ChildType
    restart: RestartType


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCounts:
    """The answer of count_children: specs = supervisors + workers, and active of them run."""

    specs: int
    active: int
    supervisors: int
    workers: int


def which_children(state: State) -> tuple[ChildInfo, ...]:
    """The children in start order."""
    return tuple(
        ChildInfo(
            id=name,
            presence=presence_of(child),
            pid=child.pid,
            type=child.spec.type,
            restart=child.spec.restart,
        )
        for name, child in state.children.items()
    )


def count_children(state: State) -> ChildCounts:
    """How many children there are of each kind."""
    children = state.children.values()
    supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in children)
    return ChildCounts(
        specs=len(children),
        active=sum(presence_of(child) is Presence.RUNNING for child in children),
        supervisors=supervisors,
        workers=len(children) - supervisors,
    )


def presence_of(child: Child) -> Presence:
    """Whether the child runs; one being stopped still does, until it has ended."""
    if child.state in (ChildState.UP, ChildState.STOPPING):
        return Presence.RUNNING
    if not child.wanted:
        return Presence.NOT_RUNNING
    return Presence.RESTARTING if child.failures else Presence.STARTING
