"""A bounded cache in memory, where every entry ends by itself.

Bounded in entries and in bytes; what was used longest ago goes first. Time is an argument. An
entry is fresh for its time to live, and may be kept for some time after that as a stale one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

# What an entry takes beside its key and value: the objects around them, and the dictionary's slot.
ENTRY_OVERHEAD_BYTES = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    ends_s: float
    gone_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCacheStatistics:
    """Entries and bytes held, and how many entries gave way to others."""

    entries: int
    size_bytes: int
    evictions: int


class LocalCache:
    """Values by key, each with its end.

    Args:
        entries_max: most entries.
        bytes_max: most bytes: keys, values and what is around them.
    """

    def __init__(self, *, entries_max: int, bytes_max: int) -> None:
        assert entries_max > 0
        assert bytes_max > 0
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._evictions = 0

    def get(self, key: str, now_s: float) -> bytes | None:
        """The value, or None when there is none or it has ended."""
        entry = self._find(key, now_s)
        return entry.value if entry is not None and entry.ends_s > now_s else None

    def get_stale(self, key: str, now_s: float) -> bytes | None:
        """The value, also one that has ended and is kept for a while."""
        entry = self._find(key, now_s)
        return entry.value if entry is not None else None

    def set(
        self, key: str, value: bytes, *, ttl_s: float, now_s: float, stale_s: float = 0.0
    ) -> None:
        """Keep a value for ``ttl_s`` and then ``stale_s``; others give way if there is no room."""
        self.delete(key)
        size = _size(key, value)
        if size > self._bytes_max:
            return
        while self._entries and (
            self._bytes + size > self._bytes_max or len(self._entries) >= self._entries_max
        ):
            oldest, entry = self._entries.popitem(last=False)
            self._bytes -= _size(oldest, entry.value)
            self._evictions += entry.ends_s > now_s
        self._entries[key] = _Entry(value, now_s + ttl_s, now_s + ttl_s + stale_s)
        self._bytes += size

    def delete(self, key: str) -> bool:
        """Forget a value; tells whether there was one."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= _size(key, entry.value)
        return True

    def delete_prefix(self, prefix: str) -> None:
        """Forget all values whose key begins so."""
        for key in [key for key in self._entries if key.startswith(prefix)]:
            self.delete(key)

    def items(self, now_s: float) -> Iterator[tuple[str, bytes, float]]:
        """Key, value and remaining seconds of what has not ended."""
        for key, entry in self._entries.items():
            if entry.ends_s > now_s:
                yield key, entry.value, entry.ends_s - now_s

    def statistics(self) -> LocalCacheStatistics:
        """What is held."""
        return LocalCacheStatistics(
            entries=len(self._entries), size_bytes=self._bytes, evictions=self._evictions
        )

    def _find(self, key: str, now_s: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.gone_s <= now_s:
            self.delete(key)
            return None
        self._entries.move_to_end(key)
        return entry


def _size(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value) + ENTRY_OVERHEAD_BYTES
