"""Drives a supervisor's state machine on virtual time with processes that exist only here.

Every action is carried out at once and written down; what a process does next (come up, end,
take its time to stop) is a matter of its Behaviour and happens on the virtual clock.

Example:
    >>> from supervisor.core.spec import ChildSpec, SupervisorSpec
    >>> spec = SupervisorSpec(children=(ChildSpec(id="a", start="package:Name"),))
    >>> driver = Driver(spec, {"a": Behaviour(ready_s=0.5)}).begin().run(1.0)
    >>> driver.crash("a")
    >>> driver.run(1.0).states()
    {'a': 'up'}
    >>> list(driver.transcript)
    ['0.000 spawn a', '0.500 all up', '1.000 spawn a']
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.core import actions, events
from supervisor.core.events import Event
from supervisor.core.reason import ExitReason
from supervisor.core.spec import SupervisorSpec
from supervisor.core.supervisor import Supervisor
from supervisor.testing.clock import ManualClock
from supervisor.testing.spawner import ASKED, CRASH, KILLED, Behaviour, FakeSpawner
from supervisor.testing.transcript import Transcript

__all__ = ["Driver", "Behaviour", "ASKED", "CRASH", "KILLED"]


@dataclass
class Driver:
    """One supervisor and its imaginary processes.

    Attributes:
        spec: its children.
        behaviours: of their processes, by child id.
        draw: the chance that every step gets.
        transcript: what was done, one line per action, with the time in front.
        final: the reason of Finish; None until then.
        machine: the state machine.
        clock: the time.
    """

    spec: SupervisorSpec
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    draw: float = 0.0
    transcript: Transcript = field(default_factory=Transcript)
    final: ExitReason | None = None

    def __post_init__(self) -> None:
        self.machine = Supervisor(self.spec)
        self.clock: ManualClock[Event] = ManualClock()
        self._spawner = FakeSpawner(self.clock, self.behaviours)

    @property
    def now_s(self) -> float:
        """The time on the clock."""
        return self.clock.now_s

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
        self.send(self._exit(name, reason))

    def crash_together(self, *names: str, reason: ExitReason = CRASH) -> None:
        """End the present processes of several children, to be found at one look."""
        self.send(events.ExitedTogether(tuple(self._exit(name, reason) for name in names)))

    def run(self, duration_s: float) -> Driver:
        """Let time pass."""
        end_s = self.now_s + duration_s
        while True:
            due = [at for at in (self.machine.due_s(), self.clock.next_s()) if at is not None]
            if not due or (at_s := max(self.now_s, min(due))) > end_s:
                break
            self.clock.move_to(at_s)
            self.send(self.clock.pop() or events.Tick())
        self.clock.move_to(end_s)
        return self

    def states(self) -> dict[str, str]:
        """The children's states by id."""
        return {name: child.state.value for name, child in self.machine.children.items()}

    def done(self) -> list[str]:
        """The transcript without times, and a new one from here on."""
        return self.transcript.take()

    def _exit(self, name: str, reason: ExitReason) -> events.Exited:
        return events.Exited(name, self.machine.children[name].incarnation, reason)

    def _note(self, line: str) -> None:
        self.transcript.note(self.now_s, line)

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.Spawn(spec, incarnation):
                self._note(f"spawn {spec.id}")
                self._spawner.spawn(spec, incarnation)
            case actions.AskStop(name, incarnation):
                self._note(f"stop {name}")
                self._spawner.ask_stop(name, incarnation)
            case actions.Kill(name, incarnation):
                self._note(f"kill {name}")
                self._spawner.kill(name, incarnation)
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
