"""What the parts of a supervisor's state machine share: its children and the step being taken."""

from __future__ import annotations

import enum

from protocol.dataclass import replace
from supervisor.core.actions import Action, Changed
from supervisor.core.child import Child, ChildState
from supervisor.core.intensity import RestartWindow
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.roster import Roster
from supervisor.core.spec import FailureClass, RestartStrategy, SupervisorSpec

# Draws of one step are this far apart, so that children which end together do not come back
# together: multiples of the golden ratio fill the unit interval evenly.
_DRAW_STEP = 0.6180339887498949


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
        roster: the children.
        window: the restarts that count against the intensity.
        instances: how many a pool has had, for the next one's name.
        final: why the supervisor ends, once it does.
        now_s: time of the step being taken.
        actions: what the step has led to so far.
    """

    def __init__(self, spec: SupervisorSpec) -> None:
        self.spec = spec
        self.mode = Mode.IDLE
        self.roster = Roster(() if self.is_pool else (Child(child) for child in spec.children))
        self.window = RestartWindow()
        self.instances = 0
        self.final: ExitReason | None = None
        self.now_s = 0.0
        self.actions: list[Action] = []
        self._draw = 0.0
        self._has_counted_orphans = False

    @property
    def children(self) -> dict[str, Child]:
        """The children's records by id, in start order."""
        return self.roster.children

    @property
    def is_pool(self) -> bool:
        """Whether the children are instances of one template."""
        return self.spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE

    @property
    def is_ending(self) -> bool:
        """Whether everything stops or has stopped."""
        return self.mode in (Mode.STOPPING, Mode.FINISHED)

    def begin_step(self, now_s: float, draw: float) -> None:
        """Forget the last step's actions and take over time and chance of this one."""
        self.now_s, self._draw, self.actions = now_s, draw, []
        self._has_counted_orphans = False

    def draw(self) -> float:
        """A number in [0, 1), another one at each call."""
        drawn = self._draw
        self._draw = (drawn + _DRAW_STEP) % 1.0
        return drawn

    def counts(self, reason: ExitReason) -> bool:
        """Whether an end counts against the intensity; of orphans found together one does."""
        if reason.kind is not ExitKind.ORPHANED:
            return True
        is_first, self._has_counted_orphans = not self._has_counted_orphans, True
        return is_first

    def move(self, child: Child, state: ChildState) -> None:
        """Give a child another state, and say so."""
        if child.state is state:
            return
        self.roster.move(child, state)
        self.keep_clocks()
        if child.spec.failure is FailureClass.DEGRADED:
            if state in (ChildState.STARTING, ChildState.STOPPING):
                child.window.hold(self.now_s)
            else:
                child.window.release(self.now_s)
        self.actions.append(Changed(child.spec.id))

    def keep_clocks(self) -> None:
        """Let the window's clock run exactly while nobody starts or stops."""
        if self.roster.busy:
            self.window.hold(self.now_s)
        else:
            self.window.release(self.now_s)

    def forget(self, child: Child) -> None:
        """Drop a child that is not alive from the list."""
        self.roster.forget(child)
        self.keep_clocks()
        self.actions.append(Changed(child.spec.id))

    def finish(self, reason: ExitReason) -> None:
        """Stop everything, and end for the reason; the first reason stays."""
        if self.is_ending:
            return
        self.mode = Mode.STOPPING
        self.final = reason
        for child in self.children.values():
            child.wanted = False
            if child.is_alive:
                self.roster.want_stop(child)
            else:
                self.move(child, ChildState.STOPPED)


def blame(child: Child, reason: ExitReason) -> ExitReason:
    """The supervisor's own end, naming the component where it began."""
    if reason.origin:
        return reason
    return replace(reason, origin=child.spec.id, phase=child.spec.phase)
