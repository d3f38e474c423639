"""How long to wait before a restart: nothing at first, then doubling pauses with jitter."""

from __future__ import annotations

from supervisor.core.spec import Backoff


def restart_pause_s(backoff: Backoff, *, failures: int, draw: float) -> float:
    """The pause before a restart.

    Args:
        backoff: the bounds.
        failures: ends in a row, this one included; at least 1.
        draw: a random number in [0, 1).
    """
    if failures <= 1:
        return 0.0
    return _jittered(
        _grown(backoff.initial_s, backoff.factor, failures - 2, backoff.max_s), backoff, draw
    )


def degraded_pause_s(backoff: Backoff, *, attempts: int, draw: float) -> float:
    """The pause before a degraded child is tried again.

    Args:
        backoff: the bounds.
        attempts: how often it was given up, this time included; at least 1.
        draw: a random number in [0, 1).
    """
    pause_s = _grown(
        backoff.degraded_initial_s, backoff.factor, attempts - 1, backoff.degraded_max_s
    )
    return _jittered(pause_s, backoff, draw)


def _grown(initial_s: float, factor: float, times: int, max_s: float) -> float:
    # The exponent is bounded so that the power can't overflow however long a child has failed.
    return float(min(max_s, initial_s * factor ** min(times, 64)))


def _jittered(pause_s: float, backoff: Backoff, draw: float) -> float:
    return pause_s * (1.0 - backoff.jitter * draw)
