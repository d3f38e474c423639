"""What the parts of a supervisor's state machine share: its children and the step being taken."""

from __future__ import annotations

import dataclasses
import enum

from supervisor.core.actions import Action, Changed
from supervisor.core.child import Child, ChildState
from supervisor.core.intensity import RestartWindow
from supervisor.core.reason import ExitReason
from supervisor.core.spec import ChildSpec, SupervisorSpec


class Mode(enum.Enum):
    """What the supervisor as a whole is doing."""

    IDLE = "idle"
    BOOTING = "booting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


class State:
    """The mutable record of one supervisor.

    Attributes:
        spec: the specification in force.
        mode: see Mode.
        children: by id, in start order.
        window: the restarts that count against the intensity.
        to_stop: ids of the children that are alive and are to end, asked or not yet.
        final: why the supervisor ends, once it does.
        now_s, draw: time and chance of the step being taken.
        actions: what the step has led to so far.
    """

    def __init__(self, spec: SupervisorSpec) -> None:
        self.spec = spec
        self.mode = Mode.IDLE
        self.children: dict[str, Child] = {child.id: Child(child) for child in spec.children}
        self.window = RestartWindow()
        self.to_stop: set[str] = set()
        self.final: ExitReason | None = None
        self.now_s = 0.0
        self.draw = 0.0
        self.actions: list[Action] = []

    def begin_step(self, now_s: float, draw: float) -> None:
        """Forget the last step's actions and take over time and chance of this one."""
        self.now_s, self.draw, self.actions = now_s, draw, []

    def move(self, child: Child, state: ChildState) -> None:
        """Give a child another state, and say so."""
        if child.state is not state:
            child.state = state
            self.actions.append(Changed(child.spec.id))

    def forget(self, child: Child) -> None:
        """Drop a child that is not alive from the list."""
        del self.children[child.spec.id]
        self.actions.append(Changed(child.spec.id))

    def finish(self, reason: ExitReason) -> None:
        """Stop everything, and end for the reason; the first reason stays."""
        if self.mode is not Mode.STOPPING:
            self.mode = Mode.STOPPING
            self.final = reason
            for child in self.children.values():
                child.wanted = False
                if child.state in (ChildState.WAITING, ChildState.DEGRADED):
                    self.move(child, ChildState.STOPPED)

    def child_specs(self) -> list[ChildSpec]:
        """The children's specifications, in start order."""
        return [child.spec for child in self.children.values()]


def blame(child: Child, reason: ExitReason) -> ExitReason:
    """The supervisor's own end, naming the component where it began."""
    if reason.origin:
        return reason
    return dataclasses.replace(reason, origin=child.spec.id, phase=child.spec.phase)
