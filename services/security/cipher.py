"""Sealing of small values with AES-256-GCM: confidential, authentic, and bound to a context.

Sealed form: version (1 byte) | key id (8) | nonce (12) | ciphertext and tag (16). The first three
and the context are authenticated with the value, so a sealed value can't be moved to another
place, key or version without failing to open.

The caller gives the nonce. 12 random bytes serve 2^32 values per key (NIST SP 800-38D, 8.3), and a
counter, which would serve more, repeats where a host's disk or memory is put back to an earlier
state; so the nonces are random, and services.security.keys.keyset limits the uses of each key.

Source: NIST SP 800-38D.
"""

from __future__ import annotations

import threading
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.security.errors import CipherSelfTestError, DecryptionError

VERSION = 1
KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES
OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES
# For secrets and keys, not for disk images, which the transport seals in chunks of its own.
VALUE_BYTES_MAX = 16 << 20
# Kept per thread, as long as the longest value so far, up to this.
SCRATCH_BYTES = 2 << 20
_local = threading.local()


class Cipher:
    """Seals and opens values under one key.

    Args:
        key: 32 bytes.
        key_id: 8 bytes that name the key in what it sealed; not secret.
    """

    def __init__(self, key: bytes, *, key_id: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes; AES-256 takes {KEY_BYTES}")
        if len(key_id) != KEY_ID_BYTES:
            raise ValueError(f"a key id of {len(key_id)} bytes; {KEY_ID_BYTES} are needed")
        self._gcm = AESGCM(key)
        self._key_id = key_id

    @property
    def key_id(self) -> str:
        """The key's id as hexadecimal text."""
        return self._key_id.hex()

    def seal(self, value: bytes, *, context: bytes, nonce: bytes) -> bytes:
        """Encrypt and authenticate a value.

        Args:
            value: at most VALUE_BYTES_MAX.
            context: what the value is and whom it belongs to; needed again to open it.
            nonce: 12 bytes, never used before with this key. The library would take 8 as well,
                which makes repetition likely, so the length is enforced here.

        Raises:
            ValueError: a size is out of range.
        """
        _require_sizes(value, nonce)
        sealed = _scratch(len(value) + OVERHEAD_BYTES)
        self.seal_into(sealed, value, context=context, nonce=nonce)
        return bytes(sealed)

    def seal_into(
        self, buffer: bytearray | memoryview, value: bytes, *, context: bytes, nonce: bytes
    ) -> None:
        """Like ``seal``, into a buffer that is OVERHEAD_BYTES longer than the value.

        Raises:
            ValueError: a size is out of range.
        """
        if len(buffer) != len(value) + OVERHEAD_BYTES:
            raise ValueError(f"a buffer of {len(buffer)} bytes for a value of {len(value)}")
        _require_sizes(value, nonce)
        header = bytes([VERSION]) + self._key_id + nonce
        view = memoryview(buffer)
        view[:HEADER_BYTES] = header
        self._gcm.encrypt_into(nonce, value, header + context, view[HEADER_BYTES:])

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Check and decrypt what ``seal`` returned.

        Raises:
            DecryptionError: it was changed, or sealed in another context or by another key.
        """
        if not OVERHEAD_BYTES <= len(sealed) <= VALUE_BYTES_MAX + OVERHEAD_BYTES:
            raise DecryptionError(f"{len(sealed)} bytes are no sealed value")
        header, body = sealed[:HEADER_BYTES], memoryview(sealed)[HEADER_BYTES:]
        if header[0] != VERSION:
            raise DecryptionError(f"sealed in version {header[0]}; this one reads {VERSION}")
        key_id = header[1 : 1 + KEY_ID_BYTES]
        if key_id != self._key_id:
            raise DecryptionError(f"sealed with key {key_id.hex()}; this is {self.key_id}")
        try:
            return self._gcm.decrypt(header[1 + KEY_ID_BYTES :], body, header + context)
        except InvalidTag:
            raise DecryptionError("the sealed value was changed or has another context") from None


class Sealing(Protocol):
    """What seals and opens, whatever keys it has."""

    def seal(self, value: bytes, *, context: bytes) -> bytes:
        """See Cipher.seal."""

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """See Cipher.open."""


def bind(*parts: str) -> bytes:
    """A context from its parts, such as purpose, owner, name and version.

    Each part has its length before it, so that no two lists of parts give the same context.
    """
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def key_id_of(sealed: bytes) -> str:
    """The id of the key that a value says it was sealed with.

    Raises:
        DecryptionError: it is no sealed value.
    """
    if len(sealed) < OVERHEAD_BYTES or sealed[0] != VERSION:
        raise DecryptionError(f"{len(sealed)} bytes are no sealed value of this version")
    return sealed[1 : 1 + KEY_ID_BYTES].hex()


def self_test(cipher: Sealing) -> None:
    """Prove that a cipher opens what it sealed, and only that.

    Raises:
        CipherSelfTestError: names what went wrong.
    """
    value, context = b"novacron cipher self-test", b"self-test"
    sealed = cipher.seal(value, context=context)
    if cipher.open(sealed, context=context) != value:
        raise CipherSelfTestError("the cipher does not open what it sealed")
    if value in sealed:
        raise CipherSelfTestError("the cipher leaves the value readable")
    changed_tag = sealed[:-1] + bytes([sealed[-1] ^ 1])
    if _opens(cipher, changed_tag, context):
        raise CipherSelfTestError("the cipher opens a value with a changed tag")
    if _opens(cipher, sealed, context + b"!"):
        raise CipherSelfTestError("the cipher opens a value in another context")


def _scratch(size: int) -> memoryview:
    """A buffer of this thread that is used again and again; only what was sealed is ever in it.

    Memory that is fresh from the kernel costs more than the sealing of what goes into it.
    """
    if size > SCRATCH_BYTES:
        return memoryview(bytearray(size))
    found: memoryview | None = getattr(_local, "buffer", None)
    if found is None or len(found) < size:
        found = _local.buffer = memoryview(bytearray(size))
    return found[:size]


def _require_sizes(value: bytes, nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce of {len(nonce)} bytes; {NONCE_BYTES} are needed")
    if len(value) > VALUE_BYTES_MAX:
        raise ValueError(f"a value of {len(value)} bytes; at most {VALUE_BYTES_MAX}")


def _opens(cipher: Sealing, sealed: bytes, context: bytes) -> bool:
    try:
        cipher.open(sealed, context=context)
    except DecryptionError:
        return False
    return True
