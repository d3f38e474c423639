"""The master key of a node and the keys that are derived from it.

``<state>/security/master.key`` holds 32 random bytes, mode 0600. It is made once, by a link that
can't overwrite, and never replaced: whatever else lies at its place ends in a MasterKeyError that
says what to do. Everything else is derived by HKDF-SHA256, one purpose per key, so that a second
secret need not be kept, backed up or protected:

    sealing key    AES-256-GCM, for services.security.cipher
    audit key      Ed25519, whose seed is the derived value; signs the audit records

A key's id is derived too, and says nothing about the key.

Source: RFC 5869 (HKDF), RFC 8032 (an Ed25519 private key is any 32 bytes).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from services.security import files
from services.security.audit import AuditSigner
from services.security.cipher import KEY_ID_BYTES, Cipher
from services.security.errors import MasterKeyError

MASTER_KEY_BYTES = 32
MASTER_KEY_NAME = "master.key"
# Written and never linked: what a crash between the two leaves behind.
_TEMPORARY_PREFIX = ".master.key."
_SEALING = b"novacron/1 sealing key"
_SEALING_ID = b"novacron/1 sealing key id"
_AUDIT = b"novacron/1 audit signing key"


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys that one node uses.

    Attributes:
        created: the master key was made just now.
        cipher: seals under the derived sealing key.
        signer: signs with the derived audit key.
    """

    created: bool
    cipher: Cipher = field(repr=False)
    signer: AuditSigner = field(repr=False)


def derive_keyring(master: bytes, *, created: bool = False) -> Keyring:
    """Derive a node's keys.

    Args:
        master: 32 uniformly random bytes, so that HKDF's extract step has nothing to add.
        created: passed on.
    """
    if len(master) != MASTER_KEY_BYTES:
        raise ValueError(f"a master key of {len(master)} bytes; {MASTER_KEY_BYTES} are needed")
    cipher = Cipher(
        _expand(master, _SEALING, MASTER_KEY_BYTES),
        key_id=_expand(master, _SEALING_ID, KEY_ID_BYTES),
    )
    seed = _expand(master, _AUDIT, MASTER_KEY_BYTES)
    signer = AuditSigner(Ed25519PrivateKey.from_private_bytes(seed))
    return Keyring(created, cipher, signer)


def load_keyring(directory: Path, *, used_marks: tuple[str, ...] = ()) -> Keyring:
    """Read the master key, or make it on the node's first start.

    Args:
        directory: ``<state>/security``; made where it is missing.
        used_marks: names of files that only a node with a master key writes. Where one of them
            holds something, a missing key is a lost one and no new key is made.

    Raises:
        MasterKeyError: there is something that is no master key of ours, or the key is lost.
        SecurityFileError: the directory is not ours alone.
    """
    directory_fd = files.open_directory(directory)
    try:
        # Two starts at once would each take the other's temporary file for a crash's.
        _lock(directory_fd, directory)
        _remove_temporaries(directory_fd)
        master = _read(directory_fd, directory)
        if master is not None:
            return derive_keyring(master)
        _require_first_start(directory_fd, directory, used_marks)
        return derive_keyring(_create(directory_fd, directory), created=True)
    finally:
        os.close(directory_fd)


def _expand(master: bytes, purpose: bytes, length: int) -> bytes:
    return HKDFExpand(algorithm=SHA256(), length=length, info=purpose).derive(master)


def _lock(directory_fd: int, directory: Path) -> None:
    try:
        fcntl.flock(directory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise MasterKeyError(
            f"another process has {directory} locked; only one node may use a state directory"
        ) from exc


def _remove_temporaries(directory_fd: int) -> None:
    for name in os.listdir(directory_fd):
        if name.startswith(_TEMPORARY_PREFIX):
            os.unlink(name, dir_fd=directory_fd)


def _read(directory_fd: int, directory: Path) -> bytes | None:
    path = directory / MASTER_KEY_NAME
    try:
        # O_NONBLOCK: opening a FIFO at this place must not hang the boot.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(MASTER_KEY_NAME, flags, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _refused(path, f"can't be opened as a regular file: {exc.strerror}") from exc
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "is no regular file")
        if problem := files.owner_problem(found):
            raise _refused(path, problem)
        # One byte more than it may have, to tell a longer file from a right one.
        master = os.read(fd, MASTER_KEY_BYTES + 1)
    except OSError as exc:
        raise _refused(path, f"can't be read: {exc.strerror}") from exc
    finally:
        os.close(fd)
    if len(master) != MASTER_KEY_BYTES:
        raise _refused(path, f"has {found.st_size} bytes and not {MASTER_KEY_BYTES}")
    return master


def _require_first_start(directory_fd: int, directory: Path, used_marks: tuple[str, ...]) -> None:
    for name in used_marks:
        try:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if found.st_size > 0:
            raise MasterKeyError(
                f"{directory / MASTER_KEY_NAME} is gone, and {name} beside it shows that this node "
                "has had one: restore it from a backup, or move the directory away to go on with "
                "a new key, under which nothing older can be verified or opened",
                path=str(directory / MASTER_KEY_NAME),
            )


def _create(directory_fd: int, directory: Path) -> bytes:
    master = secrets.token_bytes(MASTER_KEY_BYTES)
    temporary = f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    path = directory / MASTER_KEY_NAME
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, files.FILE_MODE, dir_fd=directory_fd)
        try:
            files.write_all(fd, master)
            os.fsync(fd)
        finally:
            os.close(fd)
        # A link fails where the name is taken; a rename would overwrite.
        os.link(temporary, MASTER_KEY_NAME, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        os.unlink(temporary, dir_fd=directory_fd)
        os.fsync(directory_fd)
    except OSError as exc:
        raise MasterKeyError(f"can't make {path}: {exc.strerror}", path=str(path)) from exc
    return master


def _refused(path: Path, problem: str) -> MasterKeyError:
    return MasterKeyError(
        f"{path} {problem}; it must hold {MASTER_KEY_BYTES} bytes, mode 0600, of user "
        f"{os.geteuid()}: repair it or restore it from a backup, it is not replaced",
        path=str(path),
    )
