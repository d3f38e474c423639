"""The link between two hosts of a lab does what it was told."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator

import pytest

from tests.fixtures.fix_lab import running_lab
from tests.fixtures.fix_node import wait_until
from tests.lab.errors import LabError
from tests.lab.guest.watches import socket_in
from tests.lab.lab import Lab
from tests.lab.link import Direction
from tests.lab.speed import by_sockets
from tests.lab.units import Shape, parse_shape

pytestmark = pytest.mark.netns

CLEAR = Shape(rate_bits_s=0, delay_us=0, queue_bytes=384_000, loss_ppm=0, is_cut=False)
# What a TCP segment of 1500 bytes carries.
PAYLOAD = 1448 / 1500


@pytest.fixture
def lab(bare_lab: Lab) -> Iterator[Lab]:
    """The bare lab with a clear link."""
    bare_lab.link().change(CLEAR)
    yield bare_lab
    bare_lab.link().change(CLEAR)


class Pair:
    """A UDP socket on each of the first two hosts, connected to each other."""

    def __init__(self, lab: Lab) -> None:
        self.ends = [socket_in(host, socket.SOCK_DGRAM) for host in lab.hosts[:2]]
        for end, host in zip(self.ends, lab.hosts, strict=False):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            end.settimeout(5.0)
            end.bind((host.address, 0))
        for end, other in zip(self.ends, reversed(self.ends), strict=True):
            end.connect(other.getsockname())

    def one_way_s(self, sender: int) -> float:
        """How long a packet takes from one host to the other."""
        begin_s = time.monotonic()
        self.ends[sender - 1].send(b"x")
        self.ends[2 - sender].recv(1)
        return time.monotonic() - begin_s

    def passes(self, sender: int) -> bool:
        """Tell whether a packet comes through within a moment."""
        receiver = self.ends[2 - sender]
        self.ends[sender - 1].send(b"x")
        receiver.settimeout(0.15)
        try:
            return receiver.recv(1) == b"x"
        except TimeoutError:
            return False
        finally:
            receiver.settimeout(5.0)

    def received(self, receiver: int, *, silence_s: float = 0.3) -> list[int]:
        """The numbers of all packets that come in until it is silent."""
        end, found = self.ends[receiver - 1], []
        end.settimeout(silence_s)
        with contextlib.suppress(TimeoutError):
            while data := end.recv(2048):
                found.append(struct.unpack_from("!Q", data)[0])
        return found


@pytest.fixture
def pair(lab: Lab) -> Iterator[Pair]:
    """Two sockets over the link."""
    found = Pair(lab)
    yield found
    for end in found.ends:
        end.close()


def counted(lab: Lab, sender: int) -> Direction:
    """Values and counters of one direction."""
    return lab.link().direction(sender=sender)


@pytest.mark.parametrize("rate_mbit", [20, 200])
def test_the_rate_is_what_was_asked_for(lab: Lab, rate_mbit: int) -> None:
    """TCP gets the link's rate less its headers, within a tenth, and not more."""
    lab.link().change(Shape(rate_bits_s=rate_mbit * 10**6, queue_bytes=100_000))

    reached = by_sockets(*lab.hosts, seconds=1.2).bits_s / 1e6

    assert 0.9 * rate_mbit * PAYLOAD <= reached <= 1.02 * rate_mbit


def test_directions_have_their_own_delay(lab: Lab, pair: Pair) -> None:
    """A packet takes the delay of its direction, and a change works while the link runs."""
    lab.link().change(Shape(delay_us=60_000), sender=1)
    lab.link().change(Shape(delay_us=20_000), sender=2)

    there = min(pair.one_way_s(1) for _ in range(5))
    back = min(pair.one_way_s(2) for _ in range(5))
    lab.link().change(Shape(delay_us=0))
    direct = min(pair.one_way_s(1) for _ in range(5))

    assert 0.060 <= there < 0.066
    assert 0.020 <= back < 0.026
    assert direct < 0.006


