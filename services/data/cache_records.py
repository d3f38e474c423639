"""What callers of ``data/cache`` send and get, and its limits. Pure; no client is loaded."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.records import Plain
from services.data.errors import CacheLimitError

KEY_LENGTH_MAX = 256
VALUE_BYTES_MAX = 64 * 1024
TTL_MAX_S = 24 * 3600.0
# Somebody waits for what is loaded; longer than this is a job and no cache miss.
LOAD_MAX_S = 60.0
WAIT_MAX_S = 30.0
# Share of its time to live by which an entry may end earlier, so that what was set together does
# not end together.
JITTER = 0.1


class Scope(enum.Enum):
    """Whose entry it is: this node's alone, or all nodes' that share the Redis."""

    NODE = "node"
    SHARED = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """Body of ``cache.delete``."""

    key: str
    scope: Scope = Scope.NODE


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRequest:
    """Body of ``cache.get``.

    Attributes:
        key: 1 to KEY_LENGTH_MAX characters.
        scope: whose.
        load_s: more than 0: whoever misses wants to load the value, and takes at most so long.
            One caller is told to, the others wait for it or get the value that has just ended.
        wait_s: how long to wait for another's loading.
    """

    key: str
    scope: Scope = Scope.NODE
    load_s: float = 0.0
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GetReply:
    """What ``cache.get`` answers.

    Attributes:
        found: there is a value.
        value: it; None otherwise.
        is_absent: it is known that there is nothing to be found; no reason to load.
        is_stale: the value's time has ended; it is good while somebody loads.
        load: not "": the caller is the one who loads; give it back with ``cache.set`` or
            ``cache.abandon``.
    """

    found: bool
    value: Plain
    is_absent: bool
    is_stale: bool
    load: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRequest:
    """Body of ``cache.set``.

    Attributes:
        key, scope: which entry.
        value: any plain value.
        ttl_s: how long it is good, less JITTER at most.
        stale_s: how long after that it may serve while somebody loads.
        is_absent: instead of a value: there is none, for ``ttl_s``.
        load: what ``cache.get`` told to load with; the value is kept only if nobody else was told
            to meanwhile and the key was not set or deleted.
    """

    key: str
    value: Plain = None
    ttl_s: float = 300.0
    stale_s: float = 0.0
    scope: Scope = Scope.NODE
    is_absent: bool = False
    load: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonRequest:
    """Body of ``cache.abandon``: the loading failed, another may try."""

    key: str
    load: str
    scope: Scope = Scope.NODE


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatus:
    """What ``cache.status`` answers.

    Attributes:
        is_connected: Redis answers.
        is_listening: other nodes' changes arrive.
        entries, size_bytes, evictions: of the memory.
        losses: of Redis, since the process started.
        loads: values that are being loaded now.
    """

    is_connected: bool
    is_listening: bool
    entries: int
    size_bytes: int
    evictions: int
    losses: int
    loads: int


def check_key(key: str) -> None:
    """See to it that a key is one.

    Raises:
        CacheLimitError: it is empty or too long.
    """
    if not 0 < len(key) <= KEY_LENGTH_MAX:
        raise CacheLimitError(f"the key has {len(key)} characters; 1 to {KEY_LENGTH_MAX}")


def check_get(request: GetRequest) -> None:
    """See to it that the waits are bounded.

    Raises:
        CacheLimitError: names what is outside its limits.
    """
    check_key(request.key)
    for name, value, most in (
        ("load_s", request.load_s, LOAD_MAX_S),
        ("wait_s", request.wait_s, WAIT_MAX_S),
    ):
        if not 0 <= value <= most:
            raise CacheLimitError(f"{name} is {value:g}; 0 to {most:g}")


def check_set(request: SetRequest, size_bytes: int) -> None:
    """See to it that size and times are within the limits.

    Raises:
        CacheLimitError: names what is outside its limits.
    """
    check_key(request.key)
    if size_bytes > VALUE_BYTES_MAX:
        raise CacheLimitError(f"the value has {size_bytes} bytes; at most {VALUE_BYTES_MAX}")
    if not 0 < request.ttl_s <= TTL_MAX_S:
        raise CacheLimitError(f"ttl_s is {request.ttl_s:g}; more than 0, at most {TTL_MAX_S:g}")
    if not 0 <= request.stale_s <= TTL_MAX_S:
        raise CacheLimitError(f"stale_s is {request.stale_s:g}; 0 to {TTL_MAX_S:g}")
