"""The shell around a Receiver: streams that the manager handed over, the unfinished file."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path

from services.dwcp.compress import Decompressor
from services.dwcp.errors import PeerBusyError
from services.dwcp.exchange import Action, Commit, CreatePart, Store
from services.dwcp.files import PartFile
from services.dwcp.framing import Header, Preamble
from services.dwcp.model import Direction, Offer, TransferState
from services.dwcp.plan import CHUNKS_PER_STREAM, ChunkPlan, grant_streams, reservation_bytes
from services.dwcp.receiver import Receiver
from services.dwcp.session import Resources, Session
from services.dwcp.streams import Stream


class ReceiveSession(Session):
    """Receives one file.

    Args:
        resources: shared with the other sessions.
        transfer: its 16 bytes.
        peer: the sender's address.
    """

    def __init__(self, resources: Resources, transfer: bytes, peer: str) -> None:
        self._receiver = Receiver(
            transfer=transfer, stall_s=resources.settings.stall_s, now_s=time.monotonic()
        )
        super().__init__(resources, self._receiver, direction=Direction.RECEIVE, file="", peer=peer)
        self._decompressor = Decompressor()
        self._part: PartFile | None = None
        self._storing: dict[int, int] = {}
        self._granted = 1

    def wants(self, preamble: Preamble) -> bool:
        """Tell whether a further stream may join."""
        return (
            self.exchange.state is TransferState.MOVING
            and 0 < preamble.stream < self._granted
            and preamble.stream not in self.streams
        )

    def join(self, sock: socket.socket, index: int, congestion: str) -> None:
        """Take in a stream whose preamble was answered."""
        transfer = self.exchange.transfer
        self.add_stream(Stream(self.resources.selector, sock, index, transfer, self), congestion)

    def carry_out(self, action: Action) -> None:
        """CreatePart, Store and Commit."""
        match action:
            case CreatePart(offer):
                self._create(offer)
            case Store(stream, header, payload):
                self._note_storing(stream, 1)
                self.submit(
                    partial(self._store, header, payload),
                    partial(self._on_stored, stream, header.raw_bytes),
                )
            case Commit(digest):
                assert self._part is not None
                self.submit(partial(self._part.commit, digest), self._on_committed)
            case _:
                raise AssertionError(action)

    def on_sent(self) -> None:
        """No progress: progress is what arrives."""

    def on_drained(self, stream: int) -> None:
        """Nothing depends on it: what we send is small and rare."""

    def on_end(self) -> None:
        """Keep reading until the sender closes: closing first could lose our last frame."""
        for stream in self.streams.values():
            stream.discard()
        if 0 not in self.streams or not self.streams[0].is_open:
            self.close_streams()

    def close_files(self) -> None:
        """Close the file and remove it where it is unfinished."""
        if self._part is not None:
            self._part.close()

    def _create(self, offer: Offer) -> None:
        resources = self.resources
        self.file = offer.name
        plan = ChunkPlan(offer.size_bytes, offer.chunk_bytes)
        granted = grant_streams(plan, offer.streams_max, free_bytes=resources.free_bytes)
        if granted == 0:
            self.fail(PeerBusyError("the receiver's memory for transfers is taken"))
            return
        self.reserve(reservation_bytes(plan, granted))
        claimed = sum(resources.disk_claims.values())
        resources.disk_claims[id(self)] = offer.allocated_bytes
        needed = offer.allocated_bytes + claimed + resources.settings.free_reserve_bytes
        self._granted = granted
        self.submit(partial(self._create_part, offer.name, plan, needed), self._on_created)

    def _create_part(self, name: str, plan: ChunkPlan, needed_bytes: int) -> PartFile:
        directory = Path(self.resources.settings.incoming_dir)
        transfer = self.exchange.transfer.hex()
        return PartFile(directory, name, transfer, plan, needed_bytes=needed_bytes)

    def _on_created(self, part: PartFile) -> None:
        self._part = part
        self._receiver.created(self._granted, time.monotonic())

    def _store(self, header: Header, payload: bytearray) -> None:
        if self.exchange.is_ended or self._part is None:
            return
        raw = self._decompressor.unpack(
            payload,
            raw_bytes=header.raw_bytes,
            digest=header.hash,
            compressed=header.compressed,
        )
        self._part.write(header.chunk, raw)

    def _on_stored(self, stream: int, raw_bytes: int, _nothing: None) -> None:
        self._note_storing(stream, -1)
        claims = self.resources.disk_claims
        if (claim := claims.get(id(self))) is not None:
            claims[id(self)] = max(0, claim - raw_bytes)
        self._receiver.stored(raw_bytes, time.monotonic())

    def _on_committed(self, _nothing: None) -> None:
        self._receiver.committed()

    def _note_storing(self, index: int, change: int) -> None:
        count = self._storing[index] = self._storing.get(index, 0) + change
        stream = self.streams[index]
        if count >= CHUNKS_PER_STREAM and not self.exchange.is_ended:
            stream.pause()
        elif change < 0 and count == CHUNKS_PER_STREAM - 1:
            stream.resume()
