"""The restart window: how many restarts lie within the last period.

Rule: a restart that is exactly ``period_s`` old still counts, and the limit trips at
``intensity + 1``, both as in OTP. Unlike OTP, times are continuous, not whole seconds, and the
window has a clock of its own that stands still while somebody is starting or stopping: otherwise
children that take longer to start than period / intensity could crash for ever.

Source: OTP ``supervisor`` reference, Maximum Restart Intensity; erlang/otp #4648.
"""

from __future__ import annotations

from collections import deque

from supervisor.core.spec import RestartIntensity


class RestartWindow:
    """Restarts of the last period, oldest first; holds at most intensity + 1 of them.

    What was too old when a restart was counted is forgotten, even where a new specification
    makes the period longer.
    """

    def __init__(self) -> None:
        self._times_s: deque[float] = deque()
        self._held_s: float | None = None
        self._stood_s = 0.0

    def hold(self, now_s: float) -> None:
        """Stop the window's clock."""
        if self._held_s is None:
            self._held_s = now_s

    def release(self, now_s: float) -> None:
        """Let the window's clock go on."""
        if self._held_s is not None:
            self._stood_s += now_s - self._held_s
            self._held_s = None

    def add(self, now_s: float, limit: RestartIntensity) -> bool:
        """Count a restart; False when it is one too many and must not be carried out."""
        clock_s = self._clock_s(now_s)
        while self._times_s and clock_s - self._times_s[0] > limit.period_s:
            self._times_s.popleft()
        self._times_s.append(clock_s)
        return len(self._times_s) <= limit.intensity

    def count(self, now_s: float, limit: RestartIntensity) -> int:
        """How many restarts count at the moment; changes nothing."""
        clock_s = self._clock_s(now_s)
        return sum(clock_s - at_s <= limit.period_s for at_s in self._times_s)

    def clear(self) -> None:
        """Forget the restarts, as when an operator intervenes."""
        self._times_s.clear()

    def _clock_s(self, now_s: float) -> float:
        return (now_s if self._held_s is None else self._held_s) - self._stood_s
