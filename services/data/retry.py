"""When to try again, as arithmetic without a clock.

There is no jitter: what hosts do in step after the loss of a shared server is a handful of
connection attempts, and the requirements state the pauses exactly.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently.

    Attributes:
        attempts: in all, the first included; None for no end.
        initial_s: pause after the first failed attempt.
        factor: growth of the pause from one failed attempt to the next.
        max_s: the cap of a pause.
    """

    attempts: int | None = 5
    initial_s: float = 2.0
    factor: float = 2.0
    max_s: float = 60.0


def retry_pause_s(policy: RetryPolicy, failed: int) -> float | None:
    """How long to wait after so many failed attempts in a row.

    Args:
        policy: how often and how patiently.
        failed: attempts that failed so far, at least 1.

    Returns:
        Seconds, or None when there is to be no further attempt.
    """
    assert failed >= 1
    if policy.attempts is not None and failed >= policy.attempts:
        return None
    # The exponent is bounded, as a float overflows at 1024 doublings.
    return min(policy.max_s, policy.initial_s * policy.factor ** min(failed - 1, 64))
