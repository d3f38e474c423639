"""Our SHA-256 and HMAC are everybody's."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from protocol.sha256 import hmac_sha256, sha256


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 1000])
def test_the_hash_is_that_of_openssl(size: int) -> None:
    """Of texts around the borders of a block, too."""
    text = bytes(range(256))[:size] * (1 + size // 256)

    assert sha256(text).digest() == hashlib.sha256(text).digest()
    assert sha256(text).hexdigest() == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 32, 63, 64, 65, 200])
def test_the_hmac_is_that_of_openssl(size: int) -> None:
    """With keys shorter and longer than a block, too."""
    key, message = b"k" * size, b"what is signed"

    assert hmac_sha256(key, message) == hmac.digest(key, message, hashlib.sha256)


def test_the_hmac_of_the_standard() -> None:
    """RFC 4231, test case 2."""
    found = hmac_sha256(b"Jefe", b"what do ya want for nothing?")

    assert found.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
