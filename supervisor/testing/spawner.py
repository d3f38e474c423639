"""Processes that exist only on a manual clock: they come up, end and stop as they are told.

Example:
    >>> from supervisor.core.spec import ChildSpec
    >>> clock = ManualClock()
    >>> spawner = FakeSpawner(clock, {"a": Behaviour(ready_s=0.5)})
    >>> spawner.spawn(ChildSpec(id="a", start="package:Name"), incarnation=1)
    >>> clock.move_to(1.0)
    >>> clock.pop(), clock.pop()
    (Spawned(id='a', incarnation=1, pid=1000), BecameReady(id='a', incarnation=1))
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.core import events
from supervisor.core.events import Event
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import ChildSpec
from supervisor.testing.clock import ManualClock

CRASH = ExitReason(kind=ExitKind.CRASHED, detail="exit code 1")
ASKED = ExitReason(kind=ExitKind.NORMAL)
KILLED = ExitReason(kind=ExitKind.KILLED, detail="SIGKILL")
# How long a start takes that fails.
FAILED_START_S = 0.005


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


class FakeSpawner:
    """Stands for the launcher: what it is told to do shows as events that fall due on the clock.

    Args:
        clock: the time that its processes live in.
        behaviours: by child id; all others do as Behaviour does by default.
    """

    def __init__(self, clock: ManualClock[Event], behaviours: Mapping[str, Behaviour]) -> None:
        self._clock = clock
        self._behaviours = behaviours
        self._pids = itertools.count(1000)

    def spawn(self, spec: ChildSpec, incarnation: int) -> None:
        """Create a process."""
        behaviour = self._behaviour(spec.id)
        pid = next(self._pids)
        self._clock.call_later(0.0, events.Spawned(spec.id, incarnation, pid))
        if behaviour.failing_starts:
            behaviour.failing_starts -= 1
            failure = events.Exited(spec.id, incarnation, behaviour.start_failure)
            self._clock.call_later(FAILED_START_S, failure)
        elif behaviour.ready_s is not None:
            self._clock.call_later(behaviour.ready_s, events.BecameReady(spec.id, incarnation))

    def ask_stop(self, name: str, incarnation: int) -> None:
        """Ask a process to end."""
        stop_s = self._behaviour(name).stop_s
        if stop_s is not None:
            self._clock.call_later(stop_s, events.Exited(name, incarnation, ASKED))

    def kill(self, name: str, incarnation: int) -> None:
        """End a process at once."""
        self._clock.call_later(0.0, events.Exited(name, incarnation, KILLED))

    def _behaviour(self, name: str) -> Behaviour:
        return self._behaviours.get(name) or Behaviour()
