"""What is measured of each supervisor, in the same way for all.

The clock is CLOCK_MONOTONIC, of the children that report as of the benchmark. A kill's time is
taken just before the signal is sent.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from supervisor.posix.processes import children_of
from tests.bench.figures import MeasurementError
from tests.bench.supervisor import observe
from tests.bench.supervisor.peers import Load, Peer

UP_S = 120.0
STOP_S = 60.0
REPLACED_S = 30.0
# Kills come at random moments of the supervisors that look at their children from time to time.
PAUSE_S = (0.25, 0.35)
MASS_ROUNDS = 3
IDLE_SETTLE_S = 3.0
IDLE_S = 10.0
STORM_S = 35.0
STORM_CPU_AFTER_S = 5.0
STORM_ASK_S = 0.1
_NS = 1e9


@dataclass(slots=True)
class Running:
    """A supervisor whose children all run.

    Attributes:
        peer: it.
        children: their pids.
        launch_s: from before it was executed until the last one ran.
        spread_s: from the first one that ran to the last one.
    """

    peer: Peer
    children: set[int] = field(default_factory=set)
    launch_s: float = 0.0
    spread_s: float = 0.0

    @property
    def is_sleep(self) -> bool:
        """Whether its children don't report."""
        return self.peer.load.kind == "sleep"


@contextlib.contextmanager
def running(kind: type[Peer], load: Load) -> Iterator[Running]:
    """Start a supervisor, wait until all its children run, and leave nothing of it behind.

    Raises:
        MeasurementError: they did not run in time.
    """
    peer = kind(load)
    try:
        found = Running(peer)
        begun_ns = peer.start()
        try:
            _await_all(found, begun_ns)
        except MeasurementError as exc:
            raise MeasurementError(f"{peer.name}: {exc}\n{peer.complain()}") from exc
        yield found
    finally:
        peer.close()


def _await_all(found: Running, begun_ns: int) -> None:
    peer, count = found.peer, found.peer.load.count
    if found.is_sleep:
        first, first_ns = observe.await_sleeps([peer.pid], 1, UP_S, set())
        rest, last_ns = observe.await_sleeps([peer.pid], count - len(first), UP_S, first)
        found.children = first | rest
    else:
        deadline_s = time.monotonic() + UP_S
        times: list[int] = []
        while len(found.children) < count:
            pid, at_ns = peer.ear.hear(deadline_s - time.monotonic())
            found.children.add(pid)
            times.append(at_ns)
        first_ns, last_ns = min(times), max(times)
    found.launch_s = (last_ns - begun_ns) / _NS
    found.spread_s = (last_ns - first_ns) / _NS


def restarts(found: Running, kills: int, budget_s: float) -> list[float]:
    """Seconds from the SIGKILL of one child until its replacement runs, for some children.

    Args:
        found: the supervisor.
        kills: how many children are killed, one after another.
        budget_s: no further one after so long.
    """
    taken: list[float] = []
    give_up_s = time.monotonic() + budget_s
    order: list[int] = []
    while len(taken) < kills and time.monotonic() < give_up_s:
        order = order or random.sample(sorted(found.children), len(found.children))
        time.sleep(random.uniform(*PAUSE_S))
        taken.append(_kill_one(found, order.pop()))
    return taken


def _kill_one(found: Running, pid: int) -> float:
    found.peer.ear.drain()
    parent = observe.parent_of(pid)
    known = set(children_of(parent))
    killed_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    if found.is_sleep:
        replaced, at_ns = observe.await_sleeps([parent], 1, REPLACED_S, known)
        new = replaced.pop()
    else:
        new, at_ns = found.peer.ear.hear(REPLACED_S)
    found.children.remove(pid)
    found.children.add(new)
    return (at_ns - killed_ns) / _NS


def mass_kills(found: Running) -> list[float]:
    """Seconds from the SIGKILL of all children until as many run again, a few times."""
    taken: list[float] = []
    for _ in range(MASS_ROUNDS):
        time.sleep(1.0)
        found.peer.ear.drain()
        old = set(found.children)
        parents = {observe.parent_of(pid) for pid in old}
        killed_ns = time.monotonic_ns()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        if found.is_sleep:
            new, at_ns = observe.await_sleeps(parents, len(old), REPLACED_S, old)
        else:
            new, at_ns = set(), 0
            while len(new) < len(old):
                pid, at_ns = found.peer.ear.hear(REPLACED_S)
                new.add(pid)
        found.children = new
        taken.append((at_ns - killed_ns) / _NS)
    return taken


def stop(found: Running) -> tuple[float, float]:
    """Seconds from the order to stop until the last child has ended, and the supervisor too."""
    children, main = observe.Ends(found.children), observe.Ends([found.peer.pid])
    asked_ns = time.monotonic_ns()
    found.peer.ask_stop()
    children_ns = children.wait(STOP_S)
    main_ns = main.wait(STOP_S)
    return (children_ns - asked_ns) / _NS, (main_ns - asked_ns) / _NS


def idle(found: Running) -> tuple[float, float]:
    """Milliseconds of CPU time per second, and MiB, of the supervisor without its children."""
    time.sleep(IDLE_SETTLE_S)
    pids = found.peer.supervisors(found.children)
    before, begun_s = observe.cpu_ns(pids), time.monotonic()
    time.sleep(IDLE_S)
    after, elapsed_s = observe.cpu_ns(pids), time.monotonic() - begun_s
    used_ns = sum(after[pid] - before.get(pid, 0) for pid in after)
    return used_ns / 1e6 / elapsed_s, observe.pss_mib(pids)


@dataclass(frozen=True, slots=True)
class Storm:
    """What children that end as soon as they run cost.

    Attributes:
        cpu: share of a processor that the supervisor used.
        command_s: the longest answer to a command; None where it takes none.
    """

    cpu: float
    command_s: float | None


def storm(kind: type[Peer], load: Load) -> Storm:
    """Start children that end at once, and ask the supervisor meanwhile.

    Raises:
        MeasurementError: the supervisor ended or never answered.
    """
    peer = kind(load)
    try:
        peer.start()
        begun_s = time.monotonic()
        slowest_s: float | None = None
        before: dict[int, int] = {}
        while (age_s := time.monotonic() - begun_s) < STORM_S:
            if age_s >= STORM_CPU_AFTER_S and not before:
                before, since_s = observe.cpu_ns(_lasting(peer)), time.monotonic()
            if peer.has_commands and (answer_s := _ask(peer, age_s)) is not None:
                slowest_s = max(slowest_s or 0.0, answer_s)
            time.sleep(STORM_ASK_S)
            peer.ear.drain()
        after, elapsed_s = observe.cpu_ns(before), time.monotonic() - since_s
        if peer.main is None or peer.main.poll() is not None:
            raise MeasurementError(f"{peer.name} ended:\n{peer.complain()}")
        used_ns = sum(after[pid] - before[pid] for pid in after)
        return Storm(used_ns / _NS / elapsed_s, slowest_s)
    finally:
        peer.close()


def _lasting(peer: Peer) -> list[int]:
    """The supervisor's own processes: those that are there at two looks."""
    first = set(peer.supervisors(set()))
    time.sleep(0.05)
    return [pid for pid in peer.supervisors(set()) if pid in first and not observe.is_sleep(pid)]


def _ask(peer: Peer, age_s: float) -> float | None:
    begun_s = time.monotonic()
    try:
        peer.command()
    except Exception:
        if age_s < STORM_CPU_AFTER_S:
            return None  # it does not listen yet
        raise
    return time.monotonic() - begun_s


def middle(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)
