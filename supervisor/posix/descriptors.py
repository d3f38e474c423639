"""Closing descriptors by number."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

# Above this there is none: the tree opens a few dozen per process, the launcher some per child.
_MAX = 1 << 20


def close_all(numbers: Iterable[int]) -> None:
    """Close each of these, all open."""
    for number in numbers:
        os.close(number)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor of this process except these."""
    first = 0
    for number in sorted(set(kept)):
        if first < number:  # an empty range at 0 would be taken for everything
            os.closerange(first, number)
        first = number + 1
    os.closerange(first, _MAX)


def keep_to_ourselves() -> None:
    """Let no program that this process executes have more than the three standard streams."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers are wanted, not paths
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(int(name), False)  # noqa: FBT003 - its only form
