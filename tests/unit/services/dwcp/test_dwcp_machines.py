"""Sender and receiver as machines: what they order, and how they end, without any I/O."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.dwcp import errors, framing
from services.dwcp.compress import Compressor, Decompressor
from services.dwcp.exchange import (
    FINISH_S_MAX,
    GRACE_S,
    CheckSource,
    Commit,
    CreatePart,
    End,
    Open,
    Pack,
    Store,
    Write,
)
from services.dwcp.framing import FrameType
from services.dwcp.model import Accept, Done, Failed, Finish, Level, Progress, TransferState
from services.dwcp.plan import ChunkHashes, ChunkPlan
from services.dwcp.receiver import PROGRESS_PERIOD_S
from tests.fixtures.fix_dwcp_machines import (
    STALL_S,
    K,
    chunk_header,
    frames_of,
    make_receiver,
    make_sender,
    moving_receiver,
    offer_of,
    take,
    tell,
)


class Pair:
    """A sender and a receiver with a network between them that reorders streams and delays."""

    def __init__(self, content, seed, *, streams):
        self.content = content
        self.random = random.Random(seed)
        self.received = {}
        self.digest = None
        self.sender = make_sender(len(content), streams=streams)
        self.receiver = make_receiver()
        self.compressor = Compressor(enabled=True, level=Level.FAST)
        self.decompressor = Decompressor()
        self.plan = ChunkPlan(len(content), K)
        self.events = []
        self.pipes = {}

    def run(self):
        """Until nothing happens any more."""
        for _step in range(100_000):
            self._collect()
            ready = [pipe for pipe in self.pipes.values() if pipe]
            choices = len(self.events) + len(ready)
            if not choices:
                return
            pick = self.random.randrange(choices)
            if pick < len(self.events):
                self.events.pop(pick)()
            else:
                ready[pick - len(self.events)].pop(0)()
        raise AssertionError("it never ends")

    def _collect(self):
        for machine, other in (
            (self.sender, self.receiver),
            (self.receiver, self.sender),
        ):
            for action in take(machine):
                self._carry_out(machine, other, action)

    def _carry_out(self, machine, other, action):
        match action:
            case Open(stream):
                self.events.append(lambda: machine.opened(stream, 1.0))
            case Write(stream):
                pipe = self.pipes.setdefault((id(machine), stream), [])
                for header, payload in frames_of([action]):
                    pipe.append(lambda h=header, p=payload: other.frame(stream, h, p, 1.0))
                if machine is self.sender:
                    self.events.append(lambda: machine.drained(stream, 1.0))
            case Pack(chunk):
                start = self.plan.offset(chunk)
                raw = self.content[start : start + self.plan.length(chunk)]
                packed = self.compressor.pack(raw)
                self.events.append(lambda: machine.packed(chunk, packed, 1.0))
            case CheckSource():
                self.events.append(lambda: machine.checked(1.0))
            case CreatePart():
                self.events.append(lambda: machine.created(3, 1.0))
            case Store(_stream, header, payload):
                raw = self.decompressor.unpack(
                    payload,
                    raw_bytes=header.raw_bytes,
                    digest=header.hash,
                    compressed=header.compressed,
                )
                self.received[header.offset] = raw
                self.events.append(lambda: machine.stored(header.raw_bytes, 1.0))
            case Commit(digest):
                self.digest = digest
                self.events.append(machine.committed)
            case End():
                pass


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([b"\0", b"a", b"bc"]), max_size=9),
    st.integers(0, 2000),
    st.integers(1, 5),
    st.integers(0, 10_000),
)
def test_every_file_arrives_in_any_order_of_events(parts, tail, streams, seed):
    """Whatever the network and the pool do first, both sides finish with the same content."""
    content = b"".join((part * K)[:K] for part in parts) + bytes(range(256)) * (tail // 256)
    pair = Pair(content, seed, streams=streams)

    pair.run()

    whole = bytearray(len(content))
    for offset, raw in pair.received.items():
        whole[offset : offset + len(raw)] = raw
    assert whole == content
    assert pair.sender.state is pair.receiver.state is TransferState.FINISHED
    assert pair.sender.done_bytes == pair.receiver.done_bytes == len(content)


def test_a_sender_opens_one_stream_first():
    """The other streams follow once the receiver has agreed, and no more than it grants."""
    sender = make_sender(10 * K, streams=5)
    assert take(sender) == [Open(0)]

    sender.opened(0, 1.0)
    [(header, payload)] = frames_of(take(sender))
    assert framing.unpack_control(header.type, payload) == offer_of(10 * K)

    tell(sender, FrameType.ACCEPT, Accept(streams_max=3))
    assert [a.stream for a in take(sender) if isinstance(a, Open)] == [1, 2]


def test_holes_are_skipped_and_counted():
    """Chunks in a hole are neither read nor sent, but belong to what is done."""
    sender = make_sender(10 * K, chunks=[4])
    sender.opened(0, 1.0)
    tell(sender, FrameType.ACCEPT, Accept(streams_max=1))
    assert [a.chunk for a in take(sender) if isinstance(a, Pack)] == [4]

    sender.packed(4, None, 1.0)

    assert sender.done_bytes == 10 * K
    assert CheckSource() in take(sender)


def test_a_stream_that_can_not_open_is_done_without():
    """Only the first stream is indispensable."""
    refused = errors.ConnectionRefusedByPeerError("refused")
    sender = make_sender(4 * K)
    sender.opened(0, 1.0)
    tell(sender, FrameType.ACCEPT, Accept(streams_max=2))

    sender.open_failed(1, refused)
    assert sender.state is TransferState.MOVING

    first = make_sender(4 * K)
    first.open_failed(0, refused)
    assert first.error is refused


def test_a_wrong_digest_at_the_end_fails_the_sender():
    """The receiver's digest is compared, not trusted."""
    sender = make_sender(0)
    sender.opened(0, 1.0)
    tell(sender, FrameType.ACCEPT, Accept(streams_max=1))
    sender.checked(1.0)

    tell(sender, FrameType.DONE, Done(digest=bytes(16)))

    assert sender.error.code == "dwcp.hash_mismatch"


