"""Values at rest in memory: sealed under a key that only this process has and that ends with it.

What this is for: a core dump, a page in swap, or a debugger's list of strings shows no value. It is
no protection from whoever may read all of the process's memory.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from services.security.cipher import KEY_BYTES, KEY_ID_BYTES, NONCE_BYTES, Cipher


class Sealer:
    """Seals texts with AES-256-GCM under a random key."""

    def __init__(self) -> None:
        self._cipher = Cipher(os.urandom(KEY_BYTES), key_id=os.urandom(KEY_ID_BYTES))
        self._digest_key = os.urandom(KEY_BYTES)

    def seal(self, value: str, *, context: str) -> bytes:
        """Seal a value; only ``open`` with the same context gives it back."""
        nonce = os.urandom(NONCE_BYTES)
        return self._cipher.seal(value.encode(), context=context.encode(), nonce=nonce)

    def open(self, sealed: bytes, *, context: str) -> str:
        """The value.

        Raises:
            DecryptionError: it was sealed by another process, in another context, or changed.
        """
        return self._cipher.open(sealed, context=context.encode()).decode()

    def digest(self, value: str) -> bytes:
        """What tells equal values from others without opening any; of no use elsewhere."""
        return hmac.digest(self._digest_key, value.encode(), hashlib.sha256)
