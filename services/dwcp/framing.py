"""The bytes that two nodes exchange: preamble, answer, and frames. No I/O.

Every stream opens with the sender's preamble (32 bytes) and the receiver's answer (16 bytes);
from then on both sides send frames: a header of 48 bytes and a payload. All numbers are
big-endian. docs/protocol-dwcp.md has the field tables.

    preamble  magic[8] version:u16 flags:u16 stream:u16 streams_max:u16 transfer[16]
    answer    magic[8] version:u16 verdict:u16 reserved:u32
    header    mark:u16 type:u8 flags:u8 chunk:u32 transfer[16] offset:u64 raw:u32 wire:u32 hash:u64

The first ten bytes and the lengths of preamble and answer are the same in every version, so two
nodes of different versions can always tell each other so.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from protocol import codec
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.dwcp.errors import PeerNotNovacronError, PeerProtocolError, VersionMismatchError
from services.dwcp.model import (
    STREAMS_CEILING,
    Accept,
    Done,
    Failed,
    Finish,
    Offer,
    Progress,
)

MAGIC = b"NOVADWCP"
VERSION = 1
PREAMBLE = struct.Struct(">8sHHHH16s")
ANSWER = struct.Struct(">8sHHI")
HEADER = struct.Struct(">HBBI16sQIIQ")
# Finds a stream that lost its frame boundary before a wild length is believed.
MARK = 0xD7C9
# Every control record is far below; a peer that claims more is not one of ours.
CONTROL_BYTES_MAX = 4096
# One chunk at each end of each stream is held in memory, so this bounds it.
CHUNK_BYTES_MAX = 4 << 20
FLAG_COMPRESSED = 1


class Verdict(enum.IntEnum):
    """The receiver's answer to a stream's preamble."""

    OK = 0
    VERSION = 1
    BUSY = 2
    UNKNOWN_TRANSFER = 3
    MALFORMED = 4


class FrameType(enum.IntEnum):
    """What a frame carries; all but CHUNK travel on stream 0 only."""

    OFFER = 1  # sender: name and size
    ACCEPT = 2  # receiver: send it, on so many streams
    CHUNK = 3  # sender: a piece of the file
    FINISH = 4  # sender: that was all, and its digest
    DONE = 5  # receiver: it is on disk under its name
    FAILED = 6  # either: it is over, and why
    PROGRESS = 7  # receiver: so much is written; it lives and goes on


_TYPES = {int(kind): kind for kind in FrameType}
_VERDICTS = {int(verdict): verdict for verdict in Verdict}
Control = Offer | Accept | Finish | Done | Failed | Progress
_RECORDS: dict[FrameType, type[Control]] = {
    FrameType.OFFER: Offer,
    FrameType.ACCEPT: Accept,
    FrameType.FINISH: Finish,
    FrameType.DONE: Done,
    FrameType.FAILED: Failed,
    FrameType.PROGRESS: Progress,
}


@dataclass(frozen=True, slots=True)
class Preamble:
    """Which stream of which transfer a connection is."""

    transfer: bytes
    stream: int
    streams_max: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one frame.

    Attributes:
        type: what the payload is.
        transfer: 16 bytes, as in the preamble.
        chunk, offset, raw_bytes, hash: of a CHUNK; zero otherwise. ``hash`` is XXH3-64 of the
            raw bytes.
        wire_bytes: length of the payload that follows.
        compressed: the payload is one zstd frame of the raw bytes.
    """

    type: FrameType
    transfer: bytes
    wire_bytes: int
    chunk: int = 0
    offset: int = 0
    raw_bytes: int = 0
    hash: int = 0
    compressed: bool = False


def pack_preamble(preamble: Preamble) -> bytes:
    """The 32 bytes that open a stream."""
    return PREAMBLE.pack(
        MAGIC, VERSION, 0, preamble.stream, preamble.streams_max, preamble.transfer
    )


def unpack_preamble(data: bytes) -> Preamble:
    """Read a preamble.

    Raises:
        PeerNotNovacronError: the magic is not ours; close without an answer.
        VersionMismatchError: another version; answer VERSION.
        PeerProtocolError: impossible numbers; answer MALFORMED.
    """
    magic, version, _flags, stream, streams_max, transfer = PREAMBLE.unpack(data)
    if magic != MAGIC:
        raise PeerNotNovacronError("the connection does not open as a DWCP stream")
    if version != VERSION:
        raise VersionMismatchError(f"the peer speaks DWCP version {version}, this is {VERSION}")
    if not 0 <= stream < streams_max <= STREAMS_CEILING:
        raise PeerProtocolError(f"stream {stream} of {streams_max} can't be")
    return Preamble(transfer, stream, streams_max)


