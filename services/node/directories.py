"""Make directories with an owner and a mode, and say what is wrong in an operator's words."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from services.node.errors import DiskFullError, ReadOnlyError, StateDirectoryError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def ensure(path: Path, uid: int, gid: int, mode: int) -> None:
    """Make a directory with this owner and mode, or see that it has the owner and set the mode.

    Raises:
        StateDirectoryError: something else is there, or it belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise refused(path, "is no directory", "remove it") from None
        if is_foreign(path, uid):
            wanted = user_name(uid)
            raise refused(
                path,
                f"belongs to user {user_name(found.st_uid)} and not to {wanted}",
                f"chown -R {wanted} {path}",
            ) from None
    own(path, uid, gid, mode)


def is_foreign(path: Path, uid: int) -> bool:
    """Whether a directory is there that belongs to somebody else; a link is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid == uid:
        return False
    # A new directory of a start that broke off is still ours.
    return found.st_uid != os.geteuid() or any(path.iterdir())


def own(path: Path, uid: int, gid: int, mode: int) -> None:
    """Set a directory's owner, group and mode, where they are others."""
    found = path.stat()
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
        found = path.stat()  # a change of owner may clear the set-group-id bit
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)


def refused(path: Path, problem: str, advice: str) -> StateDirectoryError:
    """The error for something at ``path`` that the node does not touch."""
    return StateDirectoryError(
        f"{path} {problem}; {advice}, or name another --state-dir", path=str(path)
    )


def user_name(uid: int) -> str:
    """The name of an account, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def explained(state: Path) -> Iterator[None]:
    """Turn what the filesystem says into what an operator can do.

    Raises:
        StateDirectoryError: in place of any OSError; read-only and full are its subclasses.
    """
    try:
        yield
    except OSError as exc:
        where = str(exc.filename or state)
        if exc.errno == errno.EROFS:
            raise ReadOnlyError(
                f"{where} is on a read-only filesystem; remount it writable (dmesg says whether "
                "the kernel did that after a disk error), or name another --state-dir",
                path=where,
            ) from exc
        if exc.errno in _FULL:
            raise DiskFullError(
                f"no space is left for {where}: {exc.strerror}; make room (df -h and df -i show "
                "where), or name another --state-dir",
                path=where,
            ) from exc
        raise StateDirectoryError(
            f"can't use {where}: {exc.strerror}; repair that, or name another --state-dir",
            path=where,
        ) from exc
