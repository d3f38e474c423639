"""Clients that do not keep to the protocol: turned away in time, with the node unharmed."""

import asyncio
import contextlib
import os
import socket
import time

import pytest

from services.dwcp import framing
from services.dwcp.framing import ANSWER, HEADER, MAGIC, FrameType, Preamble, Verdict
from services.dwcp.model import Accept, Offer
from tests.fixtures.fix_dwcp import Node, running

pytestmark = pytest.mark.process

MIB = 1 << 20
STALL_S = 1.0
WITHIN_S = STALL_S + 4.0


class Intruder:
    """A client that speaks raw bytes to a node."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.sock.close()

    def say(self, *parts):
        """Send bytes."""
        self.sock.sendall(b"".join(parts))

    def hear(self, count):
        """Read so many bytes, fewer at the end of the connection."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while len(data) < count and (part := self.sock.recv(count - len(data))):
                data += part
        return data

    def hear_failure(self):
        """Read frames until FAILED; its code."""
        while True:
            header = framing.unpack_header(self.hear(HEADER.size), bytes(16))
            payload = self.hear(header.wire_bytes)
            if header.type is FrameType.FAILED:
                return framing.unpack_control(header.type, payload).code


PREAMBLE = framing.pack_preamble(Preamble(bytes(16), 0, 8))
OFFER = framing.pack_control(
    FrameType.OFFER,
    bytes(16),
    Offer(name="x", size_bytes=MIB, allocated_bytes=MIB, chunk_bytes=MIB, streams_max=2),
)
CHUNK = framing.Header(FrameType.CHUNK, bytes(16), 8, 0, 0, MIB, 0, compressed=True)


def intrude(tmp_path, script, **settings):
    """Run a script with an intruder in a thread against a node; the node works afterwards."""
    file = tmp_path / "good"
    file.write_bytes(os.urandom(MIB))

    async def scenario():
        a, b = (Node(tmp_path / name, 1, stall_s=STALL_S, **settings) for name in "ab")
        async with running(a, b):
            result = await asyncio.to_thread(script, b.port)
            assert (await a.wait_ended(await a.send(file, b.port))).error == ""
            assert sorted(path.name for path in b.incoming.iterdir()) == ["good"]
        return result

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
        (MAGIC + b"\0\2" + bytes(22), framing.pack_answer(Verdict.VERSION)),
        (MAGIC + b"\0\1" + bytes(22), framing.pack_answer(Verdict.MALFORMED)),
        (
            framing.pack_preamble(Preamble(bytes(16), 3, 8)),
            framing.pack_answer(Verdict.UNKNOWN_TRANSFER),
        ),
    ],
)
def test_strangers_at_the_port_are_turned_away(tmp_path, says, answer):
    """Another protocol gets nothing, another version and a lost stream get an answer."""

    def script(port):
        with Intruder(port) as intruder:
            intruder.say(says)
            return intruder.hear(ANSWER.size + 1)

    assert intrude(tmp_path, script) == answer


def test_a_connection_that_says_nothing_is_closed_in_time(tmp_path):
    """A preamble has a deadline."""

    def script(port):
        started_s = time.monotonic()
        with Intruder(port) as intruder:
            intruder.say(PREAMBLE[:31])
            assert intruder.hear(1) == b""
        return time.monotonic() - started_s

    assert 0.4 < intrude(tmp_path, script, preamble_s=0.5) < 3.0


def test_a_sender_that_goes_silent_is_given_up(tmp_path):
    """Before and after the offer the receiver waits for the stated time only."""

    def script(port):
        codes = []
        for parts in ((PREAMBLE,), (PREAMBLE, OFFER)):
            started_s = time.monotonic()
            with Intruder(port) as intruder:
                intruder.say(*parts)
                assert intruder.hear(ANSWER.size) == framing.pack_answer(Verdict.OK)
                codes.append(intruder.hear_failure())
            assert time.monotonic() - started_s < WITHIN_S
            time.sleep(0.3)  # the transfer's id is free again after the transport's next tick
        return codes

    assert intrude(tmp_path, script) == ["dwcp.stalled", "dwcp.stalled"]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (bytes(HEADER.size), None),
        (framing.pack_header(CHUNK) + b"not zstd", "dwcp.hash_mismatch"),
        (OFFER, "dwcp.protocol"),
        (framing.pack_control(FrameType.ACCEPT, bytes(16), Accept(streams_max=1)), "dwcp.protocol"),
    ],
)
def test_a_sender_that_breaks_the_rules_is_cut_off(tmp_path, frame, code):
    """Damage and nonsense end the transfer, never the process, and leave no file."""

    def script(port):
        with Intruder(port) as intruder:
            intruder.say(PREAMBLE, OFFER)
            intruder.hear(ANSWER.size)
            accept = framing.unpack_header(intruder.hear(HEADER.size), bytes(16))
            intruder.hear(accept.wire_bytes)
            intruder.say(frame)
            return None if code is None else intruder.hear_failure()

    assert intrude(tmp_path, script) == code
