"""Classes of failure, the budget of retries, and the labels of statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages.metrics import MetricSample
from services.data.failures import CONFLICTS, UNKNOWN_AT_COMMIT, FailureClass, classify
from services.data.retry import RetryBudget, jittered_s
from services.data.statements import OTHER, Observation, StatementMeter


@pytest.mark.parametrize(
    ("sqlstate", "failure"),
    [
        ("40001", FailureClass.CONFLICT),
        ("40P01", FailureClass.CONFLICT),
        ("55P03", FailureClass.LOCKED),
        ("57P01", FailureClass.LOST),
        ("08006", FailureClass.LOST),
        ("25006", FailureClass.LOST),
        ("57014", FailureClass.SLOW),
        ("53100", FailureClass.EXHAUSTED),
        ("23505", FailureClass.CONSTRAINT),
        ("42501", FailureClass.PERMISSION),
        ("42601", FailureClass.SYNTAX),
        ("22012", FailureClass.DATA),
        ("XX000", FailureClass.OTHER),
        (None, FailureClass.OTHER),
    ],
)
def test_each_code_has_its_class(sqlstate: str | None, failure: FailureClass) -> None:
    """Whole codes win over their class of two characters."""
    assert classify(sqlstate) is failure


def test_silence_of_a_lost_connection_is_a_loss() -> None:
    """Nothing was said, and the connection is gone; what was said still counts."""
    assert classify(None, is_connection_lost=True) is FailureClass.LOST
    assert classify("23505", is_connection_lost=True) is FailureClass.CONSTRAINT


def test_a_conflict_at_commit_is_no_unknown_outcome() -> None:
    """The server said that it rolled back."""
    assert not CONFLICTS & UNKNOWN_AT_COMMIT
    assert FailureClass.CONSTRAINT not in UNKNOWN_AT_COMMIT


def test_budget_lets_a_tenth_be_retries() -> None:
    """After the reserve is used up ten successes pay for one retry."""
    budget = RetryBudget(tokens_max=2)
    assert [budget.take() for _ in range(3)] == [True, True, False]

    for _ in range(9):
        budget.succeed()
    assert not budget.take()
    budget.succeed()
    budget.succeed()

    assert budget.take()
    assert not budget.take()


@given(pause_s=st.floats(0.001, 60), share=st.floats(0, 1))
def test_jitter_stays_within_the_pause(pause_s: float, share: float) -> None:
    """Never longer than the pause, and never nothing."""
    assert 0 < jittered_s(pause_s, share) <= pause_s * 1.0000001


def test_statement_labels_are_bounded() -> None:
    """Names beyond the limit, and what is no name, count together."""
    samples: list[MetricSample] = []
    meter = StatementMeter(samples.append, names_max=2)

    for name in ("a.one", "two", "three", "SELECT secret FROM x", "a.one"):
        meter.observe(Observation(name, 0.1))
    meter.observe(Observation("two", 0.1, FailureClass.CONFLICT, is_retried=True))

    names = [sample.labels["statement"] for sample in samples[:5]]
    assert names == ["a.one", "two", OTHER, OTHER, "a.one"]
    assert [sample.name.rpartition("_")[0] for sample in samples[5:]] == [
        "novacron_database_statement",
        "novacron_database_statement_errors",
        "novacron_database_retries",
    ]
    assert samples[-1].labels == {"statement": "two", "class": "conflict"}