def test_losses_are_as_frequent_as_asked_for(lab: Lab, pair: Pair) -> None:
    """Of 4000 packets at 5 %, the lost ones are within four standard deviations; order is kept."""
    count, share = 4000, 0.05
    lab.link().change(Shape(loss_ppm=50_000, delay_us=1000, queue_bytes=4 << 20))
    before = counted(lab, 1)

    for number in range(count):
        pair.ends[0].send(struct.pack("!Q", number))
        if number % 200 == 199:
            time.sleep(0.005)
    found = pair.received(2)

    lost, deviation = count - len(found), math.sqrt(count * share * (1 - share))
    assert abs(lost - count * share) < 4 * deviation
    assert found == sorted(found)
    assert counted(lab, 1).lost - before.lost == lost


def test_a_seed_loses_the_same_packets(lab: Lab, pair: Pair) -> None:
    """With the same seed, the same packets are lost."""
    runs = []
    for _ in range(2):
        lab.link().change(Shape(loss_ppm=200_000, seed=4711))
        for number in range(50):
            pair.ends[0].send(struct.pack("!Q", number))
        runs.append(pair.received(2, silence_s=0.1))

    assert runs[0] == runs[1]
    assert 20 < len(runs[0]) < 50


def test_a_full_queue_drops_what_comes(lab: Lab, pair: Pair) -> None:
    """A burst that does not fit in the queue loses its end, and it is counted."""
    lab.link().change(Shape(rate_bits_s=10**6, queue_bytes=10_000))
    before = counted(lab, 1)

    for number in range(30):
        pair.ends[0].send(struct.pack("!Q", number) + bytes(964))  # 1000 bytes with its headers
    found = pair.received(2)

    after = counted(lab, 1)
    assert found[:10] == list(range(10))
    assert 10 <= len(found) <= 12
    assert after.queue_full - before.queue_full == 30 - len(found)


@pytest.mark.parametrize(("sender", "expected"), [(None, [False, False]), (1, [False, True])])
def test_a_cut_lets_nothing_through(
    lab: Lab, pair: Pair, sender: int | None, expected: list[bool]
) -> None:
    """A cut works in one direction or in both, loses what is on its way, and can be undone."""
    lab.link().change(Shape(delay_us=80_000))
    pair.ends[0].send(b"on its way")
    time.sleep(0.01)

    lab.link().cut(sender=sender)
    lab.link().change(Shape(delay_us=0))
    during = [pair.passes(1), pair.passes(2)]
    lab.link().mend(sender=sender)

    assert during == expected
    assert [pair.passes(1), pair.passes(2)] == [True, True]


def test_wrong_values_are_refused(lab: Lab) -> None:
    """What is no quantity, and a host that the link does not have, is refused with a reason."""
    for wrong in ({"rate": "fast"}, {"delay": "61s"}, {"loss": "101%"}, {"queue": "5"}):
        with pytest.raises(LabError, match=next(iter(wrong))):
            parse_shape(**{"rate": None, "delay": None, "queue": None, "loss": None} | wrong)
    with pytest.raises(LabError, match="host7"):
        lab.link().direction(sender=7)


def test_the_link_ends_with_a_host() -> None:
    """When a host's processes are killed, the link's program ends too and the devices go."""
    with running_lab("gone") as lab:
        os.kill(lab.hosts[0].pid, signal.SIGKILL)

        def is_gone() -> bool:
            try:
                lab.link().direction(sender=1)
            except LabError:
                return True
            return False

        assert wait_until(is_gone, "the link's end")
        assert "link1" not in lab.hosts[1].run("ip", "-br", "link")


@pytest.mark.slow
def test_a_gigabit_passes(lab: Lab) -> None:
    """A link of 1 Gbit/s is filled with packets of 1500 bytes; prints what was reached."""
    lab.link().change(Shape(rate_bits_s=10**9, queue_bytes=2 << 20))

    reached = max(by_sockets(*lab.hosts, seconds=2.0).bits_s / 1e6 for _ in range(3))

    sys.stdout.write(f"{reached:.0f} Mbit/s of payload\n")
    assert reached >= 0.9 * 1000 * PAYLOAD
