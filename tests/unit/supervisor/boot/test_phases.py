"""The phases end in order, each when its components are settled."""

from __future__ import annotations

from protocol.messages.control import ComponentRecord
from protocol.messages.health import HealthState
from supervisor.boot.phases import PhaseTracker, components_by_path
from supervisor.core.spec import (
    ChildSpec,
    ChildType,
    FailureClass,
    RestartStrategy,
    SupervisorSpec,
)

COMPONENTS = {
    "telemetry": (2, False),
    "data": (3, False),
    "data/cache": (3, True),
    "core": (4, False),
    "optional": (5, True),
    "api": (6, False),
}


def record(path: str, *, up_s: float | None = None, last_exit: str = "") -> ComponentRecord:
    """A component that is up, or has failed."""
    return ComponentRecord(
        path=path,
        level="",
        phase=COMPONENTS[path][0],
        failure="critical",
        kind="service",
        state=HealthState.HEALTHY,
        started_s=1.0,
        up_s=up_s,
        last_exit=last_exit,
    )


def tracker() -> PhaseTracker:
    """A node whose phases 0 and 1 are over after a second."""
    found = PhaseTracker(COMPONENTS, 0.0)
    found.end_early(0, 0.5)
    found.end_early(1, 1.0)
    return found


def test_a_phase_ends_with_its_last_component() -> None:
    """Phase 3 waits for both of its components."""
    phases = tracker()
    phases.update(record("telemetry", up_s=2.0), 2.0)

    assert phases.update(record("data", up_s=3.0), 3.0) == []
    assert [e.number for e in phases.update(record("data/cache", up_s=4.0), 4.0)] == [3]


def test_a_later_phase_waits_for_the_one_before() -> None:
    """Core being up does not end phase 4 while phase 3 is not over."""
    phases = tracker()
    phases.update(record("core", up_s=1.5), 1.5)
    phases.update(record("telemetry", up_s=2.0), 2.0)
    phases.update(record("data", up_s=3.0), 3.0)

    ended = phases.update(record("data/cache", up_s=4.0), 4.0)

    assert [e.number for e in ended] == [3, 4]


def test_a_degraded_component_that_was_tried_is_settled() -> None:
    """The boot goes on without it."""
    phases = tracker()
    phases.update(record("telemetry", up_s=2.0), 2.0)
    phases.update(record("data", up_s=3.0), 3.0)

    assert [e.number for e in phases.update(record("data/cache", last_exit="crashed"), 4.0)] == [3]


def test_a_critical_component_that_failed_is_not() -> None:
    """Only being up settles it."""
    phases = tracker()

    assert phases.update(record("telemetry", last_exit="crashed"), 2.0) == []
    assert phases.waiting_for() == ("telemetry",)


def test_the_last_phase_needs_the_validation() -> None:
    """Everything up is not enough."""
    phases = tracker()
    for path in COMPONENTS:
        phases.update(record(path, up_s=2.0), 2.0)
    assert phases.current.number == 6
    assert not phases.is_complete

    assert [e.number for e in phases.validated(3.0)] == [6]
    assert phases.report(9.0).total_s == 3.0


def test_components_are_found_at_every_depth() -> None:
    """Paths, phases and whether the boot goes on without them."""
    inner = SupervisorSpec(
        children=(ChildSpec(id="x", start="p:N", phase=4, failure=FailureClass.DEGRADED),)
    )
    spec = SupervisorSpec(
        children=(
            ChildSpec(id="a", start="p:N", phase=2),
            ChildSpec(id="sub", type=ChildType.SUPERVISOR, phase=3, children=inner),
        )
    )

    assert components_by_path(spec) == {"a": (2, False), "sub": (3, False), "sub/x": (4, True)}


def test_the_template_of_a_pool_is_no_component() -> None:
    """The boot does not wait for what is never started."""
    template = ChildSpec(id="job", start="m:Job")
    pool = SupervisorSpec(strategy=RestartStrategy.SIMPLE_ONE_FOR_ONE, children=(template,))
    spec = SupervisorSpec(
        children=(ChildSpec(id="jobs", type=ChildType.SUPERVISOR, children=pool),)
    )

    assert components_by_path(spec) == {"jobs": (0, False)}
