"""A whole tree on virtual time: real state machines, imaginary processes, and faults.

What a process does is drawn when it is created, from the seed, its place and its number, so that
leaving out an order changes as little as possible of everything else.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from supervisor.core import actions, events
from supervisor.core.errors import CommandRefusedError
from supervisor.core.events import Event
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import ChildSpec, SpecError, SupervisorSpec
from supervisor.core.supervisor import Mode, Supervisor
from supervisor.testing.clock import ManualClock
from supervisor.testing.invariants import Checker, InvariantError
from supervisor.testing.transcript import Transcript

MachineMaker = Callable[[SupervisorSpec], Supervisor]

_TICK_S = 1.0 / 1024
# From the death of a process until its supervisor knows of it, and from a kill until the death.
_NOTICE_S = 16 * _TICK_S
_KILL_S = 8 * _TICK_S
# A process that is never killed ends at last.
_STOP_MAX_S = 6.0
_EXITS = {
    ExitKind.SHUTDOWN: ExitKind.NORMAL,
    ExitKind.CRITICAL: ExitKind.CRITICAL,
    ExitKind.ESCALATED: ExitKind.ESCALATED,
}
_CRASHES = (
    *(ExitKind.CRASHED, ExitKind.CRASHED, ExitKind.KILLED, ExitKind.NORMAL, ExitKind.NORMAL),
    *(ExitKind.DECLINED, ExitKind.ESCALATED),
)


@dataclass(eq=False, slots=True)
class Process:
    """One imaginary process, and the supervisor in it where it is one."""

    node: Node
    spec: ChildSpec
    incarnation: int
    random: Random
    alive: bool = True
    inner: Node | None = None


@dataclass(eq=False, slots=True)
class Node:
    """One supervisor that runs.

    Attributes:
        path: its place.
        machine, checker: the state machine, and who watches it.
        process: whose process it is in; None for the root.
        processes: of its children that are alive, by id.
    """

    path: str
    machine: Supervisor
    checker: Checker
    process: Process | None
    processes: dict[str, Process] = field(default_factory=dict)


class World:
    """Runs a tree.

    Args:
        seed: of everything that is drawn.
        spec: the tree.
        make: makes a state machine.

    Attributes:
        transcript: what happened.
        nodes: the supervisors that run.
        root: the root.
        steps: how many steps were made.
    """

    def __init__(self, seed: int, spec: SupervisorSpec, make: MachineMaker = Supervisor) -> None:
        self.transcript = Transcript()
        self.nodes: list[Node] = []
        self.steps = 0
        self._seed = seed
        self._make = make
        self._clock: ManualClock[Callable[[], None]] = ManualClock(1.0)
        self._pids = itertools.count(1000)
        self._serials = itertools.count()
        self._random = Random(f"{seed}/world")  # noqa: S311 - must be repeatable, not secret
        self.root = self._node("root", spec, None)

    @property
    def now_s(self) -> float:
        """The time."""
        return self._clock.now_s

    def begin(self) -> None:
        """Start the root."""
        self.step(self.root, events.Begin())

    def at(self, at_s: float, do: Callable[[], None]) -> None:
        """Have something done at a time."""
        self._clock.call_later(at_s - self.now_s, do)

    def jump(self, duration_s: float) -> None:
        """Let time pass in which nobody looks, as when the host was suspended."""
        self.transcript.note(self.now_s, f"-- {duration_s:g} s pass unseen")
        self._clock.move_to(self.now_s + duration_s)
        for node in self.nodes:
            node.checker.slack_s += duration_s

    def run_until(self, end_s: float) -> None:
        """Let time pass until then, or until the root has finished."""
        while self.root.machine.mode is not Mode.FINISHED:
            due: list[tuple[float, Node | None]] = [
                (at_s, node) for node in self.nodes if (at_s := node.machine.due_s()) is not None
            ]
            if (next_s := self._clock.next_s()) is not None:
                due.append((next_s, None))
            if not due:
                return
            at_s, node = min(due, key=lambda entry: entry[0])
            if at_s > end_s:
                self._clock.move_to(max(self.now_s, end_s))
                return
            self._clock.move_to(max(self.now_s, at_s))
            if node is not None:
                self.step(node, events.Tick())
            elif (do := self._clock.pop()) is not None:
                do()

    def step(self, node: Node, event: Event) -> None:
        """Hand an event to a supervisor, check what it makes of it, and carry that out."""
        if node not in self.nodes:
            return
        self.steps += 1
        self.transcript.note(self.now_s, f"{node.path} < {_describe(event)}")
        draw = self._random.randrange(64) / 64
        try:
            decided = node.machine.step(event, now_s=self.now_s, draw=draw)
        except (CommandRefusedError, SpecError) as exc:
            self.transcript.note(self.now_s, f"{node.path} > refused: {exc}")
            node.checker.refused(event, exc)
            return
        for action in decided:
            if not isinstance(action, actions.Changed):
                self.transcript.note(self.now_s, f"{node.path} > {_describe(action)}")
        node.checker.took(event, decided, self.now_s)
        for action in decided:
            self._carry_out(node, action)

    def crash_together(self, node: Node, names: list[str]) -> None:
        """End processes of several children, to be found at one look."""
        exits = []
        for name in names:
            if (process := node.processes.get(name)) is not None and process.alive:
                reason = ExitReason(kind=self._random.choice(_CRASHES))
                self._end(process)
                exits.append(events.Exited(name, process.incarnation, reason))
        if exits:
            self.step(node, events.ExitedTogether(tuple(exits)))

    # -- processes ------------------------------------------------------------------------------

    def _node(self, path: str, spec: SupervisorSpec, process: Process | None) -> Node:
        machine = self._make(spec)
        kill_s = _KILL_S + 2 * _NOTICE_S
        node = Node(path, machine, Checker(spec, machine, kill_s=kill_s), process)
        self.nodes.append(node)
        return node

    def _carry_out(self, node: Node, action: actions.Action) -> None:
        match action:
            case actions.Spawn():
                self._spawn(node, action.spec, action.incarnation)
            case actions.AskStop():
                self._ask_stop(node.processes[action.id])
            case actions.Kill():
                process = node.processes[action.id]
                # It may have been about to end by itself, of all moments in this one.
                is_race = process.random.random() < 0.2
                kind = ExitKind.NORMAL if is_race else ExitKind.KILLED
                self._later(_KILL_S, lambda: self._die(process, kind))
            case actions.Update():
                inner, spec = node.processes[action.id].inner, action.spec
                if inner is not None:
                    self._later(_TICK_S, lambda: self.step(inner, events.Reconfigure(spec)))
            case actions.AllUp():
                if node.process is not None:
                    self._tell_ready(node.process)
            case actions.Finish():
                if node.process is not None:
                    self._die(node.process, _EXITS.get(action.reason.kind, ExitKind.CRASHED))
            case actions.Abort() | actions.Changed() | actions.Discarded():
                pass

    def _spawn(self, node: Node, spec: ChildSpec, incarnation: int) -> None:
        name = f"{node.path}/{spec.id}"
        if (old := node.processes.get(spec.id)) is not None and old.alive:
            raise InvariantError("one process per child", f"{name} has one already")
        random = Random(f"{self._seed}/{name}/{next(self._serials)}")  # noqa: S311 - repeatable
        process = Process(node, spec, incarnation, random)
        node.processes[spec.id] = process
        if random.random() < 0.01:  # it could not be created
            self._die(process, ExitKind.START_FAILED)
            return
        self._notify(process, events.Spawned(spec.id, incarnation, next(self._pids)))
        if spec.children is not None:
            inner = self._node(name, spec.children, process)
            process.inner = inner
            self._later(self._some(process, 16), lambda: self.step(inner, events.Begin()))
        else:
            self._live(process)

    def _live(self, process: Process) -> None:
        """Draw how the process comes up, how long it runs, and how it ends."""
        random = process.random
        temper = Random(f"{self._seed}/{process.node.path}/{process.spec.id}")  # noqa: S311 - as above
        is_bad = temper.random() < 0.3
        is_first = process.incarnation == 1  # most trees are to outlive their boot
        roll = random.random()
        if roll < (0.01 if is_first else 0.3 if is_bad else 0.05):
            kind = random.choice(
                (*_CRASHES, ExitKind.CRITICAL if roll < 0.01 else ExitKind.CRASHED)
            )
            self._later(self._some(process, 512), lambda: self._die(process, kind))
            return
        if roll > (0.99 if is_first else 0.96):
            return  # it never comes up
        ready_s = self._some(process, 512)
        self._later(ready_s, lambda: self._tell_ready(process))
        if random.random() < (0.8 if is_bad else 0.25):
            life_s = random.choice((0.0, 0.25, 1.0, 2.0, 5.0, 10.0, 30.0))
            if random.random() < 0.5:
                life_s += self._some(process, 1024)
            self._later(ready_s + life_s, lambda: self._fail(process))

    def _fail(self, process: Process) -> None:
        random = process.random
        if random.random() < 0.12:
            for again in range(3):
                self._later(again * 0.5, lambda: self._tell_hung(process))
            return
        kind = ExitKind.CRITICAL if random.random() < 0.02 else random.choice(_CRASHES)
        self._die(process, kind)

    def _ask_stop(self, process: Process) -> None:
        if process.inner is not None:
            inner = process.inner
            stop = events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN))
            self._later(_TICK_S, lambda: self.step(inner, stop))
            return
        roll = process.random.random()
        stop_s = self._some(process, 256) if roll < 0.7 else self._some(process, 3072)
        if roll > 0.9:
            stop_s = _STOP_MAX_S  # deaf, until it is killed where it can be
        kind = process.random.choice((ExitKind.NORMAL, ExitKind.KILLED, ExitKind.CRASHED))
        self._later(stop_s, lambda: self._die(process, kind))

    def _die(self, process: Process, kind: ExitKind) -> None:
        if process.alive:
            self._end(process)
            reason = ExitReason(kind=kind)
            self._notify(process, events.Exited(process.spec.id, process.incarnation, reason))

    def _end(self, process: Process) -> None:
        """The process is gone, and all below it; who was above it learns of it later."""
        process.alive = False
        if process.inner is not None and process.inner in self.nodes:
            self.nodes.remove(process.inner)
            for below in process.inner.processes.values():
                self._end(below)

    def _tell_ready(self, process: Process) -> None:
        if process.alive:
            self._notify(process, events.BecameReady(process.spec.id, process.incarnation))

    def _tell_hung(self, process: Process) -> None:
        if process.alive:
            hung = events.StoppedBeating(process.spec.id, process.incarnation)
            self.step(process.node, hung)

    def _notify(self, process: Process, event: Event) -> None:
        """Tell the supervisor above, some time later, now and then twice."""
        delay_s = self._some(process, 16) if process.random.random() < 0.3 else 0.0
        node = process.node
        self._later(delay_s, lambda: self.step(node, event))
        if process.random.random() < 0.1:
            again_s = delay_s + self._some(process, 1024)
            self._later(again_s, lambda: self.step(node, event))

    def _some(self, process: Process, ticks_max: int) -> float:
        return process.random.randrange(ticks_max) * _TICK_S

    def _later(self, delay_s: float, do: Callable[[], None]) -> None:
        self._clock.call_later(delay_s, do)


def _describe(item: object) -> str:
    """An event or action without what nobody wants to read."""
    if isinstance(item, actions.Spawn):
        return f"Spawn {item.spec.id} #{item.incarnation}"
    if isinstance(item, (events.AddChild, events.Reconfigure, actions.Update)):
        spec = item.spec
        names = (
            [child.id for child in spec.children] if isinstance(spec, SupervisorSpec) else spec.id
        )
        return f"{type(item).__name__} {names}"
    if isinstance(item, (events.Exited, events.BecameReady, events.Spawned, events.StoppedBeating)):
        kind = f" {item.reason.kind.value}" if isinstance(item, events.Exited) else ""
        return f"{type(item).__name__} {item.id} #{item.incarnation}{kind}"
    if isinstance(item, events.ExitedTogether):
        return "ExitedTogether " + ", ".join(_describe(one) for one in item.exits)
    if isinstance(item, (events.StopAll, actions.Finish)):
        return f"{type(item).__name__} {item.reason}"
    assert dataclasses.is_dataclass(item)
    values = [getattr(item, f.name) for f in dataclasses.fields(item)]
    return " ".join([type(item).__name__, *map(str, values)])
