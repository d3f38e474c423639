"""Secrets in files of one directory, which something else keeps up to date.

A file holds one value, with at most one newline at its end that does not count. Directory and
file belong to root or to the node's user; nobody else may write the one or read the other, and no
symbolic link below the directory is followed.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from services.security.secrets.environment import content_version
from services.security.secrets.errors import (
    ProviderUnavailableError,
    RotationRefusedError,
    SecretError,
)
from services.security.secrets.filesystem import open_private_directory, read_private
from services.security.secrets.provider import Secret, make_secret

_MODE = 0o600
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileProvider:
    """Reads and replaces files.

    Args:
        directory: where they are.
    """

    name = "file"
    is_static = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, name: str) -> Secret:
        """The content of the file of that name below the directory."""
        content = read_private(self._directory, name)
        return make_secret(
            content.text,
            where=str(self._directory / name),
            version=f"{content.stat.st_mtime_ns:x}-{content_version(content.text)}",
            created_s=content.stat.st_mtime,
        )

    def rotate(self, name: str, value: str) -> Secret:
        """Replace the file as a whole; a crash leaves the old one or the new one."""
        make_secret(value, where=name, version="new")
        before = read_private(self._directory, name).stat  # and not a link, and ours
        if before.st_uid != os.geteuid():
            raise RotationRefusedError(
                f"{self._directory / name} belongs to user {before.st_uid}, who replaces it"
            )
        fd = open_private_directory((self._directory / name).parent)
        try:
            _replace(fd, (self._directory / name).name, value)
        except OSError as exc:
            raise ProviderUnavailableError(
                f"can't replace {self._directory / name}: {exc.strerror}"
            ) from exc
        finally:
            os.close(fd)
        return self.get(name)

    def health(self) -> str:
        """Whether the directory may be used."""
        try:
            os.close(open_private_directory(self._directory))
        except SecretError as exc:
            return exc.message
        return ""

    def maintain(self) -> None:
        """Nothing runs out."""

    def close(self) -> None:
        """Nothing to let go of."""


def _replace(directory_fd: int, name: str, value: str) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}"
    fd = os.open(temporary, _NEW, _MODE, dir_fd=directory_fd)
    try:
        try:
            data = memoryview(value.encode())
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=directory_fd)
        raise
    os.fsync(directory_fd)
