"""Files of a run directory that say who may call, and their removal; see the modules that use them.

Imports nothing, for those who only clear up.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

IDENTITIES = "identities"
EPOCH = "epoch"
REVOKED = "revoked"
POLICY = "policy"


def remove(run: Path) -> None:
    """Take away what a tree leaves of them; nothing happens where there is nothing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for left in (run / IDENTITIES).iterdir():
            left.unlink()
        (run / IDENTITIES).rmdir()
    for name in (EPOCH, REVOKED, POLICY):
        (run / name).unlink(missing_ok=True)
