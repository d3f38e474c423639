"""Create PostgreSQL's data directory exactly once, whatever happens in between.

The rules; ``<dir>`` is the settings' directory:

    <dir>/data         the data directory; it appears by a rename, complete and synced
    <dir>/data.new     initdb's work while it lasts; no server ever ran in it
    <dir>/initialised  written after the rename: the data directory was complete at that time

    data       initialised | what is done
    absent     no          | initdb in data.new, sync, rename, write initialised
    complete   no          | adopt: write initialised (a crash came in between, or a restore)
    complete   yes         | nothing
    partial    no          | it never finished: set aside as data.broken-<time>, then as absent
    partial    yes         | refuse: there was data in it; a person has to look
    absent     yes         | refuse: the same; perhaps something is not mounted

The invariant: a data directory that a server may have run in is never deleted nor replaced.
"""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from services.data.errors import (
    ClusterCreateError,
    ClusterDamagedError,
    ClusterVersionError,
    DirectoryError,
    ProgramMissingError,
)
from services.files import sync_directory

# initdb takes one second here; a slow memory card may need a minute.
INITDB_TIMEOUT_S = 300.0
DEBIAN_VERSIONS_DIR = Path("/usr/lib/postgresql")
# What a data directory has from initdb's first and last steps.
_COMPLETE_FILES = ("PG_VERSION", "global/pg_control", "base/1/PG_VERSION", "postgresql.conf")


class DataState(enum.Enum):
    """What the data directory looks like."""

    ABSENT = "absent"
    PARTIAL = "partial"
    COMPLETE = "complete"


class Step(enum.Enum):
    """What has to be done before the server can start."""

    NOTHING = "nothing"
    ADOPT = "adopt"
    CREATE = "create"
    SET_ASIDE_AND_CREATE = "set_aside_and_create"
    REFUSE = "refuse"


def decide(state: DataState, *, is_initialised: bool) -> Step:
    """The table above."""
    if state is DataState.COMPLETE:
        return Step.NOTHING if is_initialised else Step.ADOPT
    if is_initialised:
        return Step.REFUSE
    return Step.CREATE if state is DataState.ABSENT else Step.SET_ASIDE_AND_CREATE


def find_bin_dir(version: str | None) -> Path:
    """The directory with PostgreSQL's programs.

    Args:
        version: major version that an existing data directory needs; None takes the newest.

    Raises:
        ProgramMissingError: PostgreSQL is not installed.
        ClusterVersionError: it is, but not in the version that the data needs.
    """
    found = installed_versions(DEBIAN_VERSIONS_DIR)
    if version is None:
        if found:
            return found[max(found, key=int)]
        if on_path := shutil.which("postgres"):
            return Path(on_path).resolve().parent
        raise ProgramMissingError(
            "PostgreSQL is not installed: neither /usr/lib/postgresql/*/bin nor PATH has it; "
            "install the package postgresql"
        )
    if version in found:
        return found[version]
    on_path = shutil.which("postgres")
    if on_path and _version_of(Path(on_path)) == version:
        return Path(on_path).resolve().parent
    names = ", ".join(sorted(found, key=int)) or (on_path and _version_of(Path(on_path))) or "none"
    raise ClusterVersionError(
        f"the data directory belongs to PostgreSQL {version}, installed is {names}; "
        f"install postgresql-{version} (both may be installed), or move the data: with "
        f"postgresql-{version}, 'novacronctl db backup FILE'; then move the data directory and "
        "its file initialised away, and 'novacronctl db restore FILE'",
        needed=version,
        installed=names,
    )


def installed_versions(root: Path) -> dict[str, Path]:
    """Directories of programs by major version, in Debian's layout."""
    return {
        entry.name: entry / "bin"
        for entry in (root.iterdir() if root.is_dir() else ())
        if entry.name.isdecimal() and (entry / "bin/postgres").is_file()
    }


def data_state(data: Path) -> DataState:
    """Look at a data directory.

    Raises:
        DirectoryError: it can't be looked at.
    """
    try:
        if not data.exists() and not data.is_symlink():
            return DataState.ABSENT
        if data.is_dir() and not any(data.iterdir()):
            return DataState.ABSENT  # such as a new mount point
        complete = all((data / name).is_file() for name in _COMPLETE_FILES)
    except OSError as exc:
        raise DirectoryError(f"can't look at {data}: {exc.strerror}", directory=str(data)) from exc
    return DataState.COMPLETE if complete else DataState.PARTIAL


