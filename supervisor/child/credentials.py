"""Secrets of a command as files: ``settings["credentials"]``, a map from name to text or bytes.

They are in a directory of the command's own, named by CREDENTIALS_DIRECTORY, as systemd hands
them over: of its user, mode 0500, each file 0400, in the run directory, which is in memory. They
are made anew for each process and go with it. Neither the arguments nor the environment of a
program are a place for a secret: anybody can read the one, and children inherit the other.

Source: systemd.exec(5), Credentials.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from protocol import names
from protocol.errors import NovacronError
from protocol.records import Plain

SETTING = "credentials"
SUFFIX = ".credentials"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


class CredentialError(NovacronError):
    """A credential can't be handed to a command; the message does not hold it."""

    code = "supervisor.credential"


def directory(run_dir: Path, path: str) -> Path:
    """Where a command's credentials are while it runs."""
    return run_dir / f"{names.file_stem(path)}{SUFFIX}"


def create(target: Path, credentials: Plain, *, owner: tuple[int, int] | None) -> None:
    """Write them.

    Args:
        target: the directory; what a process before left there is replaced.
        credentials: text or bytes by name, as the settings have them.
        owner: user and group of the command; None for those of this process.

    Raises:
        CredentialError: a name or value can't be one, or it can't be written.
    """
    if not isinstance(credentials, Mapping):
        raise CredentialError("credentials must be a map from name to text or bytes")
    try:
        remove(target)
        target.mkdir(mode=0o700)
        for name, value in credentials.items():
            _write(target / _checked(name), value)
        for made in (*target.iterdir(), target):
            if owner is not None:
                os.chown(made, *owner)
        target.chmod(0o500)
    except OSError as exc:
        raise CredentialError(f"can't write {exc.filename or target}: {exc.strerror}") from exc


def remove(target: Path) -> None:
    """Take them away; nothing happens where there are none."""
    import shutil  # with two compressors; few programs get any

    with contextlib.suppress(FileNotFoundError):
        target.chmod(0o700)  # of our own user without the right to pass over modes
        shutil.rmtree(target)


def _write(file: Path, value: Plain) -> None:
    if not isinstance(value, (str, bytes)):
        raise CredentialError(f"the credential {file.name} is neither text nor bytes")
    data = value.encode() if isinstance(value, str) else value
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CredentialError(f"{name!r} can't name a credential")
    return name
