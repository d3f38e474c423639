"""Drives a supervisor's state machine on virtual time with processes that exist only here.

Every action is carried out at once and written down; what a process does next (come up, end,
take its time to stop) is a matter of its Behaviour and happens on the virtual clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.core import actions, events
from supervisor.core.events import Event
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import SupervisorSpec
from supervisor.core.supervisor import Supervisor

CRASH = ExitReason(kind=ExitKind.CRASHED, detail="exit code 1")
ASKED = ExitReason(kind=ExitKind.NORMAL)
KILLED = ExitReason(kind=ExitKind.KILLED, detail="SIGKILL")


@dataclass(slots=True)
class Behaviour:
    """What each process of a child does.

    Attributes:
        ready_s: it says ready this long after it was created; None for never.
        stop_s: it ends this long after it was asked to; None ignores the request.
        failing_starts: so many of the next starts end instead of becoming ready.
        start_failure: how such a start ends.
    """

    ready_s: float | None = 0.01
    stop_s: float | None = 0.01
    failing_starts: int = 0
    start_failure: ExitReason = CRASH


@dataclass
class Driver:
    """One supervisor and its imaginary processes.

    Attributes:
        transcript: what was done, one line per action or event, with the time in front.
        final: the reason of Finish; None until then.
    """

    spec: SupervisorSpec
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    draw: float = 0.0
    now_s: float = 0.0
    transcript: list[str] = field(default_factory=list)
    final: ExitReason | None = None

    def __post_init__(self) -> None:
        self.machine = Supervisor(self.spec)
        self._queue: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._pids = itertools.count(1000)

    def begin(self) -> Driver:
        """Start the children."""
        self.send(events.Begin())
        return self

    def send(self, event: Event) -> None:
        """Hand an event to the machine now."""
        for action in self.machine.step(event, now_s=self.now_s, draw=self.draw):
            self._carry_out(action)

    def crash(self, name: str, reason: ExitReason = CRASH) -> None:
        """End the child's present process."""
        self.send(events.Exited(name, self.machine.children[name].incarnation, reason))

    def run(self, duration_s: float) -> Driver:
        """Let time pass."""
        end_s = self.now_s + duration_s
        while True:
            due = [at for at in (self.machine.due_s(), self._next_s()) if at is not None]
            if not due or (at_s := max(self.now_s, min(due))) > end_s:
                break
            self.now_s = at_s
            if self._queue and self._queue[0][0] <= at_s:
                self.send(heapq.heappop(self._queue)[2])
            else:
                self.send(events.Tick())
        self.now_s = end_s
        return self

    def states(self) -> dict[str, str]:
        """The children's states by id."""
        return {name: child.state.value for name, child in self.machine.children.items()}

    def done(self) -> list[str]:
        """The transcript without times, and a new one from here on."""
        lines = [line.split(" ", 1)[1] for line in self.transcript]
        self.transcript.clear()
        return lines

    def _next_s(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def _later(self, delay_s: float, event: Event) -> None:
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._order), event))

    def _note(self, line: str) -> None:
        self.transcript.append(f"{self.now_s:.3f} {line}")

    def _behaviour(self, name: str) -> Behaviour:
        return self.behaviours.get(name) or Behaviour()

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.Spawn(spec, incarnation):
                self._note(f"spawn {spec.id}")
                self._spawn(spec.id, incarnation)
            case actions.AskStop(name, incarnation):
                self._note(f"stop {name}")
                stop_s = self._behaviour(name).stop_s
                if stop_s is not None:
                    self._later(stop_s, events.Exited(name, incarnation, ASKED))
            case actions.Kill(name, incarnation):
                self._note(f"kill {name}")
                self._later(0.0, events.Exited(name, incarnation, KILLED))
            case actions.Abort(name):
                self._note(f"abort {name}")
            case actions.Update(name):
                self._note(f"update {name}")
            case actions.Discarded(name):
                self._note(f"discarded {name}")
            case actions.AllUp():
                self._note("all up")
            case actions.Finish(reason):
                self._note(f"finish {reason.kind.value}")
                self.final = reason
            case actions.Changed():
                pass

    def _spawn(self, name: str, incarnation: int) -> None:
        behaviour = self._behaviour(name)
        self._later(0.0, events.Spawned(name, incarnation, next(self._pids)))
        if behaviour.failing_starts:
            behaviour.failing_starts -= 1
            self._later(0.005, events.Exited(name, incarnation, behaviour.start_failure))
        elif behaviour.ready_s is not None:
            self._later(behaviour.ready_s, events.BecameReady(name, incarnation))
