"""How a file is cut and on how many streams it travels. Arithmetic only.

The digest of a file is XXH3-128 over: size (u64), chunk length (u64), then one u64 per chunk, big
numbers little-endian: the XXH3-64 of the chunk, or 0 for a chunk of zeros. So holes cost nothing
and a file has one digest however its holes lie. It guards against faults, not against forgers.
"""

from __future__ import annotations

import re
import sys
from array import array
from dataclasses import dataclass

import xxhash

from services.dwcp.errors import FileTooLargeError, NameRefusedError
from services.dwcp.framing import CHUNK_BYTES_MAX
from services.dwcp.model import NAME_BYTES_MAX

# Below this the costs per chunk (header, system calls, Python) show.
CHUNK_BYTES_MIN = 64 << 10
# Each chunk is compressed by itself, so shorter ones compress worse (log text, level 3: 5.1:1 with
# 1 MiB, 4.3:1 with 256 KiB); longer ones cost memory on every stream.
CHUNK_BYTES_USUAL = 1 << 20
# One hash per chunk stays in memory at both ends: 32 MiB.
CHUNKS_MAX = 1 << 22
# What ChunkHashes keeps per chunk.
HASH_BYTES = 9
# Chunks held per stream: one being received or sent, one being worked on.
CHUNKS_PER_STREAM = 2
# More streams have to pay: at least so much faster than before.
GAIN_MIN = 1.15
# Long enough that a rate is no accident, short against a transfer for which streams matter.
TUNE_PERIOD_S = 1.0
_ZEROS = bytes(64 << 10)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """A file of ``size_bytes`` in chunks of ``chunk_bytes``; the last one may be shorter."""

    size_bytes: int
    chunk_bytes: int

    @property
    def chunks(self) -> int:
        """How many there are."""
        return -(-self.size_bytes // self.chunk_bytes)

    def offset(self, chunk: int) -> int:
        """Where a chunk begins."""
        return chunk * self.chunk_bytes

    def length(self, chunk: int) -> int:
        """How long a chunk is."""
        return min(self.chunk_bytes, self.size_bytes - chunk * self.chunk_bytes)


def choose_chunk_bytes(size_bytes: int, *, streams_max: int, buffer_bytes: int) -> int:
    """The length of chunks: the usual one, less when many streams must fit into memory.

    Args:
        size_bytes: of the file.
        streams_max: streams that may be opened.
        buffer_bytes: memory for all of them.

    Raises:
        FileTooLargeError: the file has too many chunks even at the largest length.
    """
    share = buffer_bytes // (CHUNKS_PER_STREAM * streams_max)
    length = CHUNK_BYTES_USUAL
    while length > CHUNK_BYTES_MIN and length > share:
        length //= 2
    while -(-size_bytes // length) > CHUNKS_MAX:
        length *= 2
    if length > CHUNK_BYTES_MAX:
        raise FileTooLargeError(
            f"{size_bytes} bytes are more than one transfer takes ({CHUNKS_MAX * CHUNK_BYTES_MAX})"
        )
    return length


def reservation_bytes(plan: ChunkPlan, streams: int) -> int:
    """Memory that a transfer may take for its chunks and their hashes."""
    return plan.chunks * HASH_BYTES + streams * CHUNKS_PER_STREAM * plan.chunk_bytes


def grant_streams(plan: ChunkPlan, asked: int, *, free_bytes: int) -> int:
    """How many of the streams asked for fit into the memory left; 0 for none."""
    left = free_bytes - plan.chunks * HASH_BYTES
    return max(0, min(asked, left // (CHUNKS_PER_STREAM * plan.chunk_bytes)))


def check_name(name: str) -> str:
    """The name under which a received file may appear: one plain, visible, bounded file name.

    Raises:
        NameRefusedError: it is not such a name.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise NameRefusedError("the file's name is not valid text") from None
    if not 0 < length <= NAME_BYTES_MAX:
        raise NameRefusedError(f"the file's name has {length} bytes; 1 to {NAME_BYTES_MAX} may be")
    # A leading dot would also cover "." and "..", and the names of unfinished files.
    if name.startswith(".") or "/" in name or _CONTROL_CHARACTERS.search(name):
        raise NameRefusedError(f"{name!r} can't name a received file")
    return name


class ChunkHashes:
    """The hashes of a file's chunks, as they come, and the file's digest in the end."""

    def __init__(self, plan: ChunkPlan) -> None:
        self._plan = plan
        self._hashes = array("Q", bytes(8 * plan.chunks))
        self._seen = bytearray(plan.chunks)
        self.count = 0

    def add(self, chunk: int, value: int) -> bool:
        """Note a chunk that is not all zeros; False when it was noted before."""
        if self._seen[chunk]:
            return False
        self._seen[chunk] = 1
        self._hashes[chunk] = value
        self.count += 1
        return True

    def digest(self) -> bytes:
        """16 bytes; see the module."""
        hashes = self._hashes
        if sys.byteorder == "big":
            hashes = array("Q", hashes)
            hashes.byteswap()
        digest = xxhash.xxh3_128()
        digest.update(self._plan.size_bytes.to_bytes(8, "little"))
        digest.update(self._plan.chunk_bytes.to_bytes(8, "little"))
        digest.update(memoryview(hashes).cast("B"))
        return digest.digest()


class StreamTuner:
    """Few streams first, more only when they help.

    Rules: measure the rate over ``TUNE_PERIOD_S``; double the streams; measure again; keep
    doubling while each step is at least ``GAIN_MIN`` times as fast as the last, up to the
    ceiling; then stay. Streams that did not help are kept: closing one would cost its chunks.

    Args:
        streams: to begin with.
        ceiling: never more than this.
    """

    def __init__(self, streams: int, ceiling: int) -> None:
        assert 1 <= streams <= ceiling
        self.target = streams
        self._ceiling = ceiling
        self._best = 0.0
        self._since_s: float | None = None
        self._since_bytes = 0

    def step(self, now_s: float, done_bytes: int) -> int:
        """Take in the progress so far; the number of streams that should be open."""
        if self._since_s is None:
            self._since_s, self._since_bytes = now_s, done_bytes
        elapsed_s = now_s - self._since_s
        if self.target >= self._ceiling or elapsed_s < TUNE_PERIOD_S:
            return self.target
        rate = (done_bytes - self._since_bytes) / elapsed_s
        if rate < self._best * GAIN_MIN:
            self._ceiling = self.target
            return self.target
        self._best = rate
        self._since_s, self._since_bytes = now_s, done_bytes
        self.target = min(self._ceiling, self.target * 2)
        return self.target


def first_streams(initial: int, *, chunks: int, granted: int) -> int:
    """Streams to open at once: never more than there are chunks, or than the receiver grants."""
    return max(1, min(initial, chunks, granted))


def hash_of(raw: bytes | bytearray) -> int:
    """XXH3-64 of a chunk's raw bytes."""
    return xxhash.xxh3_64_intdigest(raw)


def is_zero(raw: bytes) -> bool:
    """Tell whether a chunk is all zeros, leaving at the first 64 KiB that is not."""
    step = len(_ZEROS)
    return all(
        raw[start : start + step] == _ZEROS[: len(raw) - start]
        for start in range(0, len(raw), step)
    )
