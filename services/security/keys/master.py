"""The master key: wraps the data keys, authenticates the keyset, and does nothing else.

Both uses have a key of their own, derived by HKDF-SHA256, and so has the id, which says nothing
about the key. A wrapped key is ``nonce (12) | ciphertext (32) | tag (16)`` of AES-256-GCM, bound to
the node, the id and the purpose of the key in it. A master key wraps a few thousand keys at most,
so random nonces do.

Source: RFC 5869 (HKDF; the input is uniformly random, so its extract step has nothing to add).
"""

from __future__ import annotations

import hashlib
import hmac
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from services.security.cipher import KEY_BYTES, NONCE_BYTES, bind
from services.security.errors import DecryptionError
from services.security.keys.keyset import KeyEntry

MASTER_KEY_BYTES = 32
_ID = b"novacron/1 master key id"
_WRAP = b"novacron/1 data key wrapping key"
_MAC = b"novacron/1 keyset authentication key"
_ID_BYTES = 8
_HEX = re.compile(rb"\s*([0-9a-fA-F]{64})\s*")


class MasterKey:
    """One master key.

    Args:
        secret: 32 uniformly random bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != MASTER_KEY_BYTES:
            raise ValueError(f"a master key of {len(secret)} bytes; {MASTER_KEY_BYTES} are needed")
        self.secret = secret
        self.id = expand(secret, _ID, _ID_BYTES).hex()
        self._gcm = AESGCM(expand(secret, _WRAP, KEY_BYTES))
        self._mac_key = expand(secret, _MAC, KEY_BYTES)

    def __repr__(self) -> str:
        """The id alone."""
        return f"MasterKey({self.id})"

    def wrap(self, key: bytes, entry: KeyEntry, *, node_id: str, nonce: bytes) -> bytes:
        """Encrypt a key for its entry; the entry's ``wrapped`` is not looked at."""
        return nonce + self._gcm.encrypt(nonce, key, _context(entry, node_id))

    def unwrap(self, entry: KeyEntry, *, node_id: str) -> bytes:
        """Decrypt the key of an entry.

        Raises:
            DecryptionError: it was wrapped by another key or for another entry.
        """
        nonce, body = entry.wrapped[:NONCE_BYTES], entry.wrapped[NONCE_BYTES:]
        try:
            return self._gcm.decrypt(nonce, body, _context(entry, node_id))
        except (InvalidTag, ValueError):
            raise DecryptionError(f"key {entry.id} can't be unwrapped") from None

    def mac(self, content: bytes) -> bytes:
        """What authenticates a keyset."""
        return hmac.digest(self._mac_key, content, hashlib.sha256)


def parse_master(content: bytes) -> MasterKey | None:
    """A master key from what a file or a secret holds: 32 bytes, or 64 hexadecimal digits."""
    if len(content) == MASTER_KEY_BYTES:
        return MasterKey(content)
    if match := _HEX.fullmatch(content):
        return MasterKey(bytes.fromhex(match[1].decode()))
    return None


def expand(secret: bytes, purpose: bytes, length: int) -> bytes:
    """Derive a key of one purpose."""
    return HKDFExpand(algorithm=SHA256(), length=length, info=purpose).derive(secret)


def _context(entry: KeyEntry, node_id: str) -> bytes:
    return bind("novacron/1 wrapped key", node_id, entry.id, entry.purpose.value)
