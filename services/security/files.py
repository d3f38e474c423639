"""Opening of the level's directory and files, with owner, type and mode checked on what is open.

Every check looks at an open descriptor and never at a name, so that nobody can put another file
between check and use.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from services.security.errors import SecurityFileError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = 0o077


def open_directory(path: Path) -> int:
    """Open the level's directory, made with mode 0700 where it is missing.

    Returns:
        A descriptor that the caller closes.

    Raises:
        SecurityFileError: it can't be made or opened, is a symbolic link or no directory, is not
            ours, or others may enter it.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE)
    except FileExistsError:
        pass
    except OSError as exc:
        raise SecurityFileError(f"can't make {path}: {exc.strerror}", path=str(path)) from exc
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise SecurityFileError(
            f"can't open {path}: {exc.strerror}; it must be a directory of user {_user()}, "
            "mode 0700, and no symbolic link",
            path=str(path),
        ) from exc
    try:
        if problem := _problem(os.fstat(fd), fix="chmod 0700"):
            raise SecurityFileError(f"{path} {problem}", path=str(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_log(path: Path) -> int:
    """Open a file of ours for reading and appending, made with mode 0600 where it is missing.

    Raises:
        SecurityFileError: it can't be opened, is a symbolic link or no regular file, is not
            ours, or others may read it.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, FILE_MODE)
    except OSError as exc:
        raise SecurityFileError(f"can't open {path}: {exc.strerror}", path=str(path)) from exc
    try:
        found = os.fstat(fd)
        problem = _problem(found, fix="chmod 0600")
        if not stat.S_ISREG(found.st_mode):
            problem = "is no regular file"
        if problem:
            raise SecurityFileError(f"{path} {problem}", path=str(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def owner_problem(found: os.stat_result) -> str:
    """Say why an open file is not ours alone; "" when it is."""
    return _problem(found, fix="chmod 0600")


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; the kernel may take fewer at a time.

    Raises:
        OSError: the disk is full or failed; a part may have been written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _problem(found: os.stat_result, *, fix: str) -> str:
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid} and this process is user {_user()}"
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        return f"has mode {mode:04o}, so others may use it; look who did, then {fix}"
    return ""


def _user() -> int:
    return os.geteuid()
