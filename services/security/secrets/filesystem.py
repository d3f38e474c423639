"""Reading a secret's file so that nobody but its owner can have put it there or can read it.

Directories are opened one below the other and looked at while open, so that nothing can be
exchanged between the check and the use.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from services.security.secrets.errors import (
    ProviderUnavailableError,
    SecretDeniedError,
    SecretMissingError,
    SecretUnusableError,
)
from services.security.secrets.provider import VALUE_BYTES_MAX

_OTHERS_READ = 0o077
_OTHERS_WRITE = 0o022
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO at this place must not hang.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file holds, and its stat when it was read."""

    text: str
    stat: os.stat_result


def read_private(directory: Path, name: str, *, others_may_read: int = 0) -> FileContent:
    """Read the file ``name`` below ``directory``.

    Args:
        directory: where to begin; may itself be reached through symbolic links of root.
        name: a relative path without ``..``.
        others_may_read: bits of the mode that are tolerated although they let others read.

    Raises:
        SecretMissingError: there is no such file.
        SecretDeniedError: we may not read it, it belongs to somebody else, others may read or
            replace it, or a symbolic link stands in the way.
        SecretUnusableError: it is no regular file, too large, or no UTF-8.
        ProviderUnavailableError: the disk failed.
    """
    path = directory / name
    fd = _open(directory, name, path)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise SecretUnusableError(f"{path} is no regular file")
        _require_ours(found, path, _OTHERS_READ & ~others_may_read, "chmod 0600")
        if found.st_size > VALUE_BYTES_MAX:
            raise SecretUnusableError(
                f"{path} has {found.st_size} bytes; at most {VALUE_BYTES_MAX}"
            )
        data = os.read(fd, VALUE_BYTES_MAX + 1)
    except OSError as exc:
        raise ProviderUnavailableError(f"can't read {path}: {exc.strerror}") from exc
    finally:
        os.close(fd)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretUnusableError(f"{path} is no UTF-8 text") from None
    return FileContent(_without_newline(text), found)


def open_private_directory(directory: Path) -> int:
    """Open a directory that nobody else may write; the caller closes it.

    Raises:
        SecretDeniedError: others may write it, or it belongs to somebody else.
        SecretMissingError: there is none.
    """
    try:
        fd = os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)
    except OSError as exc:
        raise _refusal(directory, exc) from exc
    try:
        _require_ours(os.fstat(fd), directory, _OTHERS_WRITE, "chmod go-w")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(directory: Path, name: str, path: Path) -> int:
    fd = open_private_directory(directory)
    *parts, last = name.split("/")
    try:
        for part in parts:
            inner = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
            _require_ours(os.fstat(fd), path.parent, _OTHERS_WRITE, "chmod go-w")
        return os.open(last, _FILE, dir_fd=fd)
    except OSError as exc:
        raise _refusal(path, exc) from exc
    finally:
        os.close(fd)


def _require_ours(found: os.stat_result, path: Path, forbidden: int, fix: str) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise SecretDeniedError(
            f"{path} belongs to user {found.st_uid} and not to user {os.geteuid()} or root"
        )
    if found.st_mode & forbidden:
        mode = stat.S_IMODE(found.st_mode)
        raise SecretDeniedError(
            f"{path} has mode {mode:04o}, so others may use it; look who did, then {fix}"
        )


def _refusal(path: Path, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SecretMissingError(f"there is no file {path}")
    if isinstance(error, PermissionError):
        return SecretDeniedError(f"user {os.geteuid()} may not read {path}")
    if error.errno == errno.ELOOP:  # O_NOFOLLOW met one
        return SecretDeniedError(f"{path} is a symbolic link, which is not followed")
    return ProviderUnavailableError(f"can't open {path}: {error.strerror}")


def _without_newline(text: str) -> str:
    """The text without the one newline that editors and echo put at the end."""
    return text.removesuffix("\n").removesuffix("\r")
