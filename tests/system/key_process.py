"""A process that changes keys and ends at a given change of its disk, for the tests of crashes.

``python -m tests.system.key_process DIRECTORY STEP WORK...`` seals, rotates or changes the master
key, and kills itself with SIGKILL right before its change number STEP; -1 for never. Each value
that was sealed and written down goes to DIRECTORY/sealed, one line of hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from services.security import cipher
from services.security.errors import KeyRefusedError
from services.security.keyring import Keyring, load_keyring
from services.security.keys.disk import DirectoryDisk

CONTEXT = cipher.bind("test", "value")
VALUE = b"value"


def open_all(directory: Path) -> tuple[Keyring, int]:
    """Load the keys and open everything that was sealed; returns how many values there are."""
    mirror = directory / "mirror"
    keyring = load_keyring(
        directory / "security",
        node_id="node",
        now_s=time.time(),
        mirror=mirror.read_bytes() if mirror.exists() else None,
    )
    lines = (directory / "sealed").read_text().splitlines() if mirror.exists() else []
    for line in lines:
        assert keyring.open(bytes.fromhex(line), context=CONTEXT) == VALUE
    return keyring, len(lines)


class Work:
    """What the process does, over a disk that kills it."""

    def __init__(self, directory: Path, step: int) -> None:
        self._directory = directory
        self._left = step

    def run(self, works: list[str]) -> None:
        """Find the keys and do all works."""
        mirror = self._directory / "mirror"
        keyring = load_keyring(
            self._directory,
            node_id="node",
            now_s=time.time(),
            mirror=mirror.read_bytes() if mirror.exists() else None,
            disk=DirectoryDisk(self._directory / "security", self._on_step),
        )
        for what in works:
            self._do(keyring, what)

    def _do(self, keyring: Keyring, what: str) -> None:
        match what:
            case "seal":
                sealed = keyring.seal(VALUE, context=CONTEXT)
                self._sync(keyring)
                with (self._directory / "sealed").open("a") as file:
                    file.write(sealed.hex() + "\n")
            case "rotate":
                keyring.rotate(now_s=time.time())
            case "master":
                with contextlib.suppress(KeyRefusedError):  # the last one is not finished
                    keyring.rotate_master()
            case "sync":
                self._sync(keyring)
                if keyring.has_old_master:
                    keyring.drop_old_master()

    def _sync(self, keyring: Keyring) -> None:
        """Stand for the database: whole or not at all."""
        temporary = self._directory / "mirror.new"
        temporary.write_bytes(keyring.content)
        temporary.replace(self._directory / "mirror")

    def _on_step(self, _step: str) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


if __name__ == "__main__":
    Work(Path(sys.argv[1]), int(sys.argv[2])).run(sys.argv[3:])
