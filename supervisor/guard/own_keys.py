"""The keys that a process calls with, one pair after another.

A pair is used for half of its life; by then its supervisor has issued the next one, which both
derive from a secret of this process alone. What a process says with an old pair would be refused,
so it looks at the clock before it speaks. A supervisor that is late, as after a suspension of the
host, is waited for with the old pair.
"""

from __future__ import annotations

from pathlib import Path

from protocol.transports import identities
from protocol.transports.curve import KeyPair, client_pair
from protocol.transports.identities import boottime_s

_RETRY_S = 0.5


class OwnKeys:
    """The keys of this process.

    Args:
        run: the run directory.
        secret: of this process; its supervisor has drawn it.
        since_s: when, by boottime_s.
        life_s: of a pair.
    """

    def __init__(self, run: Path, secret: bytes, *, since_s: float, life_s: float) -> None:
        self._run = run
        self._secret = secret
        self._since_s = since_s
        self._use_s = life_s / 2
        self._pair = client_pair(secret, 0)
        self._next_s = since_s + self._use_s

    def current(self) -> KeyPair:
        """The pair to call with now; another object once it is another one."""
        now_s = boottime_s()
        if now_s >= self._next_s:
            self._step(now_s)
        return self._pair

    def _step(self, now_s: float) -> None:
        generation = int((now_s - self._since_s) / self._use_s)
        pair = client_pair(self._secret, generation)
        if identities.is_issued(self._run, pair.public):
            self._pair = pair
            self._next_s = self._since_s + (generation + 1) * self._use_s
        else:
            self._next_s = now_s + _RETRY_S
