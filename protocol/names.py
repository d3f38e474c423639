"""Where a process of the tree is reached: names to paths by rule, so that nobody asks a registry.

A process is named by its path from the root, such as ``data/database``; the root's own path is
``novacron``. Below the node's run directory it owns::

    data.database.sock   its ZeroMQ endpoint (ipc)
    data.database.key    its public CURVE key, 40 characters of Z85

The run directory is in /run, named by the state directory's hash, and ``<state>/run`` is a
symbolic link to it. Where /run may not be written it is ``<state>/run`` itself, or, since a Unix
socket's path holds at most 107 bytes, in /tmp.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from protocol.sha256 import sha256

ROOT = "novacron"
OPERATOR = "operator"
SUN_PATH_MAX = 107
# Longest file name below a run directory: two levels of names, a dot each, and a suffix.
_FILE_NAME_RESERVE = 48
_LEVEL_DOT = re.compile(r"\.(?![0-9]+(?:\.|$))")
_PATH = re.compile(r"[a-z][a-z0-9.-]*(/[a-z][a-z0-9.-]*)*")


def is_process_path(text: str) -> bool:
    """Tell whether ``text`` may name a process."""
    return _PATH.fullmatch(text) is not None


def person_path(user: str) -> str:
    """The name under which a person calls, such as ``operator/anna``."""
    return f"{OPERATOR}/{user}"


def person_of(caller: str) -> str | None:
    """The user name of a person who calls; None for a process."""
    first, slash, user = caller.partition("/")
    return user if first == OPERATOR and slash else None


def is_person(caller: str) -> bool:
    """Tell whether a person calls and not a process of the tree."""
    return caller == OPERATOR or caller.startswith(f"{OPERATOR}/")


def parent_path(path: str) -> str:
    """The path of the supervisor above ``path``; the root is its own parent."""
    return path.rpartition("/")[0] or ROOT


def child_path(supervisor_path: str, child_id: str) -> str:
    """The path of a supervisor's child; the root's children carry no prefix."""
    return child_id if supervisor_path == ROOT else f"{supervisor_path}/{child_id}"


def run_dir(state_dir: Path) -> Path:
    """The run directory of the node that runs, or ran, on a state directory.

    Args:
        state_dir: absolute path of the node's state directory.
    """
    direct = state_dir / "run"
    if direct.is_symlink():
        return direct.readlink()
    return direct if direct.is_dir() else choose_run_dir(state_dir)


def choose_run_dir(state_dir: Path, runtime: Path = Path("/run")) -> Path:
    """Where a node that starts puts its run directory.

    Args:
        state_dir: absolute path of the node's state directory.
        runtime: the system's directory for such things; in memory, so that making a socket never
            waits for the disk.
    """
    name = f"novacron-{sha256(os.fsencode(state_dir)).hexdigest()[:12]}"
    if os.access(runtime, os.W_OK):
        return runtime / name
    direct = state_dir / "run"
    if len(os.fsencode(direct)) + 1 + _FILE_NAME_RESERVE <= SUN_PATH_MAX:
        return direct
    return Path("/tmp") / name  # noqa: S108 - named by hash, made for the node alone


def file_stem(path: str) -> str:
    """The path as part of a file name."""
    return path.replace("/", ".")


def socket_path(run: Path, path: str) -> Path:
    """The Unix socket of a process."""
    return run / f"{file_stem(path)}.sock"


def endpoint(run: Path, path: str) -> str:
    """The ZeroMQ endpoint of a process."""
    return f"ipc://{socket_path(run, path)}"


def key_path(run: Path, path: str) -> Path:
    """The file that publishes a process's public key."""
    return run / f"{file_stem(path)}.key"


def path_of_key(file: Path) -> str:
    """The process whose public key a file of the run directory holds.

    Dots stand for the slashes of a path, except before a number: ``transport.0`` is one name.
    """
    return _LEVEL_DOT.sub("/", file.name.removesuffix(".key"))
