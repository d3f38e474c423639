"""How a file is cut, named and digested, and how many streams it gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dwcp import plan
from services.dwcp.errors import FileTooLargeError, NameRefusedError
from services.dwcp.framing import CHUNK_BYTES_MAX
from services.dwcp.model import NAME_BYTES_MAX
from services.dwcp.plan import (
    CHUNK_BYTES_MIN,
    CHUNK_BYTES_USUAL,
    CHUNKS_MAX,
    CHUNKS_PER_STREAM,
    ChunkHashes,
    ChunkPlan,
    StreamTuner,
)

MIB = 1 << 20


@given(st.integers(0, 10_000), st.integers(1, 700))
def test_chunks_cover_a_file_exactly(size, length):
    """Chunks follow each other without gap or overlap up to the last byte."""
    cut = ChunkPlan(size, length)

    ends = [cut.offset(chunk) + cut.length(chunk) for chunk in range(cut.chunks)]
    starts = [cut.offset(chunk) for chunk in range(cut.chunks)]

    assert [0, *ends] == [*starts, size]
    assert all(0 < cut.length(chunk) <= length for chunk in range(cut.chunks))


@pytest.mark.parametrize(
    ("streams", "expected"),
    [(1, CHUNK_BYTES_USUAL), (64, CHUNK_BYTES_USUAL), (256, 256 << 10), (1024, CHUNK_BYTES_MIN)],
)
def test_more_streams_get_shorter_chunks(streams, expected):
    """The chunks of all streams fit into the memory set aside for them."""
    length = plan.choose_chunk_bytes(1 << 30, streams_max=streams, buffer_bytes=128 * MIB)

    assert length == expected
    assert plan.reservation_bytes(ChunkPlan(0, length), streams) <= 128 * MIB


def test_chunks_grow_only_for_huge_files():
    """The number of chunks is bounded; the largest file is the one that just fits."""
    largest = CHUNKS_MAX * CHUNK_BYTES_MAX

    length = plan.choose_chunk_bytes(largest, streams_max=1, buffer_bytes=128 * MIB)

    assert length == CHUNK_BYTES_MAX
    with pytest.raises(FileTooLargeError):
        plan.choose_chunk_bytes(largest + 1, streams_max=1, buffer_bytes=128 * MIB)


@pytest.mark.parametrize(
    ("free", "granted"),
    [(0, 0), (CHUNKS_PER_STREAM * MIB - 1, 0), (CHUNKS_PER_STREAM * MIB, 1), (1000 * MIB, 8)],
)
def test_streams_are_granted_as_memory_allows(free, granted):
    """Never more than asked for, never more than fit."""
    assert plan.grant_streams(ChunkPlan(0, MIB), 8, free_bytes=free) == granted


def test_hashes_count_as_memory():
    """A file of many chunks leaves less room for streams, and none where the hashes do not fit."""
    cut = ChunkPlan(CHUNKS_MAX * MIB, MIB)
    hashes = CHUNKS_MAX * plan.HASH_BYTES

    assert plan.grant_streams(cut, 8, free_bytes=hashes + 4 * MIB) == 2
    assert plan.grant_streams(cut, 8, free_bytes=hashes - 1) == 0
    assert plan.reservation_bytes(cut, 2) == hashes + 4 * MIB


@pytest.mark.parametrize(
    "name", ["a", "disk-1.qcow2", "größe", "a b", "x" * NAME_BYTES_MAX, "a..b"]
)
def test_plain_names_are_accepted(name):
    """A visible file name of a bounded length may appear."""
    assert plan.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "/etc/passwd",
        "../x",
        "a\0b",
        "a\nb",
        "x" * (NAME_BYTES_MAX + 1),
        "ä" * (NAME_BYTES_MAX // 2 + 1),
        "\udc80",
    ],
)
def test_other_names_are_refused(name):
    """Nothing leaves the directory, hides in it, or breaks a terminal."""
    with pytest.raises(NameRefusedError):
        plan.check_name(name)


def test_the_digest_does_not_depend_on_the_order():
    """Chunks may arrive in any order."""
    cut = ChunkPlan(30, 10)
    one, other = ChunkHashes(cut), ChunkHashes(cut)

    for chunk in (0, 1, 2):
        one.add(chunk, chunk + 5)
    for chunk in (2, 0, 1):
        other.add(chunk, chunk + 5)

    assert one.digest() == other.digest()


def test_the_digest_depends_on_place_content_and_size():
    """Two files that differ in any way differ in their digest."""
    seen = set()
    for cut in (ChunkPlan(30, 10), ChunkPlan(29, 10), ChunkPlan(30, 11)):
        for chunk, value in ((0, 1), (1, 1), (0, 2)):
            hashes = ChunkHashes(cut)
            hashes.add(chunk, value)
            seen.add(hashes.digest())

    assert len(seen) == 9


def test_the_digest_is_fixed():
    """Two nodes of different machines agree: the value is part of the protocol."""
    hashes = ChunkHashes(ChunkPlan(3 << 20, 1 << 20))
    hashes.add(1, plan.hash_of(b"x" * (1 << 20)))

    assert hashes.digest().hex() == "989c96bd6f201215bb812fef2cc73c28"


def test_a_chunk_counts_once():
    """A repeated chunk is noticed."""
    hashes = ChunkHashes(ChunkPlan(30, 10))

    assert hashes.add(1, 7)
    assert not hashes.add(1, 7)
    assert hashes.count == 1


@pytest.mark.parametrize("length", [1, 65535, 65536, 65537, 200_000])
def test_zeros_are_found(length):
    """Only all zeros are zeros, wherever the other byte stands."""
    raw = bytearray(length)

    assert plan.is_zero(bytes(raw))
    for place in (0, length // 2, length - 1):
        raw[place] = 1
        assert not plan.is_zero(bytes(raw))
        raw[place] = 0


def rate_run(tuner, rate_of, seconds):
    """Drive a tuner with a rate that depends on the streams; returns the targets."""
    done, targets = 0.0, []
    for tenth in range(seconds * 10):
        targets.append(tuner.step(tenth / 10, int(done)))
        done += rate_of(targets[-1]) / 10
    return targets


def test_streams_double_while_they_help():
    """A path where each stream adds its share gets streams up to the ceiling."""
    targets = rate_run(StreamTuner(4, 50), lambda streams: streams * MIB, 10)

    assert sorted(set(targets)) == [4, 8, 16, 32, 50]


def test_streams_stay_when_they_do_not_help():
    """On a path that is full, one step is tried and no more."""
    targets = rate_run(StreamTuner(4, 256), lambda _streams: 100 * MIB, 20)

    assert sorted(set(targets)) == [4, 8]


def test_a_fixed_number_of_streams_stays():
    """Who asks for so many gets so many."""
    targets = rate_run(StreamTuner(3, 3), lambda streams: streams * MIB, 5)

    assert set(targets) == {3}


@pytest.mark.parametrize(
    ("initial", "chunks", "granted", "streams"),
    [(32, 1000, 256, 32), (32, 5, 256, 5), (32, 1000, 8, 8), (32, 0, 8, 1)],
)
def test_the_first_streams(initial, chunks, granted, streams):
    """No more than there are chunks and the receiver grants, and always one."""
    assert plan.first_streams(initial, chunks=chunks, granted=granted) == streams
