"""Chunks travel compressed where it pays, and arrive as they were or not at all."""

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.dwcp.compress import RAW_ABOVE, Compressor, Decompressor
from services.dwcp.errors import HashMismatchError
from services.dwcp.model import Level

TEXT = b"running machine, written page, " * 4000
NOISE = random.Random(3).randbytes(100_000)


def unpack(packed, **change):
    """Unpack with one field of the header changed."""
    fields = {
        "raw_bytes": packed.raw_bytes,
        "digest": packed.hash,
        "compressed": packed.compressed,
        **change,
    }
    return Decompressor().unpack(packed.payload, **fields)


@pytest.mark.parametrize("level", list(Level))
def test_text_is_compressed(level):
    """Each level makes text shorter and gives it back."""
    packed = Compressor(enabled=True, level=level).pack(TEXT)

    assert packed.compressed
    assert len(packed.payload) < len(TEXT) * RAW_ABOVE
    assert unpack(packed) == TEXT


def test_noise_stays_raw():
    """What does not become shorter travels as it is, however often it comes."""
    compressor = Compressor(enabled=True, level=Level.BALANCED)

    packed = [compressor.pack(NOISE) for _ in range(8)]

    assert not any(one.compressed for one in packed)
    assert unpack(packed[-1]) == NOISE


def test_text_after_much_noise_is_compressed_again():
    """The probe that saves work on noise does not miss the end of it."""
    compressor = Compressor(enabled=True, level=Level.BALANCED)
    for _ in range(8):
        compressor.pack(NOISE)

    assert compressor.pack(TEXT).compressed


def test_disabled_compression_leaves_text_raw():
    """The switch does what it says."""
    assert not Compressor(enabled=False, level=Level.FAST).pack(TEXT).compressed


def test_zeros_do_not_travel():
    """A chunk of zeros is a hole."""
    assert Compressor(enabled=True, level=Level.FAST).pack(bytes(1 << 20)) is None


@given(st.binary(min_size=1, max_size=3000))
def test_every_chunk_comes_back(raw):
    """Any bytes but zeros arrive as they were sent."""
    packed = Compressor(enabled=True, level=Level.FAST).pack(raw)

    assert packed is None or unpack(packed) == raw


@pytest.mark.parametrize("change", [{"digest": 1}, {"raw_bytes": 5}, {"compressed": False}])
def test_a_header_that_lies_is_found(change):
    """Length, kind and hash must all fit."""
    packed = Compressor(enabled=True, level=Level.FAST).pack(TEXT)

    with pytest.raises(HashMismatchError):
        unpack(packed, **change)


def test_a_flipped_bit_is_found():
    """Damage inside the payload is found, compressed or not."""
    for raw in (TEXT, NOISE):
        packed = Compressor(enabled=True, level=Level.FAST).pack(raw)
        damaged = bytearray(packed.payload)
        damaged[len(damaged) // 2] ^= 4
        with pytest.raises(HashMismatchError):
            Decompressor().unpack(
                damaged,
                raw_bytes=packed.raw_bytes,
                digest=packed.hash,
                compressed=packed.compressed,
            )


def test_a_bomb_allocates_nothing():
    """A frame that states another length than its header is refused before it is inflated."""
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))

    with pytest.raises(HashMismatchError, match="length"):
        Decompressor().unpack(bomb, raw_bytes=1000, digest=0, compressed=True)


def test_bytes_behind_the_frame_are_refused():
    """Nothing can hide behind a chunk."""
    packed = Compressor(enabled=True, level=Level.FAST).pack(TEXT)

    with pytest.raises(HashMismatchError):
        Decompressor().unpack(
            packed.payload + b"more",
            raw_bytes=packed.raw_bytes,
            digest=packed.hash,
            compressed=True,
        )
