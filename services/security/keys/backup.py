"""The master key in a file for the safe, sealed under a passphrase, and the way back.

    {"format": 1, "kind": "novacron keys", "node_id": …, "master_id": …, "generation": …,
     "created_s": …, "scrypt": {"salt": hex, "n": 131072, "r": 8, "p": 1}, "sealed": hex}

``sealed`` holds the master key and the keyset of that moment, AES-256-GCM under the key that
scrypt makes of the passphrase. The passphrase does not leave the program that makes the backup.

Source: RFC 7914 (scrypt); n = 2^17 takes 128 MiB and about half a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from services.security.cipher import KEY_BYTES
from services.security.errors import DecryptionError, KeyRefusedError, MasterKeyError
from services.security.keyring import open_backup
from services.security.keys.disk import Disk, FileProblemError
from services.security.keys.master import MASTER_KEY_BYTES, MasterKey
from services.security.keys.masters import MASTER
from services.security.keys.model import BackupReply
from services.security.keys.store import ADOPT, COPY, KEYSET, MARK

FORMAT = 1
KIND = "novacron keys"
PASSPHRASE_LENGTH_MIN = 12
_SALT_BYTES = 16
_N, _R, _P = 1 << 17, 8, 1
# What a file may ask for, so that a changed one can't take all the memory.
_N_MAX, _R_MAX, _P_MAX = 1 << 20, 8, 4
_MEMORY_MAX = (2 << 30) - 1  # what OpenSSL takes at most


@dataclass(frozen=True, slots=True)
class Salt:
    """How a passphrase becomes a key."""

    salt: bytes
    n: int = _N
    r: int = _R
    p: int = _P


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup as its file says; proven only by ``open``."""

    node_id: str
    master_id: str
    generation: int
    created_s: float
    salt: Salt
    sealed: bytes

    def open(self, passphrase: str) -> tuple[MasterKey, bytes]:
        """The master key and the keyset.

        Raises:
            DecryptionError: the passphrase is another one, or the file was changed.
        """
        try:
            master, keyset = open_backup(self.sealed, derive(passphrase, self.salt))
        except DecryptionError:
            raise DecryptionError("the passphrase is wrong, or the backup was changed") from None
        return master, keyset


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore wrote."""

    has_written_master: bool
    has_written_keyset: bool


def new_salt() -> Salt:
    """A fresh salt."""
    return Salt(os.urandom(_SALT_BYTES))


def derive(passphrase: str, salt: Salt) -> bytes:
    """The key of a passphrase; takes a while, on purpose."""
    return hashlib.scrypt(
        passphrase.encode(),
        salt=salt.salt,
        n=salt.n,
        r=salt.r,
        p=salt.p,
        maxmem=_MEMORY_MAX,
        dklen=KEY_BYTES,
    )


def encode(reply: BackupReply, salt: Salt, *, now_s: float) -> bytes:
    """The file's content."""
    fields = {
        "format": FORMAT,
        "kind": KIND,
        "node_id": reply.node_id,
        "master_id": reply.master_id,
        "generation": reply.generation,
        "created_s": round(now_s, 3),
        "scrypt": {"salt": salt.salt.hex(), "n": salt.n, "r": salt.r, "p": salt.p},
        "sealed": reply.sealed.hex(),
    }
    return json.dumps(fields, indent=1).encode() + b"\n"


def decode(content: bytes) -> Backup:
    """Read a backup's file.

    Raises:
        KeyRefusedError: it is none, or one of a newer program.
    """
    try:
        fields: Any = json.loads(content)  # Any: what a file holds
        if fields["kind"] != KIND or fields["format"] != FORMAT:
            raise KeyRefusedError(f"it is no backup of format {FORMAT}")
        scrypt = fields["scrypt"]
        salt = Salt(bytes.fromhex(scrypt["salt"]), int(scrypt["n"]), scrypt["r"], scrypt["p"])
        found = Backup(
            node_id=str(fields["node_id"]),
            master_id=str(fields["master_id"]),
            generation=int(fields["generation"]),
            created_s=float(fields["created_s"]),
            salt=salt,
            sealed=bytes.fromhex(fields["sealed"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise KeyRefusedError("it is no backup of keys, or not a whole one") from exc
    if not (1 < salt.n <= _N_MAX and 0 < salt.r <= _R_MAX and 0 < salt.p <= _P_MAX):
        raise KeyRefusedError("it asks for more work or memory than any backup needs")
    return found


def restore(disk: Disk, master: MasterKey, keyset: bytes) -> Restored:
    """Put a backup's keys back where none are; nothing that is there is replaced.

    Raises:
        MasterKeyError: another master key is in its place.
        KeyStorageError: the disk is full or fails.
    """
    try:
        present = disk.read(MASTER, size_max=MASTER_KEY_BYTES)
    except FileProblemError as exc:
        raise MasterKeyError(f"{disk.place(MASTER)} {exc}; repair it or move it away") from exc
    if present is not None and present != master.secret:
        raise MasterKeyError(
            f"{disk.place(MASTER)} is there and is another one: it is not replaced; move it away "
            "if the backup's is the right one"
        )
    if present is None:
        disk.create(MASTER, master.secret)
    lacks_keyset = disk.size(KEYSET) is None and disk.size(COPY) is None
    if lacks_keyset:
        disk.write(KEYSET, keyset)
        disk.write(COPY, keyset)
        disk.write(MARK, b"")
    return Restored(present is None, lacks_keyset)


def ask_to_adopt(disk: Disk) -> None:
    """Have the next start take the database's keyset."""
    disk.write(ADOPT, b"")
