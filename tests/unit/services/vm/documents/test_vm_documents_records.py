"""Replies stay within a message."""

from __future__ import annotations

from services.vm.documents.records import Outcome, StepResult, fit_results, fit_steps
from services.vm.documents.steps import Step, StepKind

STEPS = [
    Step(kind=StepKind.REDEFINE, name=f"vm-{number}", reason="it differs", details=("x" * 60,) * 20)
    for number in range(100)
]


def test_steps_that_fit_are_all_there() -> None:
    """With their details."""
    assert fit_steps(STEPS) == (tuple(STEPS), 0)


def test_details_go_before_steps() -> None:
    """All steps without them, rather than some with them."""
    kept, omitted = fit_steps(STEPS, 20_000)

    assert (len(kept), omitted) == (100, 0)
    assert all(step.details == () for step in kept)


def test_what_does_not_fit_is_counted() -> None:
    """The first ones are kept."""
    kept, omitted = fit_steps(STEPS, 1_000)

    assert kept[0].name == "vm-0"
    assert 0 < len(kept) == 100 - omitted


def test_no_result_is_left_away() -> None:
    """Messages are cut instead: whether a step was taken must be said."""
    results = [StepResult(step=step, outcome=Outcome.FAILED, message="m" * 1000) for step in STEPS]

    assert fit_results(results) == tuple(results)
    cut = fit_results(results, 50_000)
    assert len(cut) == 100
    assert all(len(result.message) == 80 and not result.step.details for result in cut)
