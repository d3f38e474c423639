"""Certificates and keys in files: read, and looked at for who else may read or replace them.

A key belongs to root or to us, nobody else may read it, and nobody else may write a directory on
the way to it. Symbolic links are followed, as deployment tools put them in place of certificates;
what they point to is looked at in the same way.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.security.credentials import Certificates, Material, judge
from services.security.credentials_model import (
    Credential,
    Finding,
    Severity,
    TlsFiles,
    TlsUse,
    worst,
)

# A chain or a system's bundle of authorities has at most a few hundred KiB.
FILE_BYTES_MAX = 4 << 20
_OTHERS_READ = 0o077
_OTHERS_WRITE = 0o022

Stamp = tuple[int, int, int, int]


class _UnusableError(Exception):
    """A file that can't be used; carries the finding."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(severity=Severity.ERROR, code=code, message=message)


def check_files(files: TlsFiles, *, now_s: float) -> Credential:
    """Read the files and check what they hold."""
    findings = list(_place_findings(files))
    try:
        certificates = _certificates(files.cert_file)
        key = _key(files.key_file) if files.key_file else None
        authorities: Certificates = _certificates(files.ca_file) if files.ca_file else ()
    except _UnusableError as exc:
        kind = "authority" if files.use is TlsUse.AUTHORITY else "certificate"
        found = worst((exc.finding, *findings))
        return Credential(name=files.name, kind=kind, subject=files.cert_file, findings=found)
    material = Material(certificates, key, authorities, tuple(findings))
    return judge(files, material, now_s=now_s)


def stamps(files: TlsFiles) -> tuple[Stamp | None, ...]:
    """What tells whether a file was changed or replaced; None for one that can't be looked at."""
    return tuple(_stamp(path) for path in _paths(files))


def _paths(files: TlsFiles) -> tuple[str, ...]:
    return tuple(path for path in (files.cert_file, files.key_file, files.ca_file) if path)


def _stamp(path: str) -> Stamp | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _place_findings(files: TlsFiles) -> Iterator[Finding]:
    for path in _paths(files):
        try:
            found = Path(path).stat()
        except OSError:
            continue  # reading it says why
        is_key = path == files.key_file
        if found.st_uid not in (0, os.geteuid()):
            yield _error("owner", f"{path} belongs to user {found.st_uid}, who may change it")
        forbidden = _OTHERS_READ if is_key else _OTHERS_WRITE
        if found.st_mode & forbidden:
            mode = stat.S_IMODE(found.st_mode)
            what, fix = ("read", "chmod 0600") if is_key else ("write", "chmod go-w")
            yield _error("exposed", f"others may {what} {path} (mode {mode:04o}): {fix} it")
        for directory in _directories_to(Path(path)):
            yield from _directory_findings(directory, path)


def _directory_findings(directory: Path, path: str) -> Iterator[Finding]:
    try:
        found = directory.stat()
    except OSError:
        return
    is_sticky = bool(found.st_mode & stat.S_ISVTX)  # there nobody replaces others' files
    if found.st_mode & _OTHERS_WRITE and not is_sticky:
        mode = stat.S_IMODE(found.st_mode)
        text = f"others may replace {path}: {directory} has mode {mode:04o}; chmod go-w it"
        yield _error("writable_directory", text)
    if found.st_uid not in (0, os.geteuid()):
        text = f"user {found.st_uid} may replace {path}: {directory} belongs to them"
        yield _error("writable_directory", text)


def _directories_to(path: Path) -> list[Path]:
    """The directories above a file, by its name and by where links lead."""
    found = list(path.absolute().parents)
    with contextlib.suppress(OSError, RuntimeError):  # reading it says why
        found += [it for it in path.resolve(strict=True).parents if it not in found]
    return found


def _certificates(path: str) -> Certificates:
    data = _read(path)
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        found = []
    if not found:
        raise _UnusableError("malformed", f"{path} holds no certificates in PEM")
    return found


def _key(path: str) -> PrivateKeyTypes:
    data = _read(path)
    try:
        return load_pem_private_key(data, password=None)
    except TypeError:
        raise _UnusableError(
            "encrypted_key", f"{path} is locked with a passphrase, which nobody can type here"
        ) from None
    except ValueError:
        raise _UnusableError("malformed", f"{path} holds no private key in PEM") from None


def _read(path: str) -> bytes:
    try:
        # O_NONBLOCK: a FIFO at this place must not hang the start.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise _UnusableError("unreadable", f"can't read {path}: {exc.strerror}") from exc
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _UnusableError("malformed", f"{path} is no regular file")
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise _UnusableError("malformed", f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return data


def _error(code: str, message: str) -> Finding:
    return Finding(severity=Severity.ERROR, code=code, message=message)
