"""When to try again, as arithmetic without a clock and without randomness of its own.

Connecting has no jitter: what hosts do in step after the loss of a shared server is a handful of
connection attempts, and the requirements state the pauses exactly. Statements have it: two
transactions that met once would meet again.

The library stamina was rejected here: importing it takes 50 ms of every boot, it decides by
exception alone where we must know whether a COMMIT was under way, and it has no budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field


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


# A conflict is over when the other transaction is, within milliseconds.
STATEMENTS = RetryPolicy(attempts=5, initial_s=0.02, max_s=1.0)


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


def jittered_s(pause_s: float, share: float) -> float:
    """A pause of which all but a tenth is random.

    Args:
        pause_s: the longest.
        share: a random number from 0 up to 1.
    """
    assert 0.0 <= share <= 1.0
    return pause_s * (0.1 + 0.9 * share)


@dataclass(slots=True)
class RetryBudget:
    """Keeps retries a small part of the work, so that they don't keep an overloaded server down.

    A retry takes a whole token and each success gives back a part of one.
    Source: gRPC's retry throttling (A6).

    Attributes:
        tokens_max: retries in a row that are always possible after quiet times.
        refill: tokens per success; 0.1 lets one in ten be a retry in the long run.
    """

    tokens_max: float = 20.0
    refill: float = 0.1
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.tokens_max

    def succeed(self) -> None:
        """Give back a part of a token."""
        self.tokens = min(self.tokens_max, self.tokens + self.refill)

    def take(self) -> bool:
        """Take a token for a retry; False when there is none left."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
