"""One chunk to what travels, and back. No I/O; the work releases the interpreter's lock.

A chunk of zeros does not travel. Other chunks travel as one zstd frame, or raw where that would
save less than a tenth: decompression at the other end costs more than such a gain is worth.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import zstandard

from services.dwcp.errors import HashMismatchError
from services.dwcp.model import Level
from services.dwcp.plan import hash_of, is_zero

# On 1 MiB chunks of Debian's libraries, per core of the development machine while it was busy:
# 1 gives 2.2:1 at 340 MB/s, 3 gives 2.4:1 at 180, 9 gives 2.5:1 at 40.
ZSTD_LEVELS = {Level.FAST: 1, Level.BALANCED: 3, Level.BEST: 9}
RAW_ABOVE = 0.9
# A page in the middle of an incompressible chunk says so far cheaper than the whole of it.
_PROBE_BYTES = 16 << 10
# After this many chunks in a row that stayed raw, a probe goes first.
_RAW_RUN = 4


@dataclass(frozen=True, slots=True)
class Packed:
    """A chunk that is ready to travel; ``hash`` is XXH3-64 of its raw bytes."""

    payload: bytes
    raw_bytes: int
    hash: int
    compressed: bool


class Compressor:
    """Packs chunks on any number of threads.

    Args:
        enabled: False leaves every chunk raw.
        level: how hard to compress.
    """

    def __init__(self, *, enabled: bool, level: Level) -> None:
        self._enabled = enabled
        self._level = ZSTD_LEVELS[level]
        self._local = threading.local()

    def pack(self, raw: bytes) -> Packed | None:
        """Pack one chunk; None when it is all zeros."""
        if is_zero(raw):
            return None
        digest = hash_of(raw)
        if self._enabled and self._is_worth_trying(raw):
            payload = self._zstd().compress(raw)
            if len(payload) <= len(raw) * RAW_ABOVE:
                self._local.raw_run = 0
                return Packed(payload, len(raw), digest, compressed=True)
            self._local.raw_run = getattr(self._local, "raw_run", 0) + 1
        return Packed(raw, len(raw), digest, compressed=False)

    def _is_worth_trying(self, raw: bytes) -> bool:
        if getattr(self._local, "raw_run", 0) < _RAW_RUN or len(raw) <= 2 * _PROBE_BYTES:
            return True
        middle = len(raw) // 2
        probe = raw[middle : middle + _PROBE_BYTES]
        return len(self._zstd().compress(probe)) <= len(probe) * RAW_ABOVE

    def _zstd(self) -> zstandard.ZstdCompressor:
        # A zstd context serves one thread at a time.
        if (found := getattr(self._local, "zstd", None)) is None:
            found = self._local.zstd = zstandard.ZstdCompressor(level=self._level)
        assert isinstance(found, zstandard.ZstdCompressor)
        return found


class Decompressor:
    """Unpacks chunks on any number of threads."""

    def __init__(self) -> None:
        self._local = threading.local()

    def unpack(
        self, payload: bytes | bytearray, *, raw_bytes: int, digest: int, compressed: bool
    ) -> bytes | bytearray:
        """The raw bytes of a chunk, checked.

        Args:
            payload: as it travelled.
            raw_bytes: length that the header states; bounds what is allocated.
            digest: XXH3-64 that the header states.
            compressed: whether the payload is a zstd frame.

        Raises:
            HashMismatchError: these are not the bytes that were packed.
        """
        raw = self._inflate(payload, raw_bytes) if compressed else payload
        if len(raw) != raw_bytes or hash_of(raw) != digest:
            raise HashMismatchError("a chunk arrived damaged")
        return raw

    def _inflate(self, payload: bytes | bytearray, raw_bytes: int) -> bytes:
        if (zstd := getattr(self._local, "zstd", None)) is None:
            zstd = self._local.zstd = zstandard.ZstdDecompressor()
        assert isinstance(zstd, zstandard.ZstdDecompressor)
        try:
            # The frame states its own length, and the library allocates what it states.
            if zstandard.get_frame_parameters(payload).content_size != raw_bytes:
                raise HashMismatchError("a chunk arrived damaged: its length is another one")
            return zstd.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise HashMismatchError(f"a chunk arrived damaged: {exc}") from exc
