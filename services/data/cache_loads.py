"""Who loads which key at the moment: at most one caller each. Pure; time is an argument.

A lease ends by itself, so that a loader that died keeps nobody waiting. Its number is the fence:
a value is taken only under the newest number of its key, and not once the key was set or deleted
by somebody else. So a loader that was held up for longer than its lease overwrites nothing newer.
"""

from __future__ import annotations

from dataclasses import dataclass

# Loads that can be under way or just over; a loader that finds no room loads and keeps nothing.
LOADS_MAX = 4096


@dataclass(frozen=True, slots=True)
class _Lease:
    token: str
    ends_s: float


class Loads:
    """The leases of one process.

    Args:
        run_id: tells tokens of this process from an earlier one's.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._number = 0
        self._leases: dict[str, _Lease] = {}

    def begin(self, key: str, *, lease_s: float, now_s: float) -> str | None:
        """A token for the one who is to load, or None while somebody else does."""
        lease = self._leases.get(key)
        if lease is not None and lease.ends_s > now_s:
            return None
        if lease is None and not self._make_room(now_s):
            return None
        self._number += 1
        token = f"{self._run_id}.{self._number}"
        self._leases[key] = _Lease(token, now_s + lease_s)
        return token

    def end(self, key: str, token: str) -> bool:
        """Finish a load; False when the token is not the key's newest, or nothing counts now."""
        lease = self._leases.get(key)
        if lease is None or lease.token != token:
            return False
        del self._leases[key]
        return True

    def revoke(self, key: str) -> None:
        """The key was set or deleted by somebody else: what is being loaded is too old."""
        self._leases.pop(key, None)

    def left_s(self, key: str, now_s: float) -> float:
        """How long the key's loader still has; 0 without one."""
        lease = self._leases.get(key)
        return 0.0 if lease is None else max(0.0, lease.ends_s - now_s)

    def active(self, now_s: float) -> int:
        """How many load now."""
        return sum(lease.ends_s > now_s for lease in self._leases.values())

    def _make_room(self, now_s: float) -> bool:
        if len(self._leases) >= LOADS_MAX:
            self._leases = {k: lease for k, lease in self._leases.items() if lease.ends_s > now_s}
        return len(self._leases) < LOADS_MAX
