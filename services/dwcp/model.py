"""The records of the DWCP level: settings, requests, status, and what nodes tell each other.

No I/O and nothing heavy: the manager, the transports and the command line all import it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# Bounds of what a configuration or a peer may ask for.
STREAMS_CEILING = 1024
TRANSFER_BYTES = 16
# A file name on Linux is at most 255 bytes, and ``.<name>.<32 hex>.part`` must be one too.
NAME_BYTES_MAX = 200
PATH_LENGTH_MAX = 4096
HOST_LENGTH_MAX = 253
ADDRESSES_MAX = 8


class Level(enum.Enum):
    """How hard to compress."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"


class Direction(enum.Enum):
    """Which side of a transfer this node is."""

    SEND = "send"
    RECEIVE = "receive"


class TransferState(enum.Enum):
    """Where a transfer stands; the last two are ends."""

    CONNECTING = "connecting"
    MOVING = "moving"
    FINISHING = "finishing"
    FINISHED = "finished"
    FAILED = "failed"


ENDED = (TransferState.FINISHED, TransferState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerSettings:
    """Settings of core/dwcp/manager.

    Attributes:
        run_dir: the node's run directory, where the transports' descriptor sockets are.
        incoming_dir: where received files appear, ``<state>/dwcp/incoming``.
        host, port: the one address that other nodes connect to; port 0 takes a free one. There
            is no encryption and no authentication in this version, hence the loopback default.
        transports: ids of the sibling transport processes.
        min_streams, initial_streams, max_streams: per transfer; see services.dwcp.plan.
        congestion: TCP congestion control to ask for.
        compression: whether chunks are compressed.
        level: how hard.
        preamble_s: a connection must have said what it is within this time.
    """

    run_dir: str
    incoming_dir: str
    host: str = "127.0.0.1"
    port: int = 7800
    transports: tuple[str, ...]
    min_streams: int = 16
    initial_streams: int = 32
    max_streams: int = 256
    congestion: str = "bbr"
    compression: bool = True
    level: Level = Level.BALANCED
    preamble_s: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if not self.transports or len(set(self.transports)) != len(self.transports):
            raise ValueError("transports: at least one, each once")
        if not 0 <= self.port <= 65535:
            raise ValueError("port: 0 to 65535")
        if not 1 <= self.min_streams <= self.initial_streams <= self.max_streams:
            raise ValueError("streams: 1 <= min_streams <= initial_streams <= max_streams")
        if self.max_streams > STREAMS_CEILING:
            raise ValueError(f"max_streams: at most {STREAMS_CEILING}")
        if self.preamble_s <= 0:
            raise ValueError("preamble_s: more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """Settings of core/dwcp/transport.N.

    Attributes:
        run_dir, incoming_dir: as in ManagerSettings.
        congestion: TCP congestion control of the streams that it receives on.
        threads: of the pool that reads, compresses, hashes and writes.
        stall_s: a transfer in which nothing moves for this time fails.
        connect_s: time for one TCP connection.
        buffer_bytes: memory for chunks under way; no transfer starts beyond it.
        free_reserve_bytes: disk space that receiving leaves free for everything else.
    """

    run_dir: str
    incoming_dir: str
    congestion: str = "bbr"
    threads: int = 2
    stall_s: float = 20.0
    connect_s: float = 5.0
    buffer_bytes: int = 128 << 20
    free_reserve_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if not 1 <= self.threads <= 64:
            raise ValueError("threads: 1 to 64")
        if self.stall_s <= 0 or self.connect_s <= 0:
            raise ValueError("stall_s and connect_s: more than 0")
        if self.buffer_bytes < 1 << 20 or self.free_reserve_bytes < 0:
            raise ValueError("buffer_bytes: at least 1 MiB; free_reserve_bytes: not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """Body of the call ``dwcp.send``: an absolute path, the other node, and how many streams.

    ``streams`` fixes the number; without it the transfer starts with ``initial_streams`` and
    opens more while they help.
    """

    file: str
    host: str
    port: int
    streams: int | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not self.file.startswith("/") or len(self.file) > PATH_LENGTH_MAX or "\0" in self.file:
            raise ValueError("file: an absolute path")
        if not 0 < len(self.host) <= HOST_LENGTH_MAX or not self.host.isprintable():
            raise ValueError("host: a name or address")
        if not 0 < self.port <= 65535:
            raise ValueError("port: 1 to 65535")
        if self.streams is not None and not 1 <= self.streams <= STREAMS_CEILING:
            raise ValueError(f"streams: 1 to {STREAMS_CEILING}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRequest:
    """Body of ``dwcp.cancel`` and ``transfer.cancel``: the transfer's id, 32 hex digits."""

    transfer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRequest:
    """Body of ``dwcp.status``: one transfer only, or all."""

    transfer: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """A resolved address; ``family`` is a socket.AF_ number."""

    family: int
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOrder:
    """Body of the call ``transfer.send`` from the manager to a transport."""

    transfer: str
    file: str
    peer: str
    addresses: tuple[Address, ...]
    streams: int
    streams_max: int
    congestion: str
    compression: bool
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusQuery:
    """Body of ``transfer.status``: keys of ended transfers that the manager has taken note of."""

    forget: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferStatus:
    """One transfer as ``dwcp.status`` lists it.

    Attributes:
        transfer: 32 hex digits, the same on both nodes.
        direction, state: see there.
        file: path at the sender, name at the receiver.
        peer: the other node's address.
        transport: id of the process that carries it.
        size_bytes: of the file.
        done_bytes: of it that are dealt with, holes included.
        data_bytes, wire_bytes: sent or received as chunks, before and after compression.
        rate_bytes_s: of ``done_bytes``, smoothed over seconds; the mean once it has ended.
        eta_s: None when unknown.
        streams: open now; the most that were open, once it has ended.
        congestion: TCP congestion control in use on stream 0.
        rtt_s: smoothed round trip of stream 0; None when unknown.
        started_s, ended_s: Unix time; None while it runs.
        error, message: code and sentence of what failed; "" otherwise.
    """

    transfer: str
    direction: Direction
    state: TransferState
    file: str
    peer: str
    transport: str = ""
    size_bytes: int = 0
    done_bytes: int = 0
    data_bytes: int = 0
    wire_bytes: int = 0
    rate_bytes_s: float = 0.0
    eta_s: float | None = None
    streams: int = 0
    congestion: str = ""
    rtt_s: float | None = None
    started_s: float = 0.0
    ended_s: float | None = None
    error: str = ""
    message: str = ""

    @property
    def key(self) -> str:
        """Identifies it on one node, which may be both sides."""
        return f"{self.transfer}/{self.direction.value}"

    @property
    def is_ended(self) -> bool:
        """It will not change any more."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportReport:
    """Reply of ``transfer.status``; another ``incarnation`` means that the process is a new one."""

    incarnation: str
    transfers: tuple[TransferStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What this node moved since its state directory exists; kept in a checkpoint."""

    sent_transfers: int = 0
    sent_bytes: int = 0
    received_transfers: int = 0
    received_bytes: int = 0
    failed_transfers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportHealth:
    """One transport process as the manager sees it."""

    id: str
    is_available: bool
    transfers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DwcpStatus:
    """Reply of the call ``dwcp.status``.

    Attributes:
        address: where this node takes files, ``host:port``.
        transports: the processes that carry them.
        totals: of all ended transfers.
        transfers: running ones, then ended ones, each newest first.
    """

    address: str
    transports: tuple[TransportHealth, ...]
    totals: Totals
    transfers: tuple[TransferStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The sender's first frame.

    Attributes:
        name: of the file at the receiver.
        size_bytes, allocated_bytes: length, and what it takes on disk without its holes.
        chunk_bytes: length of every chunk but the last.
        streams_max: streams that the sender would like to open at most.
    """

    name: str
    size_bytes: int
    allocated_bytes: int
    chunk_bytes: int
    streams_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """The receiver wants the file, on at most so many streams."""

    streams_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How much of the file the receiver has written, holes not included."""

    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """All chunks are sent: how many, and the digest of the file (services.dwcp.plan)."""

    chunks: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The file is durable at the receiver; its digest as the receiver computed it."""

    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The transfer is over: code of services.dwcp.errors and a sentence."""

    code: str
    message: str
