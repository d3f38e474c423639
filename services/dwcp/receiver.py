"""The receiving side of a transfer, without I/O.

    CONNECTING  OFFER is awaited, checked, and room made for the file; ACCEPT goes out
    MOVING      chunks come on any stream in any order; each is verified and written
    FINISHING   FINISH came and all its chunks are written; the file is made durable
    FINISHED    DONE went out

Invariant: DONE is written only after the commit of a file whose every chunk carried the hash that
went into the digest of FINISH.
"""

from __future__ import annotations

from services.dwcp.errors import (
    DwcpError,
    FileTooLargeError,
    HashMismatchError,
    PeerProtocolError,
)
from services.dwcp.exchange import GRACE_S, Commit, CreatePart, Exchange, Store
from services.dwcp.framing import CHUNK_BYTES_MAX, FrameType, Header, unpack_control
from services.dwcp.model import (
    STREAMS_CEILING,
    Accept,
    Done,
    Finish,
    Offer,
    Progress,
    TransferState,
)
from services.dwcp.plan import CHUNK_BYTES_MIN, CHUNKS_MAX, ChunkHashes, ChunkPlan, check_name

# The sender, whose bytes may long be in its kernel, hears from us this often at most, and several
# times before its patience ends.
PROGRESS_PERIOD_S = 1.0
_PROGRESS_SHARE = 4


class Receiver(Exchange):
    """Receives one file."""

    def __init__(self, *, transfer: bytes, stall_s: float, now_s: float) -> None:
        super().__init__(transfer=transfer, stall_s=stall_s, now_s=now_s)
        self.name = ""
        self._offer: Offer | None = None
        self._plan = ChunkPlan(0, 1)
        self._hashes = ChunkHashes(self._plan)
        self._finish: Finish | None = None
        self._stored = 0
        self._storing = 0
        self._progress_s = now_s
        self._progress_period_s = min(PROGRESS_PERIOD_S, stall_s / _PROGRESS_SHARE)

    def created(self, streams_max: int, now_s: float) -> None:
        """There is room, and memory for so many streams."""
        if self.is_ended:
            return
        self._moved_s = now_s
        self._hashes = ChunkHashes(self._plan)
        self.state = TransferState.MOVING
        self._write_control(FrameType.ACCEPT, Accept(streams_max=streams_max))

    def stored(self, raw_bytes: int, now_s: float) -> None:
        """A chunk was verified and written."""
        if self.is_ended:
            return
        self._moved_s = now_s
        self._storing -= 1
        self._stored += 1
        self.done_bytes += raw_bytes
        try:
            self._complete(now_s)
        except DwcpError as exc:
            self.fail(exc)

    def committed(self) -> None:
        """The file is durable under its name."""
        if self.is_ended:
            return
        assert self._finish is not None
        self.done_bytes = self.size_bytes
        self._write_control(FrameType.DONE, Done(digest=self._finish.digest))
        self._end(None)

    def _take(self, stream: int, header: Header, payload: bytearray, now_s: float) -> None:
        match self.state, header.type:
            case TransferState.MOVING, FrameType.CHUNK:
                self._take_chunk(stream, header, payload)
            case TransferState.CONNECTING, FrameType.OFFER if self._offer is None:
                offer = unpack_control(header.type, payload)
                assert isinstance(offer, Offer)
                self._take_offer(offer)
            case TransferState.MOVING, FrameType.FINISH if self._finish is None:
                finish = unpack_control(header.type, payload)
                assert isinstance(finish, Finish)
                self._finish = finish
                self._complete(now_s)
            case _:
                raise PeerProtocolError(f"{header.type.name} came while {self.state.value}")

    def _take_offer(self, offer: Offer) -> None:
        self.name = check_name(offer.name)
        if not CHUNK_BYTES_MIN <= offer.chunk_bytes <= CHUNK_BYTES_MAX:
            raise PeerProtocolError(f"chunks of {offer.chunk_bytes} bytes can't be")
        if not 1 <= offer.streams_max <= STREAMS_CEILING or offer.allocated_bytes < 0:
            raise PeerProtocolError("the offer states impossible numbers")
        plan = ChunkPlan(offer.size_bytes, offer.chunk_bytes)
        if offer.size_bytes < 0 or plan.chunks > CHUNKS_MAX:
            raise FileTooLargeError(f"{offer.size_bytes} bytes are more than one transfer takes")
        self._offer = offer
        self._plan = plan
        self.size_bytes = offer.size_bytes
        self.actions.append(CreatePart(offer))

    def _take_chunk(self, stream: int, header: Header, payload: bytearray) -> None:
        plan = self._plan
        if header.chunk >= plan.chunks or header.offset != plan.offset(header.chunk):
            raise PeerProtocolError(f"there is no chunk {header.chunk} at {header.offset}")
        if header.raw_bytes != plan.length(header.chunk):
            raise PeerProtocolError(f"chunk {header.chunk} has {header.raw_bytes} bytes")
        if not self._hashes.add(header.chunk, header.hash):
            raise PeerProtocolError(f"chunk {header.chunk} came twice")
        self.data_bytes += header.raw_bytes
        self.wire_bytes += header.wire_bytes
        self._storing += 1
        self.actions.append(Store(stream, header, payload))

    def _complete(self, now_s: float) -> None:
        if self._finish is None or self._storing:
            return
        if self._stored > self._finish.chunks:
            raise PeerProtocolError("more chunks came than were sent")
        if self._stored < self._finish.chunks:
            return
        if self._finish.digest != self._hashes.digest():
            raise HashMismatchError("the file that arrived is not the one that was sent")
        self._enter_finishing(now_s)
        self.actions.append(Commit(self._finish.digest))

    def _on_tick(self, now_s: float) -> None:
        if now_s < self._progress_s + self._progress_period_s:
            return
        is_finishing = self.state is TransferState.FINISHING
        has_moved = self.state is TransferState.MOVING and self._moved_s > self._progress_s
        if is_finishing or has_moved:
            self._progress_s = now_s
            self._write_control(FrameType.PROGRESS, Progress(stored_bytes=self.done_bytes))

    def _is_grace_over(self, lost_s: float, now_s: float) -> bool:
        # The sender's reason stands behind the chunks that its kernel still sends on stream 0.
        if now_s >= lost_s + self._stall_s:
            return True
        return now_s >= max(lost_s, self._moved_s) + GRACE_S

    def _is_stalled(self, now_s: float) -> bool:
        # While the file is made durable it is our own disk that is waited for.
        return self.state is not TransferState.FINISHING and super()._is_stalled(now_s)
