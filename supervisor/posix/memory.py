"""How much memory a process and all below it use."""

from __future__ import annotations

import contextlib
import os

from supervisor.posix.processes import descendants_of

_READ_BYTES = 4096
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
