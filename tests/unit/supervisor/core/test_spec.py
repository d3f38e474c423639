"""What a specification must fulfil, and that each rule refuses what breaks it."""

from __future__ import annotations

import pytest

from protocol.records import from_wire, to_wire
from supervisor.core.spec import (
    Backoff,
    ChildSpec,
    ChildType,
    Liveness,
    RestartIntensity,
    SpecError,
    SupervisorSpec,
    validate,
)

A = ChildSpec(id="a", start="p:N")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (SupervisorSpec(children=(A, A)), "used twice"),
        (SupervisorSpec(children=(ChildSpec(id="", start="p:N"),)), "empty"),
        (SupervisorSpec(children=(ChildSpec(id="a"),)), "start names"),
        (SupervisorSpec(children=(ChildSpec(id="a", start="p:N", shutdown_s=-1),)), "shutdown_s"),
        (
            SupervisorSpec(children=(ChildSpec(id="a", start="p:N", start_timeout_s=0),)),
            "start_time",
        ),
        (
            SupervisorSpec(children=(ChildSpec(id="a", start="p:N", depends_on=("z",)),)),
            "depends on",
        ),
        (
            SupervisorSpec(children=(ChildSpec(id="a", type=ChildType.SUPERVISOR),)),
            "children belong",
        ),
        (
            SupervisorSpec(
                children=(ChildSpec(id="a", start="p:N", liveness=Liveness(period_s=0)),)
            ),
            "liveness",
        ),
        (SupervisorSpec(intensity=RestartIntensity(intensity=-1)), "intensity is -1"),
        (SupervisorSpec(intensity=RestartIntensity(period_s=0)), "period_s"),
        (SupervisorSpec(start_concurrency=0), "start_concurrency"),
        (SupervisorSpec(backoff=Backoff(jitter=1.5)), "jitter"),
        (SupervisorSpec(backoff=Backoff(factor=0.5)), "factor"),
        (SupervisorSpec(backoff=Backoff(initial_s=3.0, max_s=2.0)), "initial_s <= max_s"),
    ],
)
def test_a_broken_rule_is_named(spec: SupervisorSpec, problem: str) -> None:
    """Each validator refuses what it is there for."""
    with pytest.raises(SpecError, match=problem):
        validate(spec)


@pytest.mark.parametrize(("intensity", "is_reachable"), [(2, True), (3, False)])
def test_an_intensity_that_pauses_make_unreachable_is_refused(
    intensity: int, *, is_reachable: bool
) -> None:
    """With pauses of 2 s at most three restarts fit into 5 s, so a limit of three never trips."""
    spec = SupervisorSpec(
        intensity=RestartIntensity(intensity=intensity, period_s=5.0), backoff=Backoff(max_s=2.0)
    )

    if is_reachable:
        validate(spec)
    else:
        with pytest.raises(SpecError, match="can't be exceeded"):
            validate(spec)


def test_a_fault_in_a_nested_supervisor_names_the_whole_path() -> None:
    """The operator sees where in the tree it is."""
    inner = SupervisorSpec(children=(A, A))
    spec = SupervisorSpec(
        children=(ChildSpec(id="sub", type=ChildType.SUPERVISOR, children=inner),)
    )

    with pytest.raises(SpecError, match="supervisor/sub/a"):
        validate(spec)


def test_a_specification_survives_the_wire() -> None:
    """A nested supervisor gets exactly what its parent was told."""
    inner = SupervisorSpec(children=(ChildSpec(id="x", start="p:N", settings={"k": [1, "s"]}),))
    spec = SupervisorSpec(
        children=(A, ChildSpec(id="sub", type=ChildType.SUPERVISOR, children=inner))
    )

    assert from_wire(SupervisorSpec, to_wire(spec)) == spec
