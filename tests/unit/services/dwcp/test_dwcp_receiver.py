"""The receiver refuses what is outside the limits and commits only what was sent."""

import pytest

from services.dwcp import framing
from services.dwcp.exchange import (
    Commit,
    CreatePart,
    Store,
)
from services.dwcp.framing import FrameType
from services.dwcp.model import Finish
from services.dwcp.plan import ChunkHashes, ChunkPlan
from tests.fixtures.fix_dwcp_machines import (
    K,
    chunk_header,
    make_receiver,
    moving_receiver,
    offer_of,
    take,
    tell,
)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "../x"}, "dwcp.name_refused"),
        ({"chunk_bytes": K - 1}, "dwcp.protocol"),
        ({"chunk_bytes": framing.CHUNK_BYTES_MAX + 1}, "dwcp.protocol"),
        ({"streams_max": 0}, "dwcp.protocol"),
        ({"streams_max": 1025}, "dwcp.protocol"),
        ({"allocated_bytes": -1}, "dwcp.protocol"),
    ],
)
def test_bad_offers_are_refused(change, code):
    """An offer outside the limits creates no file."""
    receiver = make_receiver()

    tell(receiver, FrameType.OFFER, offer_of(5 * K, **change))

    assert receiver.error.code == code
    assert not any(isinstance(action, CreatePart) for action in take(receiver))


@pytest.mark.parametrize("size", [-1, K << 40])
def test_impossible_sizes_are_refused(size):
    """A size that no transfer takes is refused before memory is spent on it."""
    receiver = make_receiver()

    tell(receiver, FrameType.OFFER, offer_of(size, allocated_bytes=0))

    assert receiver.error.code == "dwcp.file_too_large"


@pytest.mark.parametrize(
    "header",
    [
        chunk_header(9),
        chunk_header(0, offset=K),
        chunk_header(0, raw=K - 1),
        chunk_header(8, raw=K),
    ],
)
def test_chunks_outside_the_plan_are_refused(header):
    """Nothing is written where the plan has no such chunk."""
    receiver = moving_receiver(8 * K + 5)

    receiver.frame(1, header, bytearray(header.wire_bytes), 1.0)

    assert receiver.error.code == "dwcp.protocol"
    assert not any(isinstance(action, Store) for action in take(receiver))


def test_a_repeated_chunk_is_refused():
    """Each chunk comes once."""
    receiver = moving_receiver(8 * K)

    for _ in range(2):
        receiver.frame(1, chunk_header(3), bytearray(K), 1.0)

    assert receiver.error.code == "dwcp.protocol"


def test_a_file_that_is_not_the_one_sent_is_not_committed():
    """All chunks in place but another digest: nothing gets the file's name."""
    receiver = moving_receiver(K)
    receiver.frame(1, chunk_header(0), bytearray(K), 1.0)
    receiver.stored(K, 1.0)
    take(receiver)

    tell(receiver, FrameType.FINISH, Finish(chunks=1, digest=bytes(16)))

    assert receiver.error.code == "dwcp.hash_mismatch"
    assert not any(isinstance(action, Commit) for action in take(receiver))


def test_the_end_waits_for_chunks_on_other_streams():
    """FINISH may overtake chunks; the file is committed when the last of them is written."""
    receiver = moving_receiver(K)
    hashes = ChunkHashes(ChunkPlan(K, K))
    hashes.add(0, 1)
    tell(receiver, FrameType.FINISH, Finish(chunks=1, digest=hashes.digest()))
    assert take(receiver) == []

    receiver.frame(1, chunk_header(0), bytearray(K), 1.0)
    receiver.stored(K, 1.0)

    assert Commit(hashes.digest()) in take(receiver)