@pytest.mark.parametrize("machine", [make_sender(K), make_receiver()])
def test_a_machine_that_fails_says_why(machine):
    """Our own failure goes to the peer with its code, then the streams end."""
    machine.fail(errors.CancelledError("enough"))

    *_, write, end = take(machine)
    [(header, payload)] = frames_of([write])
    assert framing.unpack_control(header.type, payload) == Failed(
        code="dwcp.cancelled", message="enough"
    )
    assert end == End()


@pytest.mark.parametrize("machine", [make_sender(K), make_receiver()])
def test_the_peers_failure_becomes_ours(machine):
    """The code and the sentence of the other side reach this side's status; nothing is sent."""
    take(machine)

    tell(machine, FrameType.FAILED, Failed(code="dwcp.disk_full", message="no room"))

    assert isinstance(machine.error, errors.DiskFullError)
    assert take(machine) == [End()]


def test_the_first_stream_lost_ends_at_once():
    """Without stream 0 nobody can agree on anything."""
    sender = make_sender(K)
    sender.opened(0, 1.0)

    sender.lost(0, errors.PeerLostError("gone"), 1.0)

    assert sender.error.code == "dwcp.peer_lost"


def test_another_stream_lost_waits_for_the_reason():
    """The peer's reason on stream 0 wins over the broken stream; without one the loss counts."""
    for reason in (True, False):
        receiver = moving_receiver(9 * K)
        receiver.lost(2, errors.PeerLostError("gone"), 1.0)
        assert not receiver.is_ended
        if reason:
            tell(receiver, FrameType.FAILED, Failed(code="dwcp.cancelled", message=""))
        receiver.tick(1.0 + GRACE_S)
        assert receiver.error.code == ("dwcp.cancelled" if reason else "dwcp.peer_lost")


@pytest.mark.parametrize("machine", [make_sender(K), make_receiver(), moving_receiver(K)])
def test_nothing_moving_for_the_stated_time_fails(machine):
    """One moment before the limit it lives, one after it does not."""
    machine.moved(1.0)
    machine.tick(1.0 + STALL_S)
    assert not machine.is_ended

    machine.tick(1.0 + STALL_S + 0.1)

    assert machine.error.code == "dwcp.stalled"


def finishing_receiver():
    """A receiver that has everything and makes it durable."""
    receiver = moving_receiver(0)
    digest = ChunkHashes(ChunkPlan(0, K)).digest()
    tell(receiver, FrameType.FINISH, Finish(chunks=0, digest=digest))
    assert take(receiver) == [Commit(digest)]
    return receiver


