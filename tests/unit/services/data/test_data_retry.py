"""The pauses between attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.data.retry import RetryPolicy, retry_pause_s


def test_default_policy_doubles_from_two_seconds_and_ends_after_five_attempts() -> None:
    """Five attempts in all, with pauses of 2, 4, 8 and 16 seconds between them."""
    pauses = [retry_pause_s(RetryPolicy(), failed) for failed in range(1, 6)]

    assert pauses == [2.0, 4.0, 8.0, 16.0, None]


@given(failed=st.integers(1, 10**9), max_s=st.floats(0.1, 1000))
def test_endless_policy_never_ends_and_never_passes_its_cap(failed: int, max_s: float) -> None:
    """Without a limit of attempts there is always a pause, at most the cap."""
    policy = RetryPolicy(attempts=None, initial_s=0.1, max_s=max_s)

    pause_s = retry_pause_s(policy, failed)

    assert pause_s is not None
    assert 0 < pause_s <= max_s


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_there_is_no_pause_after_the_last_attempt(attempts: int) -> None:
    """As many attempts as stated, not one more."""
    policy = RetryPolicy(attempts=attempts)

    pauses = [retry_pause_s(policy, failed) for failed in range(1, attempts + 1)]

    assert pauses[-1] is None
    assert None not in pauses[:-1]
