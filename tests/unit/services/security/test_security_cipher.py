"""Sealing: what opens, and everything that must not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.security import cipher as sealing
from services.security.cipher import HEADER_BYTES, NONCE_BYTES, Cipher, self_test
from services.security.errors import CipherSelfTestError, DecryptionError

KEY = bytes(range(32))
NONCE = b"n" * NONCE_BYTES
CONTEXT = b"vm/7"


def make_cipher(key: bytes = KEY, key_id: bytes = b"key-id-1") -> Cipher:
    """A cipher with a fixed key."""
    return Cipher(key, key_id=key_id)


@given(
    value=st.binary(max_size=300),
    context=st.binary(max_size=40),
    nonce=st.binary(min_size=12, max_size=12),
)
@settings(max_examples=50)
def test_what_was_sealed_opens(value: bytes, context: bytes, nonce: bytes) -> None:
    """Any value opens again in its context."""
    cipher = make_cipher()

    sealed = cipher.seal(value, context=context, nonce=nonce)

    assert cipher.open(sealed, context=context) == value


def test_every_changed_bit_is_found() -> None:
    """No bit of version, key id, nonce, ciphertext or tag can change unnoticed."""
    cipher = make_cipher()
    sealed = cipher.seal(b"value", context=CONTEXT, nonce=NONCE)

    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(DecryptionError):
            cipher.open(bytes(changed), context=CONTEXT)


def test_another_context_does_not_open() -> None:
    """A sealed value can't be moved to another owner."""
    cipher = make_cipher()
    sealed = cipher.seal(b"value", context=CONTEXT, nonce=NONCE)

    with pytest.raises(DecryptionError, match="context"):
        cipher.open(sealed, context=b"vm/8")


def test_header_and_context_do_not_run_into_each_other() -> None:
    """The header has a fixed length, so no byte moves between it and the context."""
    cipher = make_cipher()
    sealed = cipher.seal(b"value", context=CONTEXT, nonce=NONCE)

    with pytest.raises(DecryptionError):
        cipher.open(sealed + CONTEXT[:1], context=CONTEXT[1:])


def test_another_key_is_named() -> None:
    """A value of another key is refused by its id, before any decryption."""
    sealed = make_cipher(key_id=b"key-id-2").seal(b"value", context=CONTEXT, nonce=NONCE)

    with pytest.raises(DecryptionError, match=b"key-id-2".hex()):
        make_cipher().open(sealed, context=CONTEXT)


@pytest.mark.parametrize("length", [0, 8, 11, 13, 16])
def test_nonces_have_twelve_bytes(length: int) -> None:
    """Nonces of other lengths, which the library would take, are refused."""
    with pytest.raises(ValueError, match="nonce"):
        make_cipher().seal(b"", context=CONTEXT, nonce=bytes(length))


@pytest.mark.parametrize("length", [16, 24, 31, 33])
def test_keys_have_thirty_two_bytes(length: int) -> None:
    """AES-128 and AES-192 can't be had by a short key."""
    with pytest.raises(ValueError, match="key"):
        make_cipher(key=bytes(length))


def test_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value at the limit is sealed and one byte more is not."""
    monkeypatch.setattr(sealing, "VALUE_BYTES_MAX", 100)

    assert make_cipher().seal(bytes(100), context=b"", nonce=NONCE)
    with pytest.raises(ValueError, match="at most 100"):
        make_cipher().seal(bytes(101), context=b"", nonce=NONCE)


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES, HEADER_BYTES + 15])
def test_short_input_is_no_sealed_value(length: int) -> None:
    """Input without room for header and tag is refused before it is read."""
    with pytest.raises(DecryptionError, match="no sealed value"):
        make_cipher().open(b"\x01" * length, context=CONTEXT)


def test_the_self_test_passes_for_the_real_cipher() -> None:
    """A working cipher passes."""
    self_test(Fixed(make_cipher()))


class Fixed:
    """A cipher with a nonce of its own, as the self-test wants it."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def seal(self, value: bytes, *, context: bytes) -> bytes:
        """Seal with the fixed nonce."""
        return self._cipher.seal(value, context=context, nonce=NONCE)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Open."""
        return self._cipher.open(sealed, context=context)


class Forgetful(Cipher):
    """A cipher that ignores the context."""

    def seal(self, value: bytes, *, context: bytes, nonce: bytes) -> bytes:
        """Seal without the context."""
        return super().seal(value, context=b"", nonce=nonce)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Open without the context."""
        return super().open(sealed, context=b"")


class Plainly(Cipher):
    """A cipher that encrypts nothing and checks nothing."""

    def seal(self, value: bytes, *, context: bytes, nonce: bytes) -> bytes:
        """The value with a tag that nobody reads."""
        return value + bytes(16)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """The value."""
        return sealed[:-16]


class Unchecked(Cipher):
    """A cipher that encrypts and checks nothing."""

    def seal(self, value: bytes, *, context: bytes, nonce: bytes) -> bytes:
        """The value, turned."""
        return value[::-1] + bytes(16)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """The value."""
        return sealed[:-16][::-1]


@pytest.mark.parametrize(
    ("broken", "problem"), [(Forgetful, "context"), (Plainly, "readable"), (Unchecked, "tag")]
)
def test_the_self_test_finds_a_broken_cipher(broken: type[Cipher], problem: str) -> None:
    """A cipher without one of the properties does not pass, and the message says which."""
    with pytest.raises(CipherSelfTestError, match=problem):
        self_test(Fixed(broken(KEY, key_id=b"key-id-1")))
