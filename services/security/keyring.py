"""The node's keys in use: seals with the active data key, opens with any, counts the uses.

    master key     a file or a secret from outside; wraps the others and authenticates the keyset
    data keys      random, one active; seal values (services.security.cipher)
    audit key      Ed25519; signs the audit records

Uses are counted here and reserved on the disk ahead of time (services.security.keys.keyset), so
that a process that is killed at any moment never forgets one. One keyring per state directory;
its methods may be called from any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.security.audit import AuditSigner
from services.security.cipher import KEY_ID_BYTES, NONCE_BYTES, Cipher, bind, key_id_of
from services.security.errors import DecryptionError
from services.security.keys.codec import Verdict
from services.security.keys.derived import derive_keys
from services.security.keys.disk import DirectoryDisk, Disk
from services.security.keys.keyset import USES_RESERVED, Keyset
from services.security.keys.master import MASTER_KEY_BYTES, MasterKey
from services.security.keys.masters import MASTER
from services.security.keys.recovery import Origin
from services.security.keys.sources import OutsideSource
from services.security.keys.store import KeyStore

MASTER_KEY_NAME = MASTER
# Below this many uses left of a reservation the next one is due.
_LOW = USES_RESERVED // 4


class DerivedKeyring:
    """The keys that a master key alone gives; the real ones are a Keyring's.

    Attributes:
        cipher: seals under the derived sealing key.
        signer: signs with the derived audit key.
    """

    def __init__(self, master: bytes) -> None:
        if len(master) != MASTER_KEY_BYTES:
            raise ValueError(f"a master key of {len(master)} bytes; {MASTER_KEY_BYTES} are needed")
        derived = derive_keys(master)
        self.cipher = Cipher(derived.sealing_key, key_id=bytes.fromhex(derived.sealing_id))
        self.signer = _signer(derived.audit_seed)


class Keyring:
    """Seals, opens and signs for one node.

    Args:
        store: has the keys, and is loaded.
        created: the master key was made just now.
        remark: what an operator should know of how the keys were found.
        mirror: what the database's keyset turned out to be.

    Attributes:
        created, remark, mirror: as given.
        on_low: called, in the sealing thread, when the reserved uses run low.
    """

    def __init__(
        self, store: KeyStore, *, created: bool, remark: str = "", mirror: Verdict = Verdict.MISSING
    ) -> None:
        self.created = created
        self.remark = remark
        self.mirror = mirror
        self.on_low: Callable[[], None] = lambda: None
        self._store = store
        self._lock = threading.RLock()
        self._ciphers: dict[str, Cipher] = {}
        self._left = 0
        self._sealed = 0
        self._signer = _signer(store.unwrap_audit())
        self._active = self._cipher(store.keyset.active.id)

    @property
    def signer(self) -> AuditSigner:
        """Signs audit records; the same key for as long as the node exists."""
        return self._signer

    @property
    def public_keys(self) -> Mapping[str, bytes]:
        """The Ed25519 public keys that this node has signed with, by key id."""
        with self._lock:
            signers = [_signer(seed) for seed in self._store.audit_seeds()]
        return {signer.key_id: signer.public_bytes for signer in signers}

    @property
    def key_id(self) -> str:
        """The active data key's id."""
        return self._active.key_id

    @property
    def cipher(self) -> Cipher:
        """The active data key's cipher. It counts nothing: seal with the keyring."""
        return self._active

    @property
    def keyset(self) -> Keyset:
        """The keys' states; the keys in it are wrapped."""
        return self._store.keyset

    @property
    def content(self) -> bytes:
        """The keyset as it is on the disk."""
        return self._store.content

    @property
    def sealed(self) -> int:
        """Values that this process sealed with the active key."""
        return self._sealed

    @property
    def master_place(self) -> str:
        """The name of the master key's file, or ``outside``."""
        return self._store.place

    @property
    def has_old_master(self) -> bool:
        """Whether the master key before this one is still kept."""
        return self._store.has_old_master

    def seal(self, value: bytes, *, context: bytes) -> bytes:
        """Encrypt and authenticate a value with the active key.

        Args:
            value: at most services.security.cipher.VALUE_BYTES_MAX.
            context: from ``cipher.bind``; needed again to open it.

        Raises:
            KeyExhaustedError: the key may seal no more, and no other one could be made.
            KeyStorageError: its uses can't be counted on the disk.
            ValueError: the value is too long.
        """
        cipher = self._take_use()
        return cipher.seal(value, context=context, nonce=os.urandom(NONCE_BYTES))

    def seal_into(self, buffer: bytearray | memoryview, value: bytes, *, context: bytes) -> None:
        """Like ``seal``, into a buffer that is cipher.OVERHEAD_BYTES longer than the value."""
        cipher = self._take_use()
        cipher.seal_into(buffer, value, context=context, nonce=os.urandom(NONCE_BYTES))

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Check and decrypt what any of the keys sealed.

        Raises:
            DecryptionError: it was changed, or sealed in another context or by an unknown key.
        """
        with self._lock:
            cipher = self._cipher(key_id_of(sealed))
        return cipher.open(sealed, context=context)

    def reserve(self) -> None:
        """Set uses of the active key aside; a few milliseconds of disk work.

        Raises:
            KeyExhaustedError: it has none left.
            KeyStorageError: they can't be written.
        """
        with self._lock:
            self._left += self._store.reserve()

    def rotate(self, *, now_s: float) -> str:
        """Make a new active key, and reserve its first uses; returns its id.

        Raises:
            KeyRefusedError: there are too many keys.
            KeyStorageError: it can't be written; the key before stays active.
        """
        with self._lock:
            key_id = self._store.rotate(now_s=now_s)
            self._active, self._left, self._sealed = self._cipher(key_id), 0, 0
        self.reserve()
        return key_id

    def rotate_master(self) -> str:
        """Put all keys under another master key; see KeyStore.rotate_master."""
        with self._lock:
            return self._store.rotate_master()

    def drop_old_master(self) -> None:
        """Remove the master key before this one."""
        with self._lock:
            self._store.drop_old_master()

    def settle(self, used: Collection[str], *, idle: Collection[str], now_s: float) -> bool:
        """Retire keys that nothing needs; see keyset.settle."""
        with self._lock:
            return self._store.settle(used, idle=idle, now_s=now_s)

    def remove(self, key_ids: Collection[str], *, used: Collection[str], now_s: float) -> None:
        """Take retired keys out for good; see keyset.remove."""
        with self._lock:
            self._store.remove(key_ids, used=used, now_s=now_s)
            for key_id in key_ids:
                self._ciphers.pop(key_id, None)

    def seal_master(self, key: bytes, *, now_s: float) -> bytes:
        """The master key and the keyset, sealed under a key of the caller's for a backup.

        Args:
            key: 32 bytes, made for this and nothing else.
            now_s: Unix time, remembered as that of the last backup.
        """
        with self._lock:
            self._store.note_backup(now_s=now_s)
            content = self._store.master.secret + self._store.content
        cipher = Cipher(key, key_id=bytes(KEY_ID_BYTES))
        return cipher.seal(content, context=BACKUP_CONTEXT, nonce=os.urandom(NONCE_BYTES))

    def close(self) -> None:
        """Let go of the directory, which another process may use from then on."""
        self._store.close()

    def _take_use(self) -> Cipher:
        with self._lock:
            if self._left <= 0:
                self.reserve()
            self._left -= 1
            self._sealed += 1
            is_low, cipher = self._left == _LOW, self._active
        if is_low:
            self.on_low()
        return cipher

    def _cipher(self, key_id: str) -> Cipher:
        found = self._ciphers.get(key_id)
        if found is None:
            key = self._store.unwrap(key_id)
            if key is None:
                raise DecryptionError(f"sealed with key {key_id}, which this node does not have")
            found = self._ciphers[key_id] = Cipher(key, key_id=bytes.fromhex(key_id))
        return found


BACKUP_CONTEXT = bind("novacron/1 master key backup")


def derive_keyring(master: bytes) -> DerivedKeyring:
    """The keys that 32 bytes alone give."""
    return DerivedKeyring(master)


def load_keyring(
    directory: Path,
    *,
    node_id: str,
    now_s: float,
    mirror: bytes | None = None,
    has_values: bool = False,
    outside: OutsideSource | None = None,
    used_marks: tuple[str, ...] = (),
    disk: Disk | None = None,
) -> Keyring:
    """Find the node's keys, or make them on its first start.

    Args:
        directory: ``<state>/security``; made where it is missing.
        node_id: whose keys they are.
        now_s: Unix time.
        mirror: the database's keyset; None without one.
        has_values: the database has values that this node's keys sealed.
        outside: gives the master key where it is not the directory's file.
        used_marks: names of files that only a node with a master key writes. Where one of them
            holds something, a missing key is a lost one and no new key is made.
        disk: the directory's files, where they are opened already; closed with the keyring.

    Raises:
        MasterKeyError: there is something that is no master key of ours, or the key is lost.
        KeysetError: the keyset is lost, older than it was, or not ours.
        SecurityFileError: the directory is not ours alone.
        KeyStorageError: the disk is full or fails.
    """
    disk = DirectoryDisk(directory) if disk is None else disk
    try:
        store = KeyStore(disk, node_id=node_id, outside=outside)
        has_data = any(disk.size(name) for name in used_marks)
        loaded = store.load(mirror, has_data=has_data, has_values=has_values, now_s=now_s)
        keyring = Keyring(
            store,
            created=loaded.origin is Origin.NEW,
            remark=loaded.remark,
            mirror=loaded.mirror,
        )
    except BaseException:
        disk.close()
        raise
    return keyring


def open_backup(sealed: bytes, key: bytes) -> tuple[MasterKey, bytes]:
    """The master key and the keyset of a backup.

    Raises:
        DecryptionError: the key is not the one that it was sealed under, or it was changed.
    """
    cipher = Cipher(key, key_id=bytes(KEY_ID_BYTES))
    content = cipher.open(sealed, context=BACKUP_CONTEXT)
    return MasterKey(content[:MASTER_KEY_BYTES]), content[MASTER_KEY_BYTES:]


def _signer(seed: bytes) -> AuditSigner:
    return AuditSigner(Ed25519PrivateKey.from_private_bytes(seed))
