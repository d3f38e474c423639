"""A lost launcher is nobody's failure, and one cause."""

from __future__ import annotations

import pytest

from supervisor.core.child import ChildState
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import ChildSpec, RestartIntensity, RestartStrategy, SupervisorSpec
from supervisor.core.supervisor import Mode
from supervisor.testing.driver import Driver

ORPHANED = ExitReason(kind=ExitKind.ORPHANED, detail="the launcher ended")
NAMES = ("a", "b", "c")


@pytest.fixture(params=list(RestartStrategy)[:3])
def running(request: pytest.FixtureRequest) -> Driver:
    """Three children up, and one restart allowed."""
    children = tuple(ChildSpec(id=name, start="m:C") for name in NAMES)
    intensity = RestartIntensity(intensity=1, period_s=60.0)
    spec = SupervisorSpec(children=children, strategy=request.param, intensity=intensity)
    return Driver(spec).begin().run(5.0)


def test_orphans_of_one_launcher_count_once(running: Driver) -> None:
    """All children end with the launcher: they start again, within a budget of one."""
    running.crash_together(*NAMES, reason=ORPHANED)
    running.run(5.0)
    assert running.machine.mode is Mode.RUNNING
    assert running.states() == dict.fromkeys(NAMES, ChildState.UP.value)
    assert running.machine.restarts_in_window(running.now_s) == 1


def test_a_second_lost_launcher_is_one_too_many(running: Driver) -> None:
    """Launchers that keep dying use the budget up like anything else."""
    running.crash_together(*NAMES, reason=ORPHANED)
    running.run(5.0)
    running.crash_together(*NAMES, reason=ORPHANED)
    assert running.machine.mode in (Mode.STOPPING, Mode.FINISHED)
