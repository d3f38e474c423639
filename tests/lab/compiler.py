"""Compiles the lab's C programs on the spot, once per version of a source."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from tests.lab.errors import LabError, require
from tests.lab.guest.packages import cache_dir

_FLAGS = ("-O2", "-Wall", "-Wextra", "-pthread")
_TIMEOUT_S = 60.0


def build_program(source: Path, *, flags: tuple[str, ...] = ()) -> Path:
    """The program of one C file, from the cache where neither it nor the flags have changed.

    Raises:
        LabError: there is no compiler, or it refused; the message has what it said.
    """
    digest = hashlib.sha256(source.read_bytes() + repr(_FLAGS + flags).encode()).hexdigest()[:16]
    program = cache_dir() / f"{source.stem}-{digest}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    fresh = program.with_suffix(f".{os.getpid()}")
    argv = [require("cc"), *_FLAGS, *flags, "-o", str(fresh), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise LabError(f"{source.name} does not compile: {done.stderr[-800:]}")
    fresh.replace(program)
    return program
