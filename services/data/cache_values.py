"""Cached values as they are stored, and the replies made of them. Pure.

Stored: one byte that says whether there is a value, then its msgpack.
"""

from __future__ import annotations

from protocol import codec
from protocol.errors import NovacronError
from protocol.records import Plain
from services.data.cache_records import GetReply, Scope, SetRequest

ABSENT, PRESENT = b"\x00", b"\x01"
# What the keys of shared entries begin with in memory.
SHARED = "s:"

MISS = GetReply(found=False, value=None, is_absent=False, is_stale=False, load="")


def to_blob(request: SetRequest) -> bytes:
    """The value of a request as it is stored.

    Raises:
        LocalProtocolError: it is no plain value.
    """
    return ABSENT if request.is_absent else PRESENT + codec.encode(request.value)


def local_key(key: str, scope: Scope) -> str:
    """The name of an entry in memory."""
    return (SHARED if scope is Scope.SHARED else "n:") + key


def to_reply(blob: bytes, *, is_stale: bool = False) -> GetReply:
    """A stored value as a reply; one that can't be read counts as none."""
    value: Plain = None
    is_present = blob[:1] == PRESENT
    if is_present:
        try:
            value = codec.decode(blob[1:])
        except NovacronError:
            return MISS
    is_absent = blob == ABSENT
    return GetReply(found=is_present, value=value, is_absent=is_absent, is_stale=is_stale, load="")


def to_load(reply: GetReply, token: str) -> GetReply:
    """The same for the one who is to load; what is known stands beside."""
    return GetReply(
        found=reply.found,
        value=reply.value,
        is_absent=False,
        is_stale=reply.is_stale,
        load=token,
    )


def verdict(reply: GetReply) -> str:
    """What came of a get, for the metrics."""
    if reply.load:
        return "load"
    if reply.is_stale:
        return "stale"
    if reply.is_absent:
        return "absent"
    return "hit" if reply.found else "miss"
