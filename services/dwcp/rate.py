"""How fast something goes, smoothed over a few seconds. Arithmetic only."""

from __future__ import annotations

# Short enough to follow a change of streams, long enough that the figure can be read.
_PERIOD_S = 0.25
_SMOOTHING = 0.3


class RateMeter:
    """An exponentially weighted mean of a counter's growth.

    Args:
        now_s: monotonic time of the count 0.
    """

    def __init__(self, now_s: float) -> None:
        self.rate_bytes_s = 0.0
        self._at_s = now_s
        self._count = 0
        self._is_first = True

    def step(self, now_s: float, count: int) -> None:
        """Take in the counter's present value."""
        elapsed_s = now_s - self._at_s
        if elapsed_s < _PERIOD_S:
            return
        rate = (count - self._count) / elapsed_s
        weight = 1.0 if self._is_first else _SMOOTHING
        self.rate_bytes_s += weight * (rate - self.rate_bytes_s)
        self._at_s, self._count, self._is_first = now_s, count, False
