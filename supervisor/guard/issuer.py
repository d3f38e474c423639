"""A supervisor issues the identities of its children, and renews them while they run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from protocol.dataclass import dataclass, field
from protocol.transports import identities
from protocol.transports.curve import client_pair
from protocol.transports.identities import Identity, boottime_s

# The next pair is there this part of a life before it is used.
_LEAD = 8


@dataclass(slots=True)
class Grant:
    """What a child is given to derive its keys from.

    Attributes:
        secret: 32 bytes.
        since_s: by boottime_s.
    """

    path: str
    incarnation: int
    secret: bytes
    since_s: float
    issued: int = -1  # the last generation that is
    keys: list[tuple[float, bytes]] = field(default_factory=list)  # end, public half


class Issuer:
    """Issues identities for the children of one supervisor.

    Args:
        run: the run directory.
        life_s: of a pair of keys; it is used for half of it.
    """

    def __init__(self, run: Path, life_s: float) -> None:
        self._run = run
        self._life_s = life_s
        self._use_s = life_s / 2
        self._lead_s = life_s / _LEAD
        self._grants: dict[str, Grant] = {}
        self._due_s = float("inf")  # by boottime_s

    def issue(self, path: str, incarnation: int) -> Grant:
        """Give a new process of a child an identity."""
        self.withdraw(path)
        grant = Grant(path, incarnation, os.urandom(32), boottime_s())
        self._grants[path] = grant
        self._publish(grant, 0)
        self._due_s = min(self._due_s, self._next_s(grant))
        return grant

    def withdraw(self, path: str) -> None:
        """The process has ended."""
        if (grant := self._grants.pop(path, None)) is not None:
            for _end_s, public in grant.keys:
                identities.withdraw(self._run, public)

    def due_s(self) -> float | None:
        """When ``turn`` is needed next, on the monotonic clock."""
        return time.monotonic() + self._due_s - boottime_s() if self._grants else None

    def turn(self) -> None:
        """Issue the pairs that are about to be used, and forget those that have expired."""
        now_s = boottime_s()
        for grant in self._grants.values():
            if self._next_s(grant) > now_s:
                continue
            # More than one where the host was suspended.
            last = int((now_s + self._lead_s - grant.since_s) / self._use_s)
            for generation in range(max(grant.issued + 1, last - 1), last + 1):
                self._publish(grant, generation)
            for expired in [key for key in grant.keys if key[0] <= now_s]:
                grant.keys.remove(expired)
                identities.withdraw(self._run, expired[1])
        self._due_s = min(map(self._next_s, self._grants.values()), default=float("inf"))

    def _next_s(self, grant: Grant) -> float:
        return grant.since_s + (grant.issued + 1) * self._use_s - self._lead_s

    def _publish(self, grant: Grant, generation: int) -> None:
        public = client_pair(grant.secret, generation).public
        end_s = grant.since_s + generation * self._use_s + self._life_s
        identity = Identity(name=grant.path, expires_s=end_s, incarnation=grant.incarnation)
        identities.issue(self._run, public, identity)
        grant.keys.append((end_s, public))
        grant.issued = generation
