"""Whether the kernel has killed for want of memory, anywhere on the host."""

from __future__ import annotations

import contextlib
import os

_FILE = "/proc/vmstat"
_FIELD = b"\noom_kill "
_READ_BYTES = 32 << 10


class HostKills:
    """Counts processes that the kernel has killed for want of memory since it last looked."""

    def __init__(self) -> None:
        self._count = _count()

    def took_place(self) -> bool:
        """Whether there was one since the last call."""
        before, self._count = self._count, _count()
        return self._count > before


def _count() -> int:
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, _READ_BYTES)
        finally:
            os.close(descriptor)
        start = text.index(_FIELD) + len(_FIELD)
        return int(text[start : text.index(b"\n", start)])
    return 0
