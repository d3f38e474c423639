"""What the model knows of time: how old restarts are, and how long pauses may be."""

from __future__ import annotations

from supervisor.core.spec import Backoff, RestartIntensity

# Sums of floats that are the same time may differ by so much.
ROUNDING_S = 1e-9
# Sums and differences of multiples of this are exact.
EXACT_S = 2.0**-20


class Window:
    """Counted restarts, and the times in which their age stood still."""

    def __init__(self) -> None:
        self.counted_s: list[float] = []
        self._busy: list[tuple[float, float]] = []
        self._busy_since_s: float | None = None

    def note_busy(self, now_s: float, *, is_busy: bool) -> None:
        """Somebody starts or stops from now on, or nobody does."""
        if is_busy and self._busy_since_s is None:
            self._busy_since_s = now_s
        elif not is_busy and self._busy_since_s is not None:
            self._busy.append((self._busy_since_s, now_s))
            self._busy_since_s = None

    def is_exceeded(self, now_s: float, limit: RestartIntensity, *, machine_says: bool) -> bool:
        """Whether too many of the restarts are at most one period old.

        Args:
            now_s: the time.
            limit: how many are too many.
            machine_says: believed where rounding decides, which it does only at the very edge
                and only where times are no multiples of EXACT_S.
        """
        ages = [self._age_s(at_s, now_s) for at_s in self.counted_s]
        young = [age <= limit.period_s + ROUNDING_S for age in ages]
        self.counted_s = [at_s for at_s, keep in zip(self.counted_s, young, strict=True) if keep]
        if sum(age <= limit.period_s - ROUNDING_S for age in ages) > limit.intensity:
            return True
        if sum(age <= limit.period_s + ROUNDING_S for age in ages) <= limit.intensity:
            return False
        times = [now_s, *self.counted_s, *(at_s for span in self._busy for at_s in span)]
        if all((at_s / EXACT_S).is_integer() for at_s in times):
            return sum(age <= limit.period_s for age in ages) > limit.intensity
        return machine_says

    def _age_s(self, at_s: float, now_s: float) -> float:
        busy = [*self._busy]
        if self._busy_since_s is not None:
            busy.append((self._busy_since_s, now_s))
        still = sum(max(0.0, end - max(start, at_s)) for start, end in busy if end > at_s)
        return (now_s - at_s) - still


def restart_pause_bounds_s(backoff: Backoff, failures: int) -> tuple[float, float]:
    """Between which times the pause before a restart lies."""
    pause_s, grown_s = 0.0, backoff.initial_s
    for number in range(2, failures + 1):
        pause_s = min(grown_s, backoff.max_s)
        grown_s = min(grown_s * backoff.factor, 1e9)
        if number > 200:  # it has long reached the cap
            break
    return pause_s * (1 - backoff.jitter), pause_s


def degraded_pause_bounds_s(backoff: Backoff, attempts: int) -> tuple[float, float]:
    """Between which times the pause before another attempt with a degraded child lies."""
    pause_s = backoff.degraded_initial_s
    for _ in range(min(attempts - 1, 200)):
        pause_s = min(pause_s * backoff.factor, backoff.degraded_max_s)
    pause_s = min(pause_s, backoff.degraded_max_s)
    return pause_s * (1 - backoff.jitter), pause_s
