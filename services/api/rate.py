"""How many requests a client may make: a bucket of tokens per client, decided without a clock.

A bucket holds one minute's requests and refills evenly. So a client that has been quiet may send
a whole minute's requests at once, as a page with many parts does, and in the long run no more
than the configured number per minute.

The table is bounded. A client unseen for a minute has a full bucket again, which is what a new
client gets, so forgetting it changes nothing; the clients unseen for longest are forgotten first.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass

# Some 200 bytes each; a flood from more addresses than this within a minute is not what a rate
# limit per client can stop.
CLIENTS_MAX = 10_000
_MINUTE_S = 60.0
# What one subscriber gets in IPv6, who could otherwise have 2**64 buckets.
_IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True)
class Permit:
    """Whether a request may go on; if not, in how many whole seconds the next one may."""

    is_granted: bool
    retry_after_s: int = 0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float


class RateLimiter:
    """The buckets of all clients.

    Args:
        requests_per_minute: at least 1.
        clients_max: see the module.
    """

    def __init__(self, requests_per_minute: int, *, clients_max: int = CLIENTS_MAX) -> None:
        assert requests_per_minute >= 1
        assert clients_max >= 1
        self._capacity = float(requests_per_minute)
        self._per_s = requests_per_minute / _MINUTE_S
        self._clients_max = clients_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, client: str, *, now_s: float) -> Permit:
        """Take one token of a client's bucket.

        Args:
            client: from client_of.
            now_s: monotonic; one that runs backwards adds nothing.
        """
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._add(client, now_s)
        self._buckets.move_to_end(client)
        passed_s = max(now_s - bucket.filled_s, 0.0)
        bucket.tokens = min(self._capacity, bucket.tokens + passed_s * self._per_s)
        bucket.filled_s = max(now_s, bucket.filled_s)
        if bucket.tokens < 1.0:
            return Permit(
                is_granted=False, retry_after_s=math.ceil((1.0 - bucket.tokens) / self._per_s)
            )
        bucket.tokens -= 1.0
        return Permit(is_granted=True)

    def has(self, client: str, *, now_s: float) -> bool:
        """Whether a client's bucket holds a token; takes none."""
        bucket = self._buckets.get(client)
        if bucket is None:
            return True
        return bucket.tokens + max(now_s - bucket.filled_s, 0.0) * self._per_s >= 1.0

    def clients(self) -> int:
        """Buckets at the moment."""
        return len(self._buckets)

    def _add(self, client: str, now_s: float) -> _Bucket:
        while len(self._buckets) >= self._clients_max:
            self._buckets.popitem(last=False)
        bucket = self._buckets[client] = _Bucket(self._capacity, now_s)
        return bucket


def client_of(address: str) -> str:
    """Whose requests are counted together: an IPv4 address, or an IPv6 network of one subscriber.

    The peer's own address counts. ``X-Forwarded-For`` is what the client claims, so it is not
    read; behind a proxy all clients share the proxy's bucket, and the proxy limits them.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)
