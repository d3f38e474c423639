"""Where a tree of one's own lives: its directory, and the lock that keeps a second one out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Self

from protocol import names, run_files
from protocol.errors import NovacronError

LOCK_NAME = "supervisor.lock"
# Processes of a tree that was killed hold its lock until they are gone too.
LOCK_TIMEOUT_S = 2.0
_LOCK_PAUSE_S = 0.02
_PREFIX = "supervisor-"
_STALE_SUFFIXES = (".sock", ".key", ".new", ".lock", ".notify", ".stacks")


class AlreadyRunningError(NovacronError):
    """Another supervisor runs on the state directory."""

    code = "supervisor.already_running"


class Place:
    """The directory of a tree, locked while it is entered.

    Args:
        state_dir: None for a temporary one.

    Attributes:
        path: it.
        run_dir: of sockets and keys.
        lock: the descriptor that holds it.
    """

    def __init__(self, state_dir: str | os.PathLike[str] | None) -> None:
        self._is_temporary = state_dir is None
        self._given = state_dir
        self.path = Path()
        self.run_dir = Path()  # set once it is certainly ours, since it is swept
        self.lock = -1

    def __enter__(self) -> Self:
        if self._given is None:
            import tempfile  # with shutil and two compressors; most trees have a directory

            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        else:
            self.path = make(Path(self._given).absolute(), 0o711)
        was_ours = (self.path / LOCK_NAME).exists()
        try:
            self.lock = _acquire(self.path / LOCK_NAME)
            if self._is_temporary:
                self.path.chmod(0o711)  # children of another account pass through
            self.run_dir = self._make_run_dir(was_ours=was_ours)
            self._sweep()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.lock >= 0:
            self._sweep()
            self._leave_run_dir()
            os.close(self.lock)
        if self._is_temporary:
            import shutil

            shutil.rmtree(self.path, ignore_errors=True)

    def _make_run_dir(self, *, was_ours: bool) -> Path:
        """Where a node would have it, in memory if possible: it is written at every start."""
        link = self.path / "run"
        if link.is_symlink():
            link.unlink()
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/run")
        run = make(link if link.is_dir() else names.choose_run_dir(self.path, runtime), 0o711)
        found = run.lstat()
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            raise PermissionError(errno.EPERM, "belongs to somebody else", str(run))
        if not was_ours and any(run.iterdir()):
            raise FileExistsError(errno.EEXIST, "holds other things", str(run))
        if run != link:
            link.symlink_to(run)
        return run

    def _leave_run_dir(self) -> None:
        link = self.path / "run"
        if link.is_symlink():
            link.unlink()
            with contextlib.suppress(OSError):  # somebody has put something there
                self.run_dir.rmdir()

    def _sweep(self) -> None:
        """Remove what a tree leaves in the run directory, ours or one that was killed."""
        if not self.run_dir.is_absolute():
            return
        with contextlib.suppress(FileNotFoundError):
            for entry in self.run_dir.iterdir():
                if entry.name.endswith(_STALE_SUFFIXES) and not entry.is_dir():
                    entry.unlink(missing_ok=True)
        run_files.remove(self.run_dir)


def make(directory: Path, mode: int) -> Path:
    """Make a directory where there is none; returns it."""
    if not directory.is_dir():
        directory.mkdir(mode=mode, parents=True)
    return directory


def _acquire(file: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(file, flags, 0o600)
    give_up_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                os.close(descriptor)
                raise AlreadyRunningError(f"another supervisor runs on {file.parent}") from None
            time.sleep(_LOCK_PAUSE_S)
        else:
            return descriptor
