"""All secrets of a configuration, fetched before there is a tree, within a deadline.

The process that reads the configuration does this and ends, with it the providers' libraries.
What may pass is tried again; what can't is told at once, for all secrets together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.security.secrets.errors import SecretError
from services.security.secrets.provider import Secret
from services.security.secrets.reference import SecretName
from services.security.secrets.registry import Providers

RETRY_PAUSE_S = 0.5
RETRY_PAUSE_MAX_S = 5.0
LAST_ATTEMPT_S = 1.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one secret: one of the two."""

    secret: Secret | None = None
    error: SecretError | None = None


def fetch(
    names: Iterable[SecretName],
    providers: Providers,
    *,
    timeout_s: float,
    attempt_s: float,
    tell: Callable[[str], None] = lambda _sentence: None,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[SecretName, Fetched]:
    """Fetch secrets one after the other.

    Args:
        names: each is fetched once.
        providers: where from.
        timeout_s: for all of them, attempts and pauses included.
        attempt_s: for one request.
        tell: told once of each secret that is waited for.
        now_s: the clock; monotonic.
        sleep: waits between attempts.
    """
    end_s = now_s() + timeout_s
    found: dict[SecretName, Fetched] = {}
    for name in sorted(set(names)):
        attempt = _Attempt(name, providers, end_s, attempt_s)
        found[name] = _fetch_one(attempt, tell, now_s, sleep)
    return found


@dataclass(frozen=True, slots=True)
class _Attempt:
    name: SecretName
    providers: Providers
    end_s: float
    attempt_s: float

    def run(self, now_s: float) -> Secret:
        # At least a short attempt for each, however late it is.
        left_s = max(self.end_s - now_s, min(LAST_ATTEMPT_S, self.attempt_s))
        bounded = self.providers.bounded(self.name.provider)
        return bounded.run(lambda: self.providers.get(self.name), min(self.attempt_s, left_s))


def _fetch_one(
    attempt: _Attempt,
    tell: Callable[[str], None],
    now_s: Callable[[], float],
    sleep: Callable[[float], None],
) -> Fetched:
    pause_s, has_told = RETRY_PAUSE_S, False
    while True:
        try:
            return Fetched(attempt.run(now_s()))
        except SecretError as exc:
            if not exc.retryable or now_s() + pause_s >= attempt.end_s:
                return Fetched(error=exc)
            if not has_told:
                tell(f"waiting for the secret {attempt.name}: {exc.message}")
                has_told = True
        sleep(pause_s)
        pause_s = min(2 * pause_s, RETRY_PAUSE_MAX_S)
