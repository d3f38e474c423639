"""Random trees under random faults, on virtual time, with every step checked.

    python -m supervisor.testing.simulation --seed 42         run one, and show it where it fails
    python -m supervisor.testing.simulation --count 10000     run many
    python -m supervisor.testing.simulation --seconds 600     run as many as that takes

A failure prints its seed and the shortest transcript that was found to break the same invariant:
orders and jumps of time that are not needed for it are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from random import Random

from supervisor.core import events
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import RestartStrategy, SupervisorSpec
from supervisor.core.supervisor import Mode, Supervisor
from supervisor.testing.generate import random_order, random_tree
from supervisor.testing.invariants import InvariantError
from supervisor.testing.world import MachineMaker, Node, World

# How much virtual time a run takes before everything is told to stop, and what that may take.
_DURATION_S = 30.0
_END_S = 600.0
_FAULTS_MAX = 14
_LINES_MAX = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that comes from outside at a time: an order, deaths at one look, a jump of time.

    Attributes:
        at_s: when.
        seed: what exactly, and to whom.
    """

    at_s: float
    seed: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        seed: the run's.
        steps: how many steps it had.
        error: the invariant that was broken; None where none was.
        transcript: what happened, the last lines.
    """

    seed: int
    steps: int
    error: InvariantError | None
    transcript: tuple[str, ...]

    def __str__(self) -> str:
        if self.error is None:
            return f"seed {self.seed}: {self.steps} steps"
        return "\n".join([f"seed {self.seed}: {self.error}", *self.transcript])


def run(seed: int, make: MachineMaker = Supervisor) -> Outcome:
    """Run the tree of a seed; the shortest failure where it fails.

    Args:
        seed: decides everything.
        make: makes the state machines, for those that plant a fault.
    """
    spec, faults = _case(seed)
    outcome = _run(seed, spec, faults, make)
    if outcome.error is None:
        return outcome
    return _shrink(outcome, spec, faults, make)


def first_failure(
    seeds: range, make: MachineMaker = Supervisor, *, until_s: float | None = None
) -> tuple[Outcome | None, int]:
    """Run seeds until one fails.

    Args:
        seeds: to run.
        make: makes the state machines.
        until_s: on the monotonic clock; no further run is begun after it.

    Returns:
        The failure, None where there is none; and the number of runs.
    """
    runs = 0
    for seed in seeds:
        if until_s is not None and time.monotonic() >= until_s:
            break
        runs += 1
        outcome = run(seed, make)
        if outcome.error is not None:
            return outcome, runs
    return None, runs


def _case(seed: int) -> tuple[SupervisorSpec, tuple[Fault, ...]]:
    random = Random(f"{seed}/tree")  # noqa: S311 - must be repeatable, not secret
    spec = random_tree(random)
    # Early ones hit the boot; half of them come in bursts, in the middle of what others began.
    faults = []
    at_s = 1.0
    for number in range(random.randrange(_FAULTS_MAX)):
        at_s += random.choice((0.0, 1.0, 64.0, 512.0, 4096.0)) * random.randrange(4) / 1024
        faults.append(Fault(at_s, f"{seed}/fault/{number}"))
    return spec, tuple(faults)


def _run(seed: int, spec: SupervisorSpec, faults: tuple[Fault, ...], make: MachineMaker) -> Outcome:
    world = World(seed, spec, make)
    error = None
    try:
        for fault in faults:
            world.at(fault.at_s, lambda fault=fault: _strike(world, fault))  # type: ignore[misc]  # bound now
        _fill_pools(world)
        world.begin()
        world.run_until(_DURATION_S)
        if world.root.machine.mode is not Mode.FINISHED:
            world.step(world.root, events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))
            world.run_until(world.now_s + _END_S)
        if world.root.machine.mode is not Mode.FINISHED:
            raise InvariantError("it finishes", f"not within {_END_S:g} s")
        if alive := [name for name, child in world.root.processes.items() if child.alive]:
            raise InvariantError("nothing is alive after Finish", f"{alive}")
    except InvariantError as exc:
        error = exc
    return Outcome(seed, world.steps, error, tuple(world.transcript))


def _fill_pools(world: World) -> None:
    """Pools begin empty; give the root's some instances."""
    if world.root.machine.spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE:
        for number in range(3):
            add = events.AddInstance({"number": number})
            world.at(1.0 + number / 64, lambda add=add: world.step(world.root, add))  # type: ignore[misc]  # bound now


def _strike(world: World, fault: Fault) -> None:
    random = Random(fault.seed)  # noqa: S311 - must be repeatable, not secret
    node = random.choice(world.nodes)
    roll = random.random()
    if roll < 0.08:
        world.jump(random.choice((0.5, 5.0, 100.0)))
    elif roll < 0.3:
        names = list(node.processes)
        world.crash_together(node, random.sample(names, random.randrange(len(names) + 1)))
    else:
        _order(world, node, random)


def _order(world: World, node: Node, random: Random) -> None:
    machine = node.machine
    event = random_order(random, machine.spec, list(machine.children))
    if isinstance(event, events.Reconfigure) and node is not world.root:
        return  # a nested supervisor gets its specification from the one above
    world.step(node, event)


def _shrink(
    outcome: Outcome, spec: SupervisorSpec, faults: tuple[Fault, ...], make: MachineMaker
) -> Outcome:
    """Leave out what is not needed to break the same invariant."""
    assert outcome.error is not None
    for fault in reversed(faults):
        fewer = tuple(other for other in faults if other is not fault)
        again = _run(outcome.seed, spec, fewer, make)
        if again.error is not None and again.error.invariant == outcome.error.invariant:
            outcome, faults = again, fewer
    cut = len(outcome.transcript) - _LINES_MAX
    if cut <= 0:
        return outcome
    lines = (f"… {cut} lines before", *outcome.transcript[cut:])
    return Outcome(outcome.seed, outcome.steps, outcome.error, lines)


def main(arguments: list[str] | None = None) -> int:
    """See the module; returns 1 where an invariant was broken."""
    parser = argparse.ArgumentParser(prog="supervisor.testing.simulation")
    parser.add_argument("--seed", type=int, help="run this one, or begin with it")
    parser.add_argument("--count", type=int, help="how many to run")
    parser.add_argument("--seconds", type=float, help="run as many as that takes")
    options = parser.parse_args(arguments)
    start = options.seed or 0
    if options.seconds is not None:
        count = options.count or sys.maxsize
    else:
        count = options.count or (1 if options.seed is not None else 1000)
    began_s = time.monotonic()
    until_s = None if options.seconds is None else began_s + options.seconds
    failure, runs = first_failure(range(start, start + count), until_s=until_s)
    took_s = time.monotonic() - began_s
    print(failure if failure is not None else f"{runs} trees in {took_s:.1f} s: nothing broken")  # noqa: T201 - a command prints
    return 0 if failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
