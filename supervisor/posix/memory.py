"""How much memory a process and all below it use."""

from __future__ import annotations

import contextlib
import os

from supervisor.posix.processes import descendants_of

_READ_BYTES = 4096
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# All processes of a child are looked at every so many looks, or when there is a reason to.
_LOOKS_BETWEEN = 3
_PRIVATE = (b"RssAnon:", b"VmSwap:")
_SHARED = b"RssShmem:"


def tree_memory_bytes(pid: int) -> int | None:
    """Memory of a process and its descendants, swapped out or not; None when it has ended.

    Private memory is added up. Shared memory counts once, with the largest user of it, or a
    database's shared buffers would count for each of its processes; pages of files do not count,
    as the kernel can give them back. What a fork has not changed yet counts for both sides: to
    tell it apart costs a hundred times as much (smaps).
    """
    private = shared = 0
    is_there = False
    for process in (pid, *descendants_of(pid)):
        with contextlib.suppress(OSError, ValueError):
            text = _status(process)
            private += sum(_kibibytes(text, name) for name in _PRIVATE)
            shared = max(shared, _kibibytes(text, _SHARED))
            is_there = is_there or process == pid
    return (private + shared) * 1024 if is_there else None


class MemoryGauge:
    """What a process and its descendants use, for one who looks often and for little.

    Looking at all of them costs a tenth of a millisecond. The process itself is looked at every
    time, in a twentieth of that; the others too once it has grown, when the whole is more than half
    of what is allowed, and else every third time.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._looks = 0
        self._total = 0
        self._own_then = 0

    def look(self, limit_bytes: int) -> int | None:
        """What they use; None when the process has ended.

        Args:
            limit_bytes: from which on it matters.
        """
        try:
            own = self._own_bytes()
        except OSError:
            return None
        grown = own - self._own_then
        is_due = self._looks % _LOOKS_BETWEEN == 0
        self._looks += 1
        if is_due or grown > limit_bytes // 8 or self._total > limit_bytes // 2:
            total = tree_memory_bytes(self._pid)
            if total is None:
                return None
            self._total, self._own_then, grown = total, own, 0
        return self._total + grown

    def close(self) -> None:
        """Close what is open."""
        os.close(self._descriptor)

    def _own_bytes(self) -> int:
        """Private memory of the process itself, without what is swapped out."""
        _size, resident, shared, *_ = os.pread(self._descriptor, _READ_BYTES, 0).split()
        return (int(resident) - int(shared)) * _PAGE_BYTES


def _status(pid: int) -> bytes:
    descriptor = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _kibibytes(text: bytes, name: bytes) -> int:
    """A field's value; a zombie has none."""
    start = text.find(name)
    if start < 0:
        return 0
    start += len(name)
    return int(text[start : text.index(b"kB", start)])
