"""What an attacker has: messages that are none, keys of their own, and connections without end."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import zmq

from protocol import envelope, names
from protocol.codec import MESSAGE_BYTES_MAX
from protocol.envelope import Envelope, Kind
from protocol.records import Plain
from protocol.transports import identities, zeromq
from protocol.transports.curve import KeyPair, client_pair
from protocol.transports.identities import Identity, boottime_s

METHODS = ("status", "journal", "restart", "stop", "add", "hello", "ready", "event", "report", "x")


def issue(run: Path, name: str, *, life_s: float = 600.0, **more: Plain) -> KeyPair:
    """Keys that the tree takes for somebody's; only the node's own account can write them."""
    pair = client_pair(os.urandom(32), 0)
    identities.issue(run, pair.public, Identity(name=name, expires_s=boottime_s() + life_s, **more))
    return pair


@contextlib.contextmanager
def dealer(
    run: Path, path: str, keys: KeyPair, routing_id: bytes = b""
) -> Iterator[zmq.Socket[bytes]]:
    """A bare connection to a process."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    opened = context.socket(zmq.DEALER)
    opened.setsockopt(zmq.LINGER, 0)
    opened.setsockopt(zmq.CURVE_SERVERKEY, names.key_path(run, path).read_bytes())
    opened.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    opened.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    if routing_id:
        opened.setsockopt(zmq.ROUTING_ID, routing_id)
    opened.connect(names.endpoint(run, path))
    try:
        yield opened
    finally:
        opened.close()
        context.term()


def call(opened: zmq.Socket[bytes], method: str, body: Plain = None, *, number: int = 7) -> bytes:
    """The bytes of a call, which are also sent."""
    data = envelope.encode(Envelope(Kind.CALL, number, method, 5000, "", body))
    zeromq.send(opened, [data])
    return data


def cast(opened: zmq.Socket[bytes], method: str, body: Plain = None) -> None:
    """Send a cast."""
    zeromq.send(opened, [envelope.encode(Envelope(Kind.CAST, 0, method, 0, "", body))])


def answer(opened: zmq.Socket[bytes], timeout_s: float = 5.0) -> Envelope | None:
    """The next reply; None when there is none in time."""
    return envelope.decode(opened.recv()) if opened.poll(int(timeout_s * 1000)) else None


def garbage(draw: random.Random) -> list[bytes]:
    """The frames of one message that nobody should send."""
    kind = draw.randrange(9)
    method = draw.choice(METHODS)
    good = envelope.encode(Envelope(Kind.CALL, draw.randrange(1 << 40), method, 5000, "", None))
    if kind == 0:  # truncated
        return [good[: draw.randrange(len(good))]]
    if kind == 1:  # noise
        return [draw.randbytes(draw.randrange(200))]
    if kind == 2:  # deep
        return [b"\x97\x01\x01\x01\xa1x\x00\xa0" + b"\x91" * draw.choice((17, 500, 5000)) + b"\xc0"]
    if kind == 3:  # a key twice
        return [b"\x97\x01\x01\x01\xa6status\x00\xa0\x82\xa1a\x01\xa1a\x02"]
    if kind == 4:  # wrong types
        odd: list[Plain] = [None, True, -1, 1.5, "x", b"x", [], {}, 1 << 63]
        return [msgpack.packb([draw.choice(odd) for _ in range(draw.randrange(10))])]
    if kind == 5:  # a body that is none
        bodies: list[Plain] = [[], "x", 7, {"id": 7}, {"spec": {}}, {"since": "x"}, {"id": "\0"}]
        fields = (1, draw.choice((1, 4)), 1, method, 100, "", draw.choice(bodies))
        return [msgpack.packb(fields)]
    if kind == 6:  # a reply to what was never asked
        return [envelope.encode(Envelope(Kind.REPLY, draw.randrange(100), "", 0, "", {"x": 1}))]
    if kind == 7:  # many frames
        return [draw.randbytes(8) for _ in range(draw.randrange(2, 6))]
    flipped = bytearray(good)  # a bit that fell over
    flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return [bytes(flipped)]


OVERSIZED = bytes(MESSAGE_BYTES_MAX + 1)


def connections(address: Path, count: int, kind: socket.SocketKind) -> list[socket.socket]:
    """So many connections to a Unix socket that say nothing; those that are refused are left."""
    found = []
    for _ in range(count):
        opened = socket.socket(socket.AF_UNIX, kind)
        opened.settimeout(0.02)
        try:
            opened.connect(str(address))
        except OSError:
            opened.close()
            continue
        found.append(opened)
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
