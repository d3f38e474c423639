"""SHA-256, and HMAC with it, without OpenSSL.

``hashlib`` loads all of OpenSSL for it, which is two megabytes of memory in every tree, and some
milliseconds at its start. The standard library's own implementation is as good for the few short
texts that are hashed here; ``random`` imports its own in the same way.

Source: RFC 2104 for HMAC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class _Hash(Protocol):
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


try:
    from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]  # it has no types
except ImportError:  # of another version of Python
    from hashlib import sha256 as _sha256

sha256: Callable[[bytes], _Hash] = _sha256

_BLOCK_BYTES = 64


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """The HMAC of a message; 32 bytes."""
    block = (sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()