def ensure_cluster(directory: Path, *, role: str, environment: Mapping[str, str]) -> Path:
    """Make sure that ``<directory>/data`` is a usable data directory.

    Args:
        directory: as above; made if it is missing.
        role: the superuser role of a new data directory.
        environment: of initdb.

    Returns:
        The directory of the programs that fit it.

    Raises:
        CriticalError: one of the level's errors, saying what is wrong and what to do.
    """
    ensure_directory(directory)
    data, marker = directory / "data", directory / "initialised"
    state = data_state(data)
    match decide(state, is_initialised=marker.exists()):
        case Step.REFUSE:
            raise ClusterDamagedError(
                f"{data} was complete once and is {state.value} now; it is left as it is: restore "
                f"it from a backup, mount what is missing, or remove {marker} to begin anew",
                directory=str(data),
            )
        case Step.NOTHING:
            return find_bin_dir(_data_version(data))
        case Step.ADOPT:
            bin_dir = find_bin_dir(_data_version(data))
        case Step.SET_ASIDE_AND_CREATE:
            bin_dir = find_bin_dir(None)
            data.rename(directory / f"data.broken-{int(time.time())}")
            _create(directory, bin_dir, role, environment)
        case Step.CREATE:
            bin_dir = find_bin_dir(None)
            _create(directory, bin_dir, role, environment)
    _write_marker(marker, _data_version(data))
    return bin_dir


def ensure_directory(directory: Path) -> None:
    """Make a directory of the server's own, mode 0700, or see that it can be used.

    Raises:
        DirectoryError: says what is wrong.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise DirectoryError(
            f"can't make {directory}: {exc.strerror}", directory=str(directory)
        ) from exc
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        owner = directory.stat().st_uid
        raise DirectoryError(
            f"user {os.geteuid()} can't use {directory}, which belongs to user {owner}",
            directory=str(directory),
        )


def _create(directory: Path, bin_dir: Path, role: str, environment: Mapping[str, str]) -> None:
    work = directory / "data.new"
    if work.exists():  # a crash during an earlier initdb: nothing but initdb's files is in it
        shutil.rmtree(work)
    _run(
        (
            str(bin_dir / "initdb"), "--pgdata", str(work), "--username", role,
            "--auth-local=peer", "--auth-host=reject", "--encoding=UTF8", "--locale=C.UTF-8",
            "--data-checksums", "--no-instructions",
            # One pass at the end in place of initdb's own, which also writes each file as it goes.
            "--no-sync",
        ),
        environment,
    )  # fmt: skip
    _run((str(bin_dir / "initdb"), "--sync-only", "--pgdata", str(work)), environment)
    data = directory / "data"
    if data.is_dir():
        data.rmdir()  # empty, as data_state saw
    work.rename(data)
    sync_directory(directory)


def _run(argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=INITDB_TIMEOUT_S,
            check=False,
            text=True,
        )
    except subprocess.TimeoutExpired as exc:
        raise ClusterCreateError(f"initdb did not end in {INITDB_TIMEOUT_S:g} s") from exc
    except OSError as exc:
        raise ProgramMissingError(f"can't run {argv[0]}: {exc.strerror}") from exc
    if done.returncode:
        said = " ".join(done.stderr.split())[-600:]
        raise ClusterCreateError(f"initdb failed with exit code {done.returncode}: {said}")


def _data_version(data: Path) -> str:
    try:
        return (data / "PG_VERSION").read_text().strip()
    except OSError as exc:
        raise DirectoryError(f"can't read {data / 'PG_VERSION'}: {exc.strerror}") from exc


def _version_of(postgres: Path) -> str:
    done = subprocess.run(
        (str(postgres), "--version"), capture_output=True, text=True, timeout=10, check=False
    )
    words = done.stdout.split()  # such as: postgres, (PostgreSQL), 15.18, (Debian …)
    return words[2].partition(".")[0] if len(words) > 2 else ""


def _write_marker(marker: Path, version: str) -> None:
    try:
        with marker.open("w") as file:
            file.write(f"PostgreSQL {version}\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(marker.parent)
    except OSError as exc:
        raise DirectoryError(f"can't write {marker}: {exc.strerror}") from exc