def pack_answer(verdict: Verdict) -> bytes:
    """The 16 bytes that answer a preamble."""
    return ANSWER.pack(MAGIC, VERSION, verdict, 0)


def unpack_answer(data: bytes) -> Verdict:
    """Read an answer.

    Raises:
        PeerNotNovacronError: the magic is not ours.
        VersionMismatchError: the peer speaks another version.
        PeerProtocolError: no verdict that we know.
    """
    magic, version, number, _reserved = ANSWER.unpack(data)
    if magic != MAGIC:
        raise PeerNotNovacronError("what answers there does not speak DWCP")
    if version != VERSION or number == Verdict.VERSION:
        raise VersionMismatchError(f"the peer speaks DWCP version {version}, this is {VERSION}")
    if (verdict := _VERDICTS.get(number)) is None:
        raise PeerProtocolError(f"the peer answered with the unknown verdict {number}")
    return verdict


def pack_header(header: Header) -> bytes:
    """The 48 bytes before a payload."""
    return HEADER.pack(
        MARK,
        header.type,
        FLAG_COMPRESSED if header.compressed else 0,
        header.chunk,
        header.transfer,
        header.offset,
        header.raw_bytes,
        header.wire_bytes,
        header.hash,
    )


def unpack_header(data: bytes | bytearray, transfer: bytes) -> Header:
    """Read and bound a header.

    Args:
        data: 48 bytes.
        transfer: the transfer that the stream belongs to.

    Raises:
        PeerProtocolError: not a header of this stream, or over a limit.
    """
    mark, number, flags, chunk, owner, offset, raw, wire, digest = HEADER.unpack(data)
    if mark != MARK or owner != transfer or flags & ~FLAG_COMPRESSED:
        raise PeerProtocolError("a frame's header is damaged or of another transfer")
    if (kind := _TYPES.get(number)) is None:
        raise PeerProtocolError(f"unknown type of frame {number}")
    if kind is FrameType.CHUNK:
        if not 0 < wire <= raw <= CHUNK_BYTES_MAX:
            raise PeerProtocolError(f"a chunk of {wire} bytes for {raw} can't be")
    elif wire > CONTROL_BYTES_MAX:
        raise PeerProtocolError(f"a control frame of {wire} bytes is over {CONTROL_BYTES_MAX}")
    return Header(kind, transfer, wire, chunk, offset, raw, digest, bool(flags & FLAG_COMPRESSED))


def pack_control(kind: FrameType, transfer: bytes, record: Control) -> bytes:
    """A whole control frame."""
    payload = codec.encode(to_wire(record))
    if len(payload) > CONTROL_BYTES_MAX:
        raise LocalProtocolError(f"a control record of {len(payload)} bytes is too large")
    return pack_header(Header(kind, transfer, len(payload))) + payload


def unpack_control(kind: FrameType, payload: bytes | bytearray) -> Control:
    """The record of a control frame.

    Raises:
        PeerProtocolError: the payload is not the record that belongs to the type.
    """
    try:
        return from_wire(_RECORDS[kind], codec.decode(bytes(payload)))
    except (KeyError, RemoteProtocolError) as exc:
        raise PeerProtocolError(f"a {kind.name} frame is malformed: {exc}") from exc


class FrameAssembler:
    """Cuts a stream of bytes into frames without copying: the socket writes into its buffers.

    Args:
        transfer: the transfer that the stream belongs to.
    """

    def __init__(self, transfer: bytes) -> None:
        self._transfer = transfer
        self._head = bytearray(HEADER.size)
        self._header: Header | None = None
        self._target = self._head
        self._filled = 0

    @property
    def is_between_frames(self) -> bool:
        """Nothing of the next frame has arrived; the end of the stream would be clean."""
        return self._header is None and self._filled == 0

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return memoryview(self._target)[self._filled :]

    def advance(self, count: int) -> tuple[Header, bytearray] | None:
        """Take in ``count`` bytes that were written to ``space``; a frame when it is complete.

        Raises:
            PeerProtocolError: the header is not acceptable.
        """
        self._filled += count
        if self._filled < len(self._target):
            return None
        if self._header is None:
            self._header = unpack_header(self._head, self._transfer)
            self._target = bytearray(self._header.wire_bytes)
            self._filled = 0
            if self._target:
                return None
        frame = self._header, self._target
        self._header, self._target, self._filled = None, self._head, 0
        return frame
