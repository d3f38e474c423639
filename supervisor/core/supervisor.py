"""The supervisor's decisions as a pure state machine: step(event, now_s, draw) -> actions.

Rules, each in one place below:

    start     in order; a child waits until what it depends on is up (or is degraded and was
              tried), and for one of ``start_concurrency`` slots
    boot      a child that is not of the degraded class and fails before the first AllUp ends the
              supervisor: what was started stops in reverse order, and Finish names the child
    stop      one after another, last in order first; where dependencies are declared, together
              whom nobody needs any more; no start begins meanwhile; a pool stops all at once
              within one shared time
    restart   by restart type and strategy, after a pause; counted against the intensity, past
              which the supervisor stops everything and finishes ESCALATED
    together  of ends that are found at one look the first in order is dealt with first, and what
              its group restart covers is neither counted nor repaired a second time
    degraded  a child of this class has a window of its own, and past it is tried again later
    critical  a child that ends CRITICAL ends the supervisor at once, unless it is degraded class
    final     a child that finished, declined or is temporary is not started again; where it is
              significant its end may end the supervisor
    operator  a stopped child stays stopped through restarts of its siblings and new
              specifications; no order counts against the intensity

Invariants: an incarnation is spawned at most once and only when no process of the child is left;
incarnations of one id grow, even where it was deleted in between; after Finish nothing is ever
done again; every child that is alive is asked to stop before Finish.

Cost: an event costs time for the children that it concerns, not for all; see roster.

Source: OTP ``supervisor`` reference; docs/adr/0001 lists the differences and their reasons.
"""

from __future__ import annotations

from typing import assert_never

from supervisor.core import advance, commands, ends, events, pool, queries, reload
from supervisor.core.actions import Action
from supervisor.core.child import Child, ChildState, Order
from supervisor.core.errors import UnknownChildError
from supervisor.core.events import Event
from supervisor.core.queries import ChildCounts, ChildInfo
from supervisor.core.spec import SupervisorSpec, validate
from supervisor.core.state import Mode, State

__all__ = ["Supervisor", "Mode", "UnknownChildError"]


class Supervisor:
    """One supervisor's state; see the module for its rules.

    Args:
        spec: a valid specification.
    """

    def __init__(self, spec: SupervisorSpec) -> None:
        validate(spec)
        self._state = State(spec)

    @property
    def spec(self) -> SupervisorSpec:
        """The specification in force."""
        return self._state.spec

    @property
    def mode(self) -> Mode:
        """What it is doing."""
        return self._state.mode

    @property
    def children(self) -> dict[str, Child]:
        """The children's records by id, in start order; read only."""
        return self._state.children

    def restarts_in_window(self, now_s: float) -> int:
        """How many restarts count against the intensity at the moment."""
        return self._state.window.count(now_s, self._state.spec.intensity)

    def due_s(self) -> float | None:
        """When the next Tick is needed; None when only an event can change anything."""
        return self._state.roster.due_s()

    @property
    def next_instance_id(self) -> str:
        """What the next AddInstance will be called; of a pool only."""
        return pool.next_instance_id(self._state)

    def which_children(self) -> tuple[ChildInfo, ...]:
        """The children in start order, as OTP lists them."""
        return queries.which_children(self._state)

    def count_children(self) -> ChildCounts:
        """How many children there are of each kind, as OTP counts them."""
        return queries.count_children(self._state)

    def step(self, event: Event, *, now_s: float, draw: float) -> list[Action]:
        """Take in one event.

        Args:
            event: what happened.
            now_s: monotonic time.
            draw: a random number in [0, 1), for jitter.

        Returns:
            What is to be done, in this order.

        Raises:
            CommandRefusedError: its subclass says why (supervisor.core.errors); nothing changed.
            SpecError: a new specification is invalid; nothing changed.
        """
        self._state.begin_step(now_s, draw)
        if self._state.mode is not Mode.FINISHED:
            self._take_in(event)
            advance.advance(self._state)
        return self._state.actions

    def _take_in(self, event: Event) -> None:
        state = self._state
        match event:
            case events.Begin():
                if state.mode is Mode.IDLE:
                    state.mode = Mode.BOOTING
            case events.Spawned() | events.BecameReady() | events.Exited():
                self._take_in_child(event)
            case events.ExitedTogether():
                for one in sorted(event.exits, key=self._place):
                    self._take_in_child(one)
            case events.StoppedBeating():
                if (child := self._living(event.id, event.incarnation)) is not None:
                    advance.abort(state, child)
            case events.StopAll():
                state.finish(event.reason)
            case events.Reconfigure():
                reload.reconfigure(state, event.spec)
            case (
                events.StartChild()
                | events.StopChild()
                | events.RestartChild()
                | events.AddChild()
                | events.AddInstance()
                | events.DeleteChild()
            ):
                self._take_in_order(event)
            case events.Tick():
                pass
            case _:
                assert_never(event)

    def _take_in_order(
        self,
        event: events.StartChild
        | events.StopChild
        | events.RestartChild
        | events.AddChild
        | events.AddInstance
        | events.DeleteChild,
    ) -> None:
        match event:
            case events.StartChild():
                commands.start_child(self._state, event.id, is_strict=event.is_strict)
            case events.StopChild():
                commands.stop_child(self._state, event.id)
            case events.RestartChild():
                commands.restart_child(self._state, event.id)
            case events.AddChild():
                commands.add_child(self._state, event.spec)
            case events.AddInstance():
                pool.add_instance(self._state, event.settings)
            case events.DeleteChild():
                commands.delete_child(self._state, event.id)

    def _take_in_child(self, event: events.Spawned | events.BecameReady | events.Exited) -> None:
        child = self._living(event.id, event.incarnation)
        if child is None:
            return
        match event:
            case events.Spawned():
                child.pid = event.pid
            case events.BecameReady():
                if child.state is ChildState.STARTING:
                    child.up_s, child.deadline_s = self._state.now_s, None
                    child.order = Order.NONE
                    self._state.move(child, ChildState.UP)
            case events.Exited():
                ends.take_exit(self._state, child, event.reason)

    def _living(self, name: str, incarnation: int) -> Child | None:
        """The child; None for a late word of a process that is already accounted for."""
        child = self._state.children.get(name)
        is_current = child is not None and child.incarnation == incarnation and child.is_alive
        return child if is_current else None

    def _place(self, exited: events.Exited) -> int:
        child = self._state.children.get(exited.id)
        return -1 if child is None else child.index
