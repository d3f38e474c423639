"""Random documents and packets: the kernel does what trace says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from services.network.segments.model import (
    Direction,
    IpProtocol,
    SegmentDocument,
    SegmentInterface,
    SegmentRule,
)
from services.network.segments.trace import TraceQuestion, trace
from tests.fixtures.fix_guests import Guest, sees, udp_frame
from tests.system.test_network_segments import Host, on_host

pytestmark = [pytest.mark.netns, pytest.mark.slow]

DOCUMENTS = 8
PACKETS = 25
PEERS = (
    *("any", "10.20.0.0/24", "10.20.0.1", "10.20.0.2/31", "10.0.0.0/8"),
    *("label:web", "label:app", "fd00:20::/64"),
)
PORTS = ("53", "80-90", "85-100", "8000", "1-65535", "54")


@pytest.mark.parametrize("seed", [1, 2])
def test_the_kernel_does_what_trace_says(tmp_path: Path, seed: int) -> None:
    """Listed, unlisted, guarded and trusted interfaces, with own and forged addresses."""
    pick = random.Random(seed)

    def scenario(host: Host, *found: Guest) -> None:
        senders = {guest.name: guest.raw() for guest in found}
        sniffers = {guest.name: guest.raw() for guest in found}
        accepted = 0
        for number in range(DOCUMENTS):
            host.put(_document(pick, found[: 3 + (number % 3 == 0)]))
            if number % 2:
                host.learn()
            for packet in range(PACKETS):
                payload = f"packet {number:02} {packet:02}".encode()
                question = _question(pick, found)
                frame = udp_frame(
                    macs=(question.source_mac, question.destination_mac),
                    addresses=(question.source_address, question.destination_address),
                    ports=(10_000 + number * PACKETS + packet, question.port),
                    payload=payload,
                )
                answer = trace(host.document, question)
                sniffer = sniffers[question.destination]
                sniffer.settimeout(0.5 if answer.accepted else 0.05)

                senders[question.source].send(frame)

                assert sees(sniffer, payload) is answer.accepted, (question, host.document)
                accepted += answer.accepted
        assert accepted > 10, "the packets were hardly worth sending"

    on_host(tmp_path, 4, scenario)


def _document(pick: random.Random, found: tuple[Guest, ...]) -> SegmentDocument:
    return SegmentDocument(
        guarded=pick.choice([(), ("tap*",)]),
        trusted=pick.choice([(), ("tap4",)]),
        elsewhere={"web": ("10.20.0.50",), "app": ("10.20.0.51",)},
        interfaces=tuple(
            SegmentInterface(
                name=guest.name,
                mac=guest.mac,
                addresses=(guest.address, guest.address6),
                labels=tuple(pick.sample(["web", "app"], pick.randint(0, 2))),
                rules=tuple(_rule(pick) for _ in range(pick.randint(2, 6))),
            )
            for guest in found
        ),
    )


def _rule(pick: random.Random) -> SegmentRule:
    protocol = IpProtocol(pick.choice(["udp", "udp", "udp", "any", "tcp"]))
    ports = () if protocol is IpProtocol.ANY else pick.sample(PORTS, pick.randint(0, 3))
    return SegmentRule(
        direction=pick.choice(list(Direction)),
        peers=tuple(pick.sample(PEERS, pick.randint(1, 3))),
        protocol=protocol,
        ports=tuple(ports),
    )


def _question(pick: random.Random, found: tuple[Guest, ...]) -> TraceQuestion:
    sender, receiver = pick.sample(found, 2)
    return TraceQuestion(
        source=sender.name,
        destination=receiver.name,
        source_mac=pick.choice([sender.mac] * 12 + ["52:54:00:00:00:66"]),
        destination_mac=pick.choice([receiver.mac] * 12 + ["52:54:00:00:00:77"]),
        source_address=pick.choice(
            [sender.address] * 9 + ["10.20.0.50", receiver.address, "10.20.0.3"]
        ),
        destination_address=receiver.address,
        protocol=IpProtocol.UDP,
        port=pick.choice([53, 54, 85, 95, 8000, 9]),
    )
