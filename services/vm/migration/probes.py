"""Files that are made for a moment, to see whether another host sees the same directory."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def probes(directories: Iterable[str]) -> Iterator[dict[str, str]]:
    """Make an empty file in each directory, gone afterwards; blocks.

    Yields:
        The file's name by directory; a directory that can't be written to has none.
    """
    made: dict[str, str] = {}
    try:
        for directory in sorted(set(directories)):
            name = f"novacron-probe-{secrets.token_hex(8)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with contextlib.suppress(OSError):
                os.close(os.open(f"{directory}/{name}", flags, 0o600))
                made[directory] = name
        yield made
    finally:
        for directory, name in made.items():
            with contextlib.suppress(OSError):
                Path(directory, name).unlink()
