"""The restart window: how many restarts lie within the last period.

Rule: a restart that is exactly ``period_s`` old still counts, and the limit trips at
``intensity + 1``, both as in OTP. Unlike OTP, times are continuous, not whole seconds.

Source: OTP ``supervisor`` reference, Maximum Restart Intensity.
"""

from __future__ import annotations

from collections import deque

from supervisor.core.spec import RestartIntensity


class RestartWindow:
    """Restarts of the last period, oldest first; holds at most intensity + 1 of them."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque()

    def add(self, now_s: float, limit: RestartIntensity) -> bool:
        """Count a restart; False when it is one too many and must not be carried out."""
        self._times_s.append(now_s)
        return self.count(now_s, limit) <= limit.intensity

    def count(self, now_s: float, limit: RestartIntensity) -> int:
        """How many restarts count at the moment."""
        while self._times_s and self._times_s[0] < now_s - limit.period_s:
            self._times_s.popleft()
        return len(self._times_s)

    def clear(self) -> None:
        """Forget everything, as when an operator intervenes."""
        self._times_s.clear()
