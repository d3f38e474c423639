"""The bytes of DWCP: what is refused, what survives a round trip, frames from any fragments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError
from services.dwcp import framing
from services.dwcp.errors import PeerNotNovacronError, PeerProtocolError, VersionMismatchError
from services.dwcp.framing import (
    CHUNK_BYTES_MAX,
    CONTROL_BYTES_MAX,
    HEADER,
    MAGIC,
    MARK,
    FrameAssembler,
    FrameType,
    Header,
    Preamble,
    Verdict,
)
from services.dwcp.model import Accept, Failed, Finish, Offer

TRANSFER = bytes(range(16))
CHUNK = Header(FrameType.CHUNK, TRANSFER, 4, 1, 65536, 8, 99, compressed=True)


def header_bytes(*, mark=MARK, kind=3, flags=0, owner=TRANSFER, raw=8, wire=4):
    """A header that may be wrong in any field."""
    return HEADER.pack(mark, kind, flags, 0, owner, 0, raw, wire, 0)


def test_preamble_and_answer_have_the_documented_lengths():
    """Their lengths are the same in every version, so they are part of the protocol."""
    preamble = framing.pack_preamble(Preamble(TRANSFER, 0, 1))

    assert (len(preamble), len(framing.pack_answer(Verdict.OK)), HEADER.size) == (32, 16, 48)


@pytest.mark.parametrize("streams", [(0, 1), (31, 32), (1023, 1024)])
def test_preamble_round_trip(streams):
    """What a sender packs, a receiver reads."""
    preamble = Preamble(TRANSFER, *streams)

    assert framing.unpack_preamble(framing.pack_preamble(preamble)) == preamble


@pytest.mark.parametrize("streams", [(1, 1), (0, 0), (0, 1025)])
def test_preamble_with_impossible_streams_is_refused(streams):
    """A stream outside its own count, or a count over the ceiling, is no stream."""
    with pytest.raises(PeerProtocolError):
        framing.unpack_preamble(framing.pack_preamble(Preamble(TRANSFER, *streams)))


def test_a_stranger_is_told_from_another_version():
    """Another magic is not NovaCron; our magic with another version is."""
    ours = framing.pack_preamble(Preamble(TRANSFER, 0, 1))

    with pytest.raises(PeerNotNovacronError):
        framing.unpack_preamble(b"GET / HT" + ours[8:])
    with pytest.raises(VersionMismatchError, match="version 2"):
        framing.unpack_preamble(MAGIC + b"\0\2" + ours[10:])


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.VERSION])
def test_answer_round_trip(verdict):
    """Every verdict arrives as itself."""
    assert framing.unpack_answer(framing.pack_answer(verdict)) is verdict


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 400 Bad", PeerNotNovacronError),
        (MAGIC + b"\0\2" + bytes(6), VersionMismatchError),
        (framing.pack_answer(Verdict.VERSION), VersionMismatchError),
        (MAGIC + b"\0\1" + b"\0\x63" + bytes(4), PeerProtocolError),
    ],
)
def test_bad_answers_are_told_apart(data, error):
    """A stranger, another version and an unknown verdict each have their error."""
    with pytest.raises(error):
        framing.unpack_answer(data)


def test_header_round_trip():
    """A chunk's header keeps all of its fields."""
    assert framing.unpack_header(framing.pack_header(CHUNK), TRANSFER) == CHUNK


@pytest.mark.parametrize(
    "change",
    [
        {"mark": 0},
        {"owner": bytes(16)},
        {"flags": 2},
        {"kind": 0},
        {"kind": 99},
        {"wire": 0},
        {"wire": 9},
        {"raw": CHUNK_BYTES_MAX + 1, "wire": 1},
        {"kind": 1, "wire": CONTROL_BYTES_MAX + 1},
    ],
)
def test_damaged_headers_are_refused(change):
    """No field may leave its bounds."""
    with pytest.raises(PeerProtocolError):
        framing.unpack_header(header_bytes(**change), TRANSFER)


@pytest.mark.parametrize(
    "change",
    [{}, {"raw": CHUNK_BYTES_MAX, "wire": CHUNK_BYTES_MAX}, {"kind": 1, "wire": CONTROL_BYTES_MAX}],
)
def test_headers_at_the_limit_are_accepted(change):
    """The bounds themselves are allowed."""
    framing.unpack_header(header_bytes(**change), TRANSFER)


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (
            FrameType.OFFER,
            Offer(
                name="ä.img",
                size_bytes=5,
                allocated_bytes=5,
                chunk_bytes=65536,
                streams_max=2,
            ),
        ),
        (FrameType.ACCEPT, Accept(streams_max=3)),
        (FrameType.FINISH, Finish(chunks=7, digest=bytes(16))),
        (FrameType.FAILED, Failed(code="dwcp.cancelled", message="x" * 400)),
    ],
)
def test_control_records_round_trip(kind, record):
    """A control frame carries its record."""
    frame = framing.pack_control(kind, TRANSFER, record)

    assert framing.unpack_control(kind, frame[HEADER.size :]) == record


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81\xa1x\x01", b"\x93\x01\x02\x03"])
def test_malformed_control_records_are_the_peers_fault(payload):
    """Bytes that are no record of the type fail the transfer, not the process."""
    with pytest.raises(PeerProtocolError):
        framing.unpack_control(FrameType.OFFER, payload)


def test_an_oversized_control_record_is_our_fault():
    """We never send what a peer has to refuse."""
    record = Failed(code="x", message="y" * CONTROL_BYTES_MAX)

    with pytest.raises(LocalProtocolError):
        framing.pack_control(FrameType.FAILED, TRANSFER, record)


def feed(assembler, data, sizes):
    """Give data to an assembler in pieces of the sizes, repeated; returns the frames."""
    frames, position, turn = [], 0, 0
    while position < len(data):
        space = assembler.space()
        count = min(len(space), sizes[turn % len(sizes)], len(data) - position)
        space[:count] = data[position : position + count]
        position, turn = position + count, turn + 1
        if (frame := assembler.advance(count)) is not None:
            frames.append(frame)
    return frames


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.integers(1, 5))
def test_frames_are_found_in_any_fragments(sizes, count):
    """However the network cuts the bytes, the same frames come out."""
    accept = framing.pack_control(FrameType.ACCEPT, TRANSFER, Accept(streams_max=1))
    chunk = framing.pack_header(CHUNK) + b"data"
    assembler = FrameAssembler(TRANSFER)

    frames = feed(assembler, (accept + chunk) * count, sizes)

    assert [header.type for header, _ in frames] == [FrameType.ACCEPT, FrameType.CHUNK] * count
    assert all(payload == b"data" for header, payload in frames if header == CHUNK)
    assert assembler.is_between_frames


def test_an_unfinished_frame_is_noticed():
    """The end of the stream inside a frame is not a clean end."""
    assembler = FrameAssembler(TRANSFER)

    feed(assembler, framing.pack_header(CHUNK) + b"da", [100])

    assert not assembler.is_between_frames
