"""What a specification must fulfil, and that each rule refuses what breaks it."""

from __future__ import annotations

import pytest

from protocol.records import from_wire, to_wire
from supervisor.core.spec import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    ChildType,
    Liveness,
    RestartIntensity,
    RestartStrategy,
    RestartType,
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


SIGNIFICANT = ChildSpec(id="s", start="p:N", restart=RestartType.TRANSIENT, significant=True)
ANY = AutoShutdown.ANY_SIGNIFICANT
POOL = RestartStrategy.SIMPLE_ONE_FOR_ONE


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (SupervisorSpec(children=(SIGNIFICANT,)), "auto_shutdown is never"),
        (
            SupervisorSpec(
                auto_shutdown=ANY, children=(ChildSpec(id="s", start="p:N", significant=True),)
            ),
            "permanent",
        ),
        (SupervisorSpec(strategy=POOL), "one template, not 0"),
        (SupervisorSpec(strategy=POOL, children=(A, ChildSpec(id="b", start="p:N"))), "not 2"),
        (SupervisorSpec(strategy=POOL, auto_shutdown=ANY, children=(A,)), "not for pools"),
        (
            SupervisorSpec(intensity=RestartIntensity(intensity=1.5)),  # type: ignore[arg-type] - the fault
            "a whole number",
        ),
    ],
)
def test_combinations_that_make_no_sense_are_refused(spec: SupervisorSpec, problem: str) -> None:
    """OTP's rules for significant children and pools."""
    with pytest.raises(SpecError, match=problem):
        validate(spec)


def test_a_significant_child_is_allowed_where_its_end_is_heard() -> None:
    """The combination just inside the rules."""
    validate(SupervisorSpec(auto_shutdown=ANY, children=(SIGNIFICANT,)))
    validate(SupervisorSpec(strategy=POOL, children=(A,)))


def test_the_shutdown_that_is_left_out_depends_on_the_type() -> None:
    """OTP's defaults: 5 s for a worker, infinity for a supervisor; one that is given stays."""
    inner = SupervisorSpec()

    nested = ChildSpec(id="sub", type=ChildType.SUPERVISOR, children=inner)
    brief = ChildSpec(id="sub", type=ChildType.SUPERVISOR, children=inner, shutdown_s=5.0)

    assert (A.shutdown_s, nested.shutdown_s, brief.shutdown_s) == (5.0, None, 5.0)
