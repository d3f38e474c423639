"""The boot phases of a node, and when each of them is over.

Phases 0 (preflight) and 1 (configuration) happen before there is a tree and are reported by
whoever runs them. Each later phase owns the components that name it, and is over when those are
settled and the phase before it is over: a component is settled when it is up, or when it is of
the degraded class and has been tried. The last phase also needs the health validation.

Components start as soon as what they depend on is up, so the work of phases overlaps; their ends
do not.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocol.dataclass import dataclass
from protocol.messages.control import ComponentRecord
from protocol.messages.status import BootReport, PhaseStatus, Timing
from supervisor.core.spec import FailureClass, RestartStrategy, SupervisorSpec

PREFLIGHT = 0
CONFIGURATION = 1
LOGGING = 2
DATABASE = 3
CORE = 4
OPTIONAL = 5
HEALTH = 6
NAMES = ("preflight", "configuration", "logging", "database", "core", "optional", "health")
# The event that ends each phase, by number.
EVENTS = (
    "init:preflight-passed",
    "init:config-loaded",
    "init:logging-setup",
    "init:databases-connected",
    "init:core-services-ready",
    "init:optional-services-ready",
    "init:complete",
)


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """One phase is over; ``duration_s`` counts from the end of the phase before it."""

    number: int
    duration_s: float


def components_by_path(spec: SupervisorSpec, prefix: str = "") -> dict[str, tuple[int, bool]]:
    """Phase of each component of a tree, and whether the boot goes on without it.

    A pool's template is none: nothing is started of it.
    """
    found: dict[str, tuple[int, bool]] = {}
    if spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE:
        return found
    for child in spec.children:
        path = f"{prefix}{child.id}"
        found[path] = (child.phase, child.failure is FailureClass.DEGRADED)
        if child.children is not None:
            found.update(components_by_path(child.children, f"{path}/"))
    return found


class PhaseTracker:
    """Follows the boot.

    Args:
        components: see components_by_path.
        started_s: when the process was executed; all times are monotonic seconds.
    """

    def __init__(self, components: Mapping[str, tuple[int, bool]], started_s: float) -> None:
        self._components = dict(components)
        self._started_s = started_s
        self._waiting = set(components)
        self._ends_s: list[float] = []
        self._is_validated = False
        self._component_times: dict[str, tuple[float, float | None, str]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether the last phase is over."""
        return len(self._ends_s) == len(NAMES)

    @property
    def current(self) -> PhaseStatus:
        """The phase that the node is in."""
        number = min(len(self._ends_s), HEALTH)
        return PhaseStatus(number=number, name=NAMES[number], complete=self.is_complete)

    def end_early(self, number: int, now_s: float) -> PhaseEnded:
        """End phase 0 or 1, which have no components."""
        assert number == len(self._ends_s) < LOGGING
        return self._end(now_s)

    def update(self, record: ComponentRecord, now_s: float) -> list[PhaseEnded]:
        """Take in a component's new state; returns the phases that are over by it."""
        if self.is_complete or record.path not in self._components:
            return []
        self._time(record, now_s)
        if self._is_settled(record):
            self._waiting.discard(record.path)
        return self._end_what_is_over(now_s)

    def validated(self, now_s: float) -> list[PhaseEnded]:
        """The health validation has passed."""
        self._is_validated = True
        return self._end_what_is_over(now_s)

    def waiting_for(self) -> tuple[str, ...]:
        """Components of the current phase that are not settled, sorted."""
        number = self.current.number
        return tuple(sorted(p for p in self._waiting if self._components[p][0] <= number))

    def report(self, now_s: float) -> BootReport:
        """Where the time went so far."""
        phases, before_s = [], self._started_s
        for number, name in enumerate(NAMES):
            is_over = number < len(self._ends_s)
            end_s = self._ends_s[number] if is_over else now_s
            if is_over or number == len(self._ends_s):
                outcome = "ready" if is_over else "running"
                phases.append(self._timing(name, number, before_s, end_s, outcome))
            before_s = end_s
        components = [
            self._timing(path, self._components[path][0], start_s, end_s or now_s, outcome)
            for path, (start_s, end_s, outcome) in self._component_times.items()
        ]
        total_s = self._ends_s[-1] - self._started_s if self.is_complete else None
        return BootReport(total_s=total_s, phases=tuple(phases), components=tuple(components))

    def _is_settled(self, record: ComponentRecord) -> bool:
        _phase, is_optional = self._components[record.path]
        return record.up_s is not None or (is_optional and bool(record.last_exit))

    def _end_what_is_over(self, now_s: float) -> list[PhaseEnded]:
        ended: list[PhaseEnded] = []
        while LOGGING <= len(self._ends_s) <= HEALTH:
            number = len(self._ends_s)
            if any(self._components[path][0] <= number for path in self._waiting):
                break
            if number == HEALTH and not self._is_validated:
                break
            ended.append(self._end(now_s))
        return ended

    def _end(self, now_s: float) -> PhaseEnded:
        before_s = self._ends_s[-1] if self._ends_s else self._started_s
        self._ends_s.append(now_s)
        return PhaseEnded(len(self._ends_s) - 1, now_s - before_s)

    def _time(self, record: ComponentRecord, now_s: float) -> None:
        start_s, end_s, outcome = self._component_times.get(record.path, (now_s, None, "running"))
        if record.started_s is not None and record.path not in self._component_times:
            start_s = record.started_s
        if end_s is None and record.up_s is not None:
            end_s, outcome = record.up_s, "ready"
        elif end_s is None and self._is_settled(record):
            end_s, outcome = now_s, "degraded"
        if record.started_s is not None or end_s is not None:
            self._component_times[record.path] = (start_s, end_s, outcome)

    def _timing(self, name: str, phase: int, start_s: float, end_s: float, outcome: str) -> Timing:
        return Timing(
            name=name,
            phase=phase,
            start_s=round(start_s - self._started_s, 6),
            duration_s=round(end_s - start_s, 6),
            outcome=outcome,
        )