def test_a_slow_disk_is_not_a_stalled_peer():
    """While the receiver syncs it says that it goes on, and both wait up to the stated limit."""
    receiver = finishing_receiver()
    receiver.tick(1.0 + PROGRESS_PERIOD_S)
    [(progress, _)] = frames_of(take(receiver))
    assert progress.type is FrameType.PROGRESS

    receiver.tick(FINISH_S_MAX)
    assert receiver.state is TransferState.FINISHING

    receiver.tick(FINISH_S_MAX + 2.0)
    assert receiver.error.code == "dwcp.stalled"


def test_a_slow_path_is_not_a_stalled_receiver():
    """With everything in the kernel the sender waits as long as the receiver's count grows."""
    sender = make_sender(0)
    sender.opened(0, 1.0)
    tell(sender, FrameType.ACCEPT, Accept(streams_max=1))
    sender.checked(1.0)

    now_s = 1.0
    while now_s < 2 * FINISH_S_MAX:
        now_s += STALL_S - 1
        tell(sender, FrameType.PROGRESS, Progress(stored_bytes=int(now_s)), now_s=now_s)
        sender.tick(now_s)
    assert sender.state is TransferState.FINISHING

    sender.tick(now_s + STALL_S + 1)
    assert sender.error.code == "dwcp.stalled"


def test_a_receiver_that_never_finishes_is_given_up():
    """Signs of life without progress keep the sender waiting for the stated limit only."""
    sender = make_sender(0)
    sender.opened(0, 1.0)
    tell(sender, FrameType.ACCEPT, Accept(streams_max=1))
    sender.checked(1.0)

    now_s = 1.0
    while not sender.is_ended:
        now_s += STALL_S - 1
        tell(sender, FrameType.PROGRESS, Progress(stored_bytes=0), now_s=now_s)
        sender.tick(now_s)

    assert FINISH_S_MAX <= now_s <= FINISH_S_MAX + 2 * STALL_S


def test_a_receiver_in_which_nothing_moves_stays_silent():
    """It reports progress, not mere existence, while chunks are awaited."""
    receiver = moving_receiver(4 * K)
    receiver.moved(2.0)
    receiver.tick(2.0)
    assert len(frames_of(take(receiver))) == 1

    receiver.tick(4.0)

    assert take(receiver) == []


@pytest.mark.parametrize(
    ("machine", "kind", "record", "stream"),
    [
        (make_sender(K), FrameType.OFFER, offer_of(K), 0),
        (make_sender(K), FrameType.DONE, Done(digest=b""), 0),
        (make_sender(K), FrameType.ACCEPT, Accept(streams_max=9), 0),
        (make_sender(K), FrameType.ACCEPT, Accept(streams_max=1), 1),
        (make_receiver(), FrameType.FINISH, Finish(chunks=0, digest=b""), 0),
        (moving_receiver(K), FrameType.OFFER, offer_of(K), 0),
        (moving_receiver(K), FrameType.PROGRESS, Progress(stored_bytes=0), 0),
    ],
)
def test_frames_out_of_turn_fail_the_transfer(machine, kind, record, stream):
    """A peer that does not keep to the order of the protocol is not believed."""
    tell(machine, kind, record, stream)

    assert machine.error.code == "dwcp.protocol"


def test_after_the_end_nothing_happens():
    """Late results, frames and losses change nothing any more."""
    receiver = moving_receiver(4 * K)
    receiver.fail(errors.CancelledError("enough"))
    take(receiver)

    receiver.frame(1, chunk_header(0), bytearray(K), 1.0)
    receiver.stored(K, 1.0)
    receiver.created(1, 1.0)
    receiver.committed()
    receiver.lost(0, errors.PeerLostError(""), 1.0)
    receiver.tick(99.0)

    assert take(receiver) == []
    assert receiver.error.code == "dwcp.cancelled"


def test_a_source_that_can_not_be_searched_fails_the_sender():
    """An error while looking for the next data is the transfer's error."""

    def chunks():
        raise errors.FileUnreadableError("the disk says no")
        yield 0

    sender = make_sender(4 * K, chunks=chunks())
    sender.opened(0, 1.0)

    tell(sender, FrameType.ACCEPT, Accept(streams_max=1))

    assert sender.error.code == "dwcp.file_unreadable"
