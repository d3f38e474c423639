r"""What both sides of a transfer have in common: state, orders to the shell, losses, deadlines.

An exchange is one side of one transfer as a state machine without I/O. The shell
(services.dwcp.session) tells it what happened, with the time, and carries out the actions that it
leaves in ``actions``, in order.

    CONNECTING -> MOVING -> FINISHING -> FINISHED
         \___________\__________\_______-> FAILED

Invariant: FINISHED and FAILED are entered once, and nothing but ``End`` is ordered after them,
except the frame that tells the other side.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from services.dwcp.errors import (
    MESSAGE_LENGTH_MAX,
    DwcpError,
    PeerProtocolError,
    StalledError,
    from_code,
)
from services.dwcp.framing import Control, FrameType, Header, pack_control, unpack_control
from services.dwcp.model import ENDED, Failed, Offer, TransferState

# When one side gives up it says why on stream 0, while its other streams already break. The
# reason is worth waiting for.
GRACE_S = 1.0
# Making a file durable may take the receiver's disk this long.
FINISH_S_MAX = 1800.0


@dataclass(frozen=True, slots=True)
class Open:
    """Connect a further stream to the peer."""

    stream: int


@dataclass(frozen=True, slots=True)
class Write:
    """Send these bytes on a stream, after what is queued there."""

    stream: int
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Read, hash and compress a chunk of the source; answer with ``packed``."""

    chunk: int


@dataclass(frozen=True, slots=True)
class CheckSource:
    """See whether the source is unchanged; answer with ``checked``."""


@dataclass(frozen=True, slots=True)
class CreatePart:
    """Reserve memory and disk and open the unfinished file; answer with ``created``."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Store:
    """Unpack, verify and write a chunk; answer with ``stored``."""

    stream: int
    header: Header
    payload: bytearray


@dataclass(frozen=True, slots=True)
class Commit:
    """Make the file durable under its name; answer with ``committed``."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Close the streams once what is queued is sent, and release everything."""


Action = Open | Write | Pack | CheckSource | CreatePart | Store | Commit | End


class Exchange:
    """One side of one transfer.

    Args:
        transfer: its 16 bytes.
        stall_s: the longest time in which nothing moves.
        now_s: monotonic time, as everywhere here.

    Attributes:
        actions: what the shell has to do, oldest first.
        state: where the transfer stands.
        error: why it failed.
        size_bytes, done_bytes, data_bytes, wire_bytes: as in TransferStatus.
    """

    def __init__(self, *, transfer: bytes, stall_s: float, now_s: float) -> None:
        self.transfer = transfer
        self.actions: deque[Action] = deque()
        self.state = TransferState.CONNECTING
        self.error: DwcpError | None = None
        self.size_bytes = 0
        self.done_bytes = 0
        self.data_bytes = 0
        self.wire_bytes = 0
        self._stall_s = stall_s
        self._moved_s = now_s
        self._finishing_s = now_s
        self._loss: tuple[DwcpError, float] | None = None

    @property
    def is_ended(self) -> bool:
        """Nothing will change any more."""
        return self.state in ENDED

    @property
    def moved_s(self) -> float:
        """When something moved last."""
        return self._moved_s

    def moved(self, now_s: float) -> None:
        """Bytes moved on some stream."""
        self._moved_s = now_s

    def frame(self, stream: int, header: Header, payload: bytearray, now_s: float) -> None:
        """A whole frame arrived. What the peer may not send fails the transfer."""
        if self.is_ended:
            return
        self._moved_s = now_s
        try:
            if header.type is not FrameType.CHUNK and stream != 0:
                raise PeerProtocolError("a control frame came on a stream other than the first")
            if header.type is FrameType.FAILED:
                told = unpack_control(header.type, payload)
                assert isinstance(told, Failed)
                self._end(from_code(told.code, told.message))
            else:
                self._take(stream, header, payload, now_s)
        except DwcpError as exc:
            self.fail(exc)

    def fail(self, error: DwcpError) -> None:
        """Something of our own failed, or somebody cancels: tell the peer and end."""
        if self.is_ended:
            return
        told = Failed(code=error.code, message=error.message[:MESSAGE_LENGTH_MAX])
        self._write_control(FrameType.FAILED, told)
        self._end(error)

    def lost(self, stream: int, error: DwcpError, now_s: float) -> None:
        """A stream broke. The first one ends the transfer, another one after a grace."""
        if self.is_ended:
            return
        if stream == 0:
            self._end(error if self._loss is None else self._loss[0])
        elif self._loss is None:
            self._loss = (error, now_s)

    def tick(self, now_s: float) -> None:
        """Time passed; call it a few times per second."""
        if self.is_ended:
            return
        if self._loss is not None and self._is_grace_over(self._loss[1], now_s):
            self.fail(self._loss[0])
        elif self._is_stalled(now_s):
            self.fail(StalledError(f"nothing moved for {self._stall_s:g} s"))
        elif self.state is TransferState.FINISHING and now_s > self._finishing_s + FINISH_S_MAX:
            self.fail(StalledError(f"the file was not durable after {FINISH_S_MAX:g} s"))
        else:
            self._on_tick(now_s)

    def _take(self, stream: int, header: Header, payload: bytearray, now_s: float) -> None:
        """Take in a frame other than FAILED; raise DwcpError when it may not be."""
        raise NotImplementedError

    def _on_tick(self, now_s: float) -> None:
        raise NotImplementedError

    def _is_grace_over(self, lost_s: float, now_s: float) -> bool:
        return now_s >= lost_s + GRACE_S

    def _is_stalled(self, now_s: float) -> bool:
        return now_s > self._moved_s + self._stall_s

    def _enter_finishing(self, now_s: float) -> None:
        self.state = TransferState.FINISHING
        self._finishing_s = now_s

    def _write_control(self, kind: FrameType, record: Control) -> None:
        self.actions.append(Write(0, (pack_control(kind, self.transfer, record),)))

    def _end(self, error: DwcpError | None) -> None:
        self.state = TransferState.FINISHED if error is None else TransferState.FAILED
        self.error = error
        self.actions.append(End())
