"""Sealing of small values with AES-256-GCM: confidential, authentic, and bound to a context.

Sealed form: version (1 byte) | key id (8) | nonce (12) | ciphertext and tag (16). The first three
and the context are authenticated with the value, so a sealed value can't be moved to another
place, key or version without failing to open.

The caller gives the nonce. 12 random bytes serve 2^32 values per key (NIST SP 800-38D, 8.3).

Source: NIST SP 800-38D.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.security.errors import CipherSelfTestError, DecryptionError

VERSION = 1
KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES
# For secrets and keys, not for disk images, which the transport seals in chunks of its own.
VALUE_BYTES_MAX = 16 << 20


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
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce of {len(nonce)} bytes; {NONCE_BYTES} are needed")
        if len(value) > VALUE_BYTES_MAX:
            raise ValueError(f"a value of {len(value)} bytes; at most {VALUE_BYTES_MAX}")
        header = bytes([VERSION]) + self._key_id + nonce
        return header + self._gcm.encrypt(nonce, value, header + context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Check and decrypt what ``seal`` returned.

        Raises:
            DecryptionError: it was changed, or sealed in another context or by another key.
        """
        if (
            not HEADER_BYTES + TAG_BYTES
            <= len(sealed)
            <= (HEADER_BYTES + VALUE_BYTES_MAX + TAG_BYTES)
        ):
            raise DecryptionError(f"{len(sealed)} bytes are no sealed value")
        header, body = sealed[:HEADER_BYTES], sealed[HEADER_BYTES:]
        if header[0] != VERSION:
            raise DecryptionError(f"sealed in version {header[0]}; this one reads {VERSION}")
        key_id = header[1 : 1 + KEY_ID_BYTES]
        if key_id != self._key_id:
            raise DecryptionError(f"sealed with key {key_id.hex()}; this is {self.key_id}")
        try:
            return self._gcm.decrypt(header[1 + KEY_ID_BYTES :], body, header + context)
        except InvalidTag:
            raise DecryptionError("the sealed value was changed or has another context") from None


def self_test(cipher: Cipher, *, nonce: bytes) -> None:
    """Prove that the cipher opens what it sealed, and only that.

    Args:
        cipher: the one to test.
        nonce: a fresh nonce, used up by the test.

    Raises:
        CipherSelfTestError: names what went wrong.
    """
    value, context = b"novacron cipher self-test", b"self-test"
    sealed = cipher.seal(value, context=context, nonce=nonce)
    if cipher.open(sealed, context=context) != value:
        raise CipherSelfTestError("the cipher does not open what it sealed")
    if value in sealed:
        raise CipherSelfTestError("the cipher leaves the value readable")
    changed_tag = sealed[:-1] + bytes([sealed[-1] ^ 1])
    if _opens(cipher, changed_tag, context):
        raise CipherSelfTestError("the cipher opens a value with a changed tag")
    if _opens(cipher, sealed, context + b"!"):
        raise CipherSelfTestError("the cipher opens a value in another context")


def _opens(cipher: Cipher, sealed: bytes, context: bytes) -> bool:
    try:
        cipher.open(sealed, context=context)
    except DecryptionError:
        return False
    return True
