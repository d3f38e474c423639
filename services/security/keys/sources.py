"""Where a master key comes from: the file in the state directory, or a secret from outside.

    file                       <state>/security/master.key, made by the node on its first start
    credential:NAME            a systemd credential (LoadCredential=, LoadCredentialEncrypted=)
    secret:PROVIDER/NAME       a secret of one of the configured providers

What comes from outside holds 32 bytes or 64 hexadecimal digits and is never made or changed by
the node. Beside NAME, ``NAME.next`` and ``NAME.old`` are looked for: that is how an operator
rotates it, by giving both for a while.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from services.security.errors import MasterKeyError
from services.security.keys.master import MasterKey, parse_master

FILE = "file"
CREDENTIAL = "credential"
SECRET = "secret"  # noqa: S105 - the name of a kind of source
NEXT, OLD = ".next", ".old"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
# 64 digits with some space around them.
CONTENT_BYTES_MAX = 128

# Reads a secret by its name, or returns None where there is none of that name; blocks, within a
# time of its own. Raises MasterKeyError when it can't be read, or a NovacronError that may pass.
ReadSecret = Callable[[str], "bytes | None"]


class OutsideSource:
    """Master keys from outside.

    Args:
        name: of the secret.
        read: reads one by its name.
        what: names the kind, for messages: "the systemd credential".
    """

    def __init__(self, name: str, read: ReadSecret, *, what: str) -> None:
        self._name = name
        self._read = read
        self._what = what

    def load(self) -> tuple[MasterKey, ...]:
        """All that are given: the key itself first, then the next and the old one.

        Raises:
            MasterKeyError: the key itself is missing, or one is no key.
        """
        found = [self._key(self._name + suffix) for suffix in ("", NEXT, OLD)]
        if found[0] is None:
            raise MasterKeyError(
                f"{self._what} {self._name!r} is not there; the master key is to come from it "
                "(security.encryption.masterKey), and no other one is made"
            )
        return tuple(key for key in found if key is not None)

    def target(self) -> MasterKey:
        """The key that the data keys should be under: the next one where it is given."""
        following = self._key(self._name + NEXT)
        return self.load()[0] if following is None else following

    def _key(self, name: str) -> MasterKey | None:
        content = self._read(name)
        if content is None:
            return None
        key = parse_master(content)
        if key is None:
            raise MasterKeyError(
                f"{self._what} {name!r} holds {len(content)} bytes and no master key: 32 bytes or "
                "64 hexadecimal digits are needed"
            )
        return key


def parse_source(text: str) -> tuple[str, str]:
    """Kind and name of a source as it is configured; ``file`` has no name.

    Raises:
        ValueError: it is none.
    """
    kind, _, name = text.partition(":")
    if kind == FILE and not name:
        return FILE, ""
    if kind == CREDENTIAL and name and "/" not in name and not name.startswith("."):
        return CREDENTIAL, name
    if kind == SECRET and all(name.partition("/")):
        return SECRET, name
    raise ValueError("it is file, credential:NAME or secret:PROVIDER/NAME")


def read_credential(name: str, environ: Mapping[str, str]) -> bytes | None:
    """Read a systemd credential.

    Raises:
        MasterKeyError: this process has no credentials, or others can write or read it.
    """
    directory = environ.get(CREDENTIALS_VARIABLE, "")
    if not directory:
        raise MasterKeyError(
            f"{CREDENTIALS_VARIABLE} is not set, so the master key can't come from the credential "
            f"{name!r}: start the node with systemd and LoadCredential={name}:…"
        )
    path = Path(directory) / name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise MasterKeyError(f"can't open {path}: {exc.strerror}", path=str(path)) from exc
    try:
        found = os.fstat(fd)
        # The group's bits are the mask of the list by which systemd lets the unit's user read it.
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o027:
            raise MasterKeyError(
                f"{path} is no regular file that its owner alone may write and others not read",
                path=str(path),
            )
        if found.st_uid not in (0, os.geteuid()):
            raise MasterKeyError(f"{path} belongs to user {found.st_uid}", path=str(path))
        return os.read(fd, CONTENT_BYTES_MAX + 1)
    finally:
        os.close(fd)
