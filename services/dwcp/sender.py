"""The sending side of a transfer, without I/O.

    CONNECTING  stream 0 opens; OFFER goes out; ACCEPT comes back
    MOVING      chunks are packed ahead of the streams and go to whichever stream is idle
    FINISHING   the source was found unchanged, FINISH went out; DONE is awaited
    FINISHED    DONE came with our digest

Invariant: a chunk is either not yet taken from the plan, being packed, ready, or written; FINISH
follows when the first three are empty. So every chunk with data is sent exactly once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from services.dwcp.compress import Packed
from services.dwcp.errors import DwcpError, HashMismatchError, PeerProtocolError
from services.dwcp.exchange import CheckSource, Exchange, Open, Pack, Write
from services.dwcp.framing import FrameType, Header, pack_header, unpack_control
from services.dwcp.model import Accept, Done, Finish, Offer, Progress, TransferState
from services.dwcp.plan import ChunkHashes, ChunkPlan, StreamTuner, first_streams


class Sender(Exchange):
    """Sends one file.

    Args:
        transfer: its 16 bytes.
        offer: what the receiver is told.
        chunks: those that hold data, ascending.
        streams: to begin with, as far as there are chunks and the receiver agrees.
        ahead: chunks packed beyond one for each stream, so that the pool always has work.
        stall_s: the longest time in which nothing moves.
        now_s: monotonic time.
    """

    def __init__(
        self,
        *,
        transfer: bytes,
        offer: Offer,
        chunks: Iterator[int],
        streams: int,
        ahead: int,
        stall_s: float,
        now_s: float,
    ) -> None:
        super().__init__(transfer=transfer, stall_s=stall_s, now_s=now_s)
        self.size_bytes = offer.size_bytes
        self._offer = offer
        self._plan = ChunkPlan(offer.size_bytes, offer.chunk_bytes)
        self._hashes = ChunkHashes(self._plan)
        self._chunks = chunks
        self._next = 0  # the chunk after the last one taken from the plan
        self._exhausted = False
        self._packing = 0
        self._ready: deque[tuple[int, Packed]] = deque()
        self._idle: deque[int] = deque()
        self._open: set[int] = set()
        self._asked = 1
        self._streams = streams
        self._ahead = ahead
        self._tuner = StreamTuner(1, 1)
        self._stored_bytes = 0
        self.actions.append(Open(0))

    def opened(self, stream: int, now_s: float) -> None:
        """A stream is connected and the peer answered well."""
        if self.is_ended:
            return
        self._moved_s = now_s
        self._open.add(stream)
        if stream == 0:
            self._write_control(FrameType.OFFER, self._offer)
        else:
            self._idle.append(stream)
            self._pump()

    def open_failed(self, stream: int, error: DwcpError) -> None:
        """A stream could not be opened; the transfer lives on without it, but not without 0."""
        if stream == 0 and not self.is_ended:
            self._end(error)

    def drained(self, stream: int, now_s: float) -> None:
        """All that was written on a stream is with the kernel."""
        self._moved_s = now_s
        if self.state is TransferState.MOVING and stream not in self._idle:
            self._idle.append(stream)
            self._pump()

    def packed(self, chunk: int, packed: Packed | None, now_s: float) -> None:
        """A chunk was read; None when it is all zeros."""
        if self.is_ended:
            return
        self._moved_s = now_s
        self._packing -= 1
        if packed is None:
            self.done_bytes += self._plan.length(chunk)
        else:
            self._hashes.add(chunk, packed.hash)
            self._ready.append((chunk, packed))
        self._pump()

    def checked(self, now_s: float) -> None:
        """The source did not change while it was read."""
        if self.is_ended:
            return
        self._enter_finishing(now_s)
        finish = Finish(chunks=self._hashes.count, digest=self._hashes.digest())
        self._write_control(FrameType.FINISH, finish)

    def _take(self, _stream: int, header: Header, payload: bytearray, now_s: float) -> None:
        match self.state, header.type:
            case TransferState.CONNECTING, FrameType.ACCEPT:
                accept = unpack_control(header.type, payload)
                assert isinstance(accept, Accept)
                self._begin(accept)
            case ((TransferState.MOVING | TransferState.FINISHING), FrameType.PROGRESS):
                progress = unpack_control(header.type, payload)
                assert isinstance(progress, Progress)
                self._note_progress(progress, now_s)
            case TransferState.FINISHING, FrameType.DONE:
                done = unpack_control(header.type, payload)
                assert isinstance(done, Done)
                if done.digest != self._hashes.digest():
                    raise HashMismatchError("the receiver computed another digest")
                self.done_bytes = self.size_bytes
                self._end(None)
            case _:
                raise PeerProtocolError(f"{header.type.name} came while {self.state.value}")

    def _note_progress(self, progress: Progress, now_s: float) -> None:
        # What is still in the kernel's buffers may take long on a slow path; as long as the
        # receiver's count grows, the end is only delayed.
        if progress.stored_bytes > self._stored_bytes:
            self._stored_bytes = progress.stored_bytes
            self._finishing_s = now_s

    def _begin(self, accept: Accept) -> None:
        if not 1 <= accept.streams_max <= self._offer.streams_max:
            raise PeerProtocolError(f"{accept.streams_max} streams were not offered")
        chunks = max(1, self._plan.chunks)
        first = first_streams(self._streams, chunks=chunks, granted=accept.streams_max)
        self._tuner = StreamTuner(first, max(first, min(accept.streams_max, chunks)))
        self.state = TransferState.MOVING
        self._open_up_to(first)
        self._idle.append(0)
        self._pump()

    def _open_up_to(self, streams: int) -> None:
        while self._asked < streams:
            self.actions.append(Open(self._asked))
            self._asked += 1

    def _on_tick(self, now_s: float) -> None:
        if self.state is TransferState.MOVING:
            self._open_up_to(self._tuner.step(now_s, self.wire_bytes))
            self._pump()

    def _pump(self) -> None:
        if self.state is not TransferState.MOVING:
            return
        while self._ready and self._idle:
            self._send(self._idle.popleft(), *self._ready.popleft())
        try:
            while not self._exhausted and self._packing + len(self._ready) < self._window():
                self._pack_next()
        except DwcpError as exc:  # looking for the next data in a sparse file reads the disk
            self.fail(exc)
            return
        if self._exhausted and not self._packing and not self._ready:
            self._packing = 1  # checked once
            self.actions.append(CheckSource())

    def _window(self) -> int:
        return len(self._open) + self._ahead

    def _pack_next(self) -> None:
        chunk = next(self._chunks, self._plan.chunks)
        # What lies between was a hole.
        end = min(self._plan.offset(chunk), self.size_bytes)
        self.done_bytes += max(0, end - self._plan.offset(self._next))
        self._next = chunk + 1
        if chunk == self._plan.chunks:
            self._exhausted = True
            return
        self._packing += 1
        self.actions.append(Pack(chunk))

    def _send(self, stream: int, chunk: int, packed: Packed) -> None:
        header = Header(
            FrameType.CHUNK,
            self.transfer,
            len(packed.payload),
            chunk,
            self._plan.offset(chunk),
            packed.raw_bytes,
            packed.hash,
            packed.compressed,
        )
        self.done_bytes += packed.raw_bytes
        self.data_bytes += packed.raw_bytes
        self.wire_bytes += len(packed.payload)
        self.actions.append(Write(stream, (pack_header(header), packed.payload)))
