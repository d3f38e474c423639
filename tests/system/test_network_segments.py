"""Segments against the kernel: packets of real guests that pass and that are dropped."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.network.segments.apply import Segments
from services.network.segments.errors import SegmentsCheckFailedError
from services.network.segments.model import (
    Direction,
    IpProtocol,
    SegmentDocument,
    SegmentInterface,
    SegmentRule,
)
from services.network.segments.nft import Nft
from services.network.segments.skeleton import DROPPED
from services.network.segments.store import SegmentStore
from services.network.segments.trace import TraceQuestion, trace
from tests.fixtures.fix_guests import (
    Guest,
    arp_frame,
    ether,
    guests,
    icmp6_frame,
    sees,
    udp_frame,
)
from tests.fixtures.fix_netns import run_in_netns

pytestmark = pytest.mark.netns

BROADCAST = "ff:ff:ff:ff:ff:ff"


def allow(
    direction: str, peer: str, protocol: str = "tcp", *ports: str, name: str = ""
) -> SegmentRule:
    """A rule with one peer."""
    return SegmentRule(
        direction=Direction(direction),
        peers=(peer,),
        protocol=IpProtocol(protocol),
        ports=ports,
        name=name,
    )


def listed(
    guest: Guest, *rules: SegmentRule, dhcp: bool = False, label: str = ""
) -> SegmentInterface:
    """A guest's interface with rules."""
    return SegmentInterface(
        name=guest.name,
        mac=guest.mac,
        addresses=(guest.address, guest.address6),
        labels=(label,) if label else (),
        dhcp=dhcp,
        rules=rules,
    )


async def _content() -> None:
    """A health check that holds."""


async def _refuse() -> None:
    """A health check that does not hold."""
    raise SegmentsCheckFailedError("the check failed")


class Host:
    """The segments of the host that the test thread is on."""

    def __init__(self, directory: Path) -> None:
        self.segments = Segments(Nft(), SegmentStore(directory / "network"))
        self.document = SegmentDocument()

    def apply(self, *interfaces: SegmentInterface, guarded: tuple[str, ...] = ()) -> None:
        """Put interfaces in force."""
        self.put(SegmentDocument(interfaces=interfaces, guarded=guarded))

    def put(self, document: SegmentDocument) -> None:
        """Put a document in force."""
        self.document = document
        asyncio.run(self.segments.apply(document, _content))

    def learn(self) -> None:
        """Know what is in force, so that the next change is a difference."""
        assert asyncio.run(self.segments.verify())

    def drops(self, reason: str, guest: Guest) -> int:
        """Packets of a guest that were dropped for a reason."""
        found = asyncio.run(Nft().read_drops(DROPPED))
        return found[f"dropped-{reason}", guest.name]


def on_host(directory: Path, count: int, scenario: Callable[..., None]) -> None:
    """Run a scenario in a fresh namespace with so many guests, on tap1 and so on."""

    def work() -> None:
        with guests(*(f"tap{number}" for number in range(1, count + 1))) as found:
            scenario(Host(directory), *found)

    run_in_netns(work)


def test_what_no_rule_allows_is_dropped_and_what_both_sides_allow_passes(tmp_path: Path) -> None:
    """TCP by IPv4 and IPv6 passes on the allowed port alone; the other port is counted."""

    def scenario(host: Host, client: Guest, server: Guest) -> None:
        [server.listen(port, family=family) for port, family in _PORTS]
        host.apply(
            listed(client, allow("out", "label:web", "tcp", "80"), label="app"),
            listed(server, allow("in", "label:app", "tcp", "80"), label="web"),
        )

        assert client.reaches(server.address, 80)
        assert client.reaches(server.address6, 80)
        assert not client.reaches(server.address, 81)
        assert not server.reaches(client.address, 80)
        assert host.drops("out", client) > 0
        assert host.drops("spoof", client) == 0

    on_host(tmp_path, 2, scenario)


_PORTS = ((80, socket.AF_INET6), (81, socket.AF_INET))


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_one_side_alone_does_not_open_a_port(tmp_path: Path, side: str) -> None:
    """A rule of only the sender, or only the receiver, lets nothing through."""

    def scenario(host: Host, client: Guest, server: Guest) -> None:
        server.listen(80)
        out = [allow("out", "any", "tcp", "80")] if side == "sender" else []
        into = [allow("in", "any", "tcp", "80")] if side == "receiver" else []
        host.apply(listed(client, *out), listed(server, *into))

        assert not client.reaches(server.address, 80)
        guest, reason = (server, "in") if side == "sender" else (client, "out")
        assert host.drops(reason, guest) > 0

    on_host(tmp_path, 2, scenario)


def test_a_peer_of_another_network_or_label_is_foreign(tmp_path: Path) -> None:
    """Of two clients with the same right to send, only the one that the server names gets in."""

    def scenario(host: Host, friend: Guest, foreign: Guest, server: Guest) -> None:
        server.listen(80)
        out = allow("out", "10.20.0.0/24", "tcp", "80")
        host.apply(
            listed(friend, out, label="app"),
            listed(foreign, out, label="other"),
            listed(server, allow("in", "label:app", "tcp", "80")),
        )

        assert friend.reaches(server.address, 80)
        assert not foreign.reaches(server.address, 80)

    on_host(tmp_path, 3, scenario)


def test_forged_addresses_are_dropped_before_anybody_learns_them(tmp_path: Path) -> None:
    """Another's hardware address, another's IP address, and another's in ARP do not pass."""

    def scenario(host: Host, liar: Guest, other: Guest) -> None:
        host.apply(
            listed(liar, allow("out", "any", "any")), listed(other, allow("in", "any", "any"))
        )
        sender, sniffer = liar.raw(), other.raw()
        frames = {
            b"honest": ((liar.mac, other.mac), (liar.address, other.address)),
            b"forged hardware": (("52:54:00:00:00:77", other.mac), (liar.address, other.address)),
            b"forged address": ((liar.mac, other.mac), ("10.20.0.77", other.address)),
        }

        seen = {}
        for payload, (macs, addresses) in frames.items():
            sender.send(udp_frame(macs=macs, addresses=addresses, ports=(9, 9), payload=payload))
            seen[payload] = sees(sniffer, payload)

        assert seen == {b"honest": True, b"forged hardware": False, b"forged address": False}
        claim = {"target": ("00:00:00:00:00:00", other.address), "operation": 2}
        honest = arp_frame(ether_source=liar.mac, sender=(liar.mac, liar.address), **claim)
        stolen = arp_frame(ether_source=liar.mac, sender=(liar.mac, "10.20.0.254"), **claim)
        other_mac = arp_frame(
            ether_source=liar.mac, sender=("52:54:00:00:00:77", liar.address), **claim
        )
        for frame, is_seen in ((honest, True), (stolen, False), (other_mac, False)):
            sender.send(frame)
            assert sees(sniffer, frame[14:]) is is_seen
        tagged = udp_frame(
            macs=(liar.mac, other.mac),
            addresses=(liar.address, other.address),
            ports=(9, 9),
            payload=b"in another VLAN",
        )
        kinds = (
            (ether(liar.mac, BROADCAST, 0x88CC) + b"neither IP nor ARP" + bytes(40), False),
            (tagged[:12] + b"\x81\x00\x00\x05" + tagged[12:], False),
            (ether(liar.mac, BROADCAST, 0x8035) + b"here I am" + bytes(40), True),
        )
        for frame, is_seen in kinds:
            sender.send(frame)
            assert sees(sniffer, frame[-20:]) is is_seen
        assert "52:54:00:00:00:77" not in _learnt()
        assert host.drops("spoof", liar) == 6

    on_host(tmp_path, 2, scenario)


def _learnt() -> str:

    done = subprocess.run(
        ["bridge", "fdb", "show"], check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout


def test_an_outsider_can_not_take_a_guests_addresses(tmp_path: Path) -> None:
    """From a port that is not listed, a listed guest's MAC, address and ARP are dropped."""

    def scenario(host: Host, guest: Guest, other: Guest, outsider: Guest) -> None:
        host.apply(
            listed(guest, allow("in", "any", "any")), listed(other, allow("in", "any", "any"))
        )
        sender, sniffer = outsider.raw(), other.raw()
        cases = (
            (b"own", (outsider.mac, other.mac), (outsider.address, other.address), True),
            (b"address", (outsider.mac, other.mac), (guest.address, other.address), False),
            (b"hardware", (guest.mac, other.mac), (outsider.address, other.address), False),
        )

        for payload, macs, addresses, is_seen in cases:
            sender.send(udp_frame(macs=macs, addresses=addresses, ports=(9, 9), payload=payload))
            assert sees(sniffer, payload) is is_seen, payload
        sender.send(
            arp_frame(
                ether_source=outsider.mac,
                operation=2,
                sender=(outsider.mac, guest.address),
                target=(BROADCAST, guest.address),
            )
        )
        assert not sees(sniffer, socket.inet_aton(guest.address))

    on_host(tmp_path, 3, scenario)


def _advertisement(guest: Guest, *, target: str, option_mac: str, extra: bytes = b"") -> bytes:
    option = bytes((2, 1)) + bytes.fromhex(option_mac.replace(":", ""))
    body = bytes((136, 0, 0, 0, 0x20, 0, 0, 0)) + socket.inet_pton(socket.AF_INET6, target)
    return icmp6_frame(
        macs=(guest.mac, "33:33:00:00:00:01"),
        addresses=(guest.address6, "ff02::1"),
        body=body + extra + option,
    )


def test_neighbour_discovery_tells_own_addresses_only(tmp_path: Path) -> None:
    """Advertisements for another's address, with another MAC, or of a router are dropped."""

    def scenario(host: Host, liar: Guest, other: Guest) -> None:
        host.apply(listed(liar), listed(other))
        sender, sniffer = liar.raw(), other.raw()
        nonce = bytes((14, 1)) + bytes(6)
        router = icmp6_frame(
            macs=(liar.mac, "33:33:00:00:00:01"),
            addresses=("fe80::5054:ff:fe00:1", "ff02::1"),
            body=bytes((134, 0, 0, 0)) + bytes(12),
        )
        cases = (
            (_advertisement(liar, target=liar.address6, option_mac=liar.mac), True),
            (_advertisement(liar, target=other.address6, option_mac=liar.mac), False),
            (_advertisement(liar, target=liar.address6, option_mac=other.mac), False),
            (
                _advertisement(liar, target=liar.address6, option_mac=other.mac, extra=nonce),
                False,
            ),
            (router, False),
        )

        for frame, is_seen in cases:
            sender.send(frame)
            assert sees(sniffer, frame[54:]) is is_seen

    on_host(tmp_path, 2, scenario)


@pytest.mark.parametrize("way", ["difference", "replacement", "removed interface"])
def test_an_established_connection_survives_a_change_that_forbids_new_ones(
    tmp_path: Path, way: str
) -> None:
    """The connection goes on in both directions; a new one is refused by silence."""

    def scenario(host: Host, client: Guest, server: Guest) -> None:
        taken = server.listen(80)
        host.apply(
            listed(client, allow("out", "any", "tcp", "80")),
            listed(server, allow("in", "any", "tcp", "80")),
        )
        near = client.connect(server.address, 80)
        assert near is not None
        far, _ = taken.accept()
        if way == "difference":
            host.learn()
        if way == "removed interface":
            host.apply(listed(client))
        host.apply(listed(client), listed(server))

        for sender, receiver in ((near, far), (far, near)) * 3:
            sender.sendall(b"still here")
            assert receiver.recv(32) == b"still here"
        far.close()
        assert not client.reaches(server.address, 80)

    on_host(tmp_path, 2, scenario)


def test_a_flow_is_no_way_in_for_others(tmp_path: Path) -> None:
    """The peer of a connection can't begin one of its own, nor answer from another port."""

    def scenario(host: Host, client: Guest, server: Guest) -> None:
        host.apply(
            listed(client, allow("out", "any", "udp", "53")),
            listed(server, allow("in", "any", "udp", "53")),
        )
        asker, answerer, other = client.datagrams(4000), server.datagrams(53), server.datagrams(54)
        asker.sendto(b"question", (server.address, 53))
        assert answerer.recv(32) == b"question"

        answerer.sendto(b"answer", (client.address, 4000))
        assert asker.recv(32) == b"answer"
        other.sendto(b"intruder", (client.address, 4000))
        with pytest.raises(TimeoutError):
            asker.recv(32)
        answerer.sendto(b"intruder", (client.address, 4001))
        assert host.drops("out", server) == 2

    on_host(tmp_path, 2, scenario)


def test_the_host_is_a_peer_like_others(tmp_path: Path) -> None:
    """A guest reaches the host on what it may, and the host the guest on what that one allows."""

    def scenario(host: Host, guest: Guest) -> None:
        own = [socket.create_server(("10.20.0.254", port)) for port in (8080, 8081)]
        [guest.listen(port) for port in (80, 81)]
        host.apply(
            listed(
                guest,
                allow("out", "10.20.0.254", "tcp", "8080"),
                allow("in", "10.20.0.254", "tcp", "80"),
            )
        )

        assert guest.reaches("10.20.0.254", 8080)
        assert not guest.reaches("10.20.0.254", 8081)
        with socket.create_connection((guest.address, 80), timeout=3):
            pass
        with pytest.raises(TimeoutError):
            socket.create_connection((guest.address, 81), timeout=0.3)
        for item in own:
            item.close()

    on_host(tmp_path, 1, scenario)


def test_dhcp_is_asked_of_the_host_and_answered_by_it_alone(tmp_path: Path) -> None:
    """A guest with dhcp reaches the host's server without an address; no guest poses as one."""

    def scenario(host: Host, guest: Guest, liar: Guest) -> None:
        host.apply(listed(guest, dhcp=True), listed(liar, allow("out", "any", "any")))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("", 67))
            server.settimeout(0.3)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"br0")
            sender, sniffer = guest.raw(), guest.raw()
            ask = udp_frame(
                macs=(guest.mac, BROADCAST),
                addresses=("0.0.0.0", "255.255.255.255"),
                ports=(68, 67),
                payload=b"discover",
            )
            sender.send(ask)
            assert server.recv(64) == b"discover"
            server.sendto(b"offer", ("255.255.255.255", 68))
            assert sees(sniffer, b"offer")

            false = liar.raw()
            false.send(
                udp_frame(
                    macs=(liar.mac, BROADCAST),
                    addresses=(liar.address, "255.255.255.255"),
                    ports=(67, 68),
                    payload=b"false offer",
                )
            )
            assert not sees(sniffer, b"false offer")
            refused = liar.raw()
            refused.send(ask.replace(bytes.fromhex("525400000001"), bytes.fromhex("525400000002")))
            with pytest.raises(TimeoutError):
                server.recv(64)

    on_host(tmp_path, 2, scenario)


def test_a_guarded_name_without_a_document_is_cut_off(tmp_path: Path) -> None:
    """A new interface whose name is guarded neither sends nor receives until it is listed."""

    def scenario(host: Host, guest: Guest, unlisted: Guest) -> None:
        guest.listen(80)
        rules = (allow("in", "any", "tcp", "80"),)
        host.apply(listed(guest, *rules))
        assert unlisted.reaches(guest.address, 80)

        host.apply(listed(guest, *rules), guarded=("tap*",))
        assert not unlisted.reaches(guest.address, 80)
        host.apply(
            listed(guest, *rules),
            listed(unlisted, allow("out", "any", "tcp", "80")),
            guarded=("tap*",),
        )
        assert unlisted.reaches(guest.address, 80)

    on_host(tmp_path, 2, scenario)


def test_errors_of_icmp_pass_and_echo_needs_a_rule(tmp_path: Path) -> None:
    """A closed UDP port is told to the sender; an echo is answered only where it is allowed."""

    def scenario(host: Host, client: Guest, server: Guest) -> None:
        host.apply(
            listed(client, allow("out", "any", "any")),
            listed(server, allow("in", "any", "udp", "53"), allow("in", client.address, "icmp")),
        )
        asker = client.datagrams(4000)
        asker.connect((server.address, 53))
        asker.send(b"question")
        with pytest.raises(ConnectionRefusedError):
            asker.recv(32)
        assert _pings(client, server.address)

        host.apply(
            listed(client, allow("out", "any", "any")),
            listed(server, allow("in", "any", "udp", "53")),
        )
        assert not _pings(client, server.address)
        assert not _pings(server, client.address)

    on_host(tmp_path, 2, scenario)


@pytest.mark.parametrize(("protocol", "arrives"), [("udp", False), ("any", True)])
def test_fragments_need_a_rule_for_any_protocol(
    tmp_path: Path, protocol: str, *, arrives: bool
) -> None:
    """Later fragments carry no ports: a rule about ports can't let them pass."""

    def scenario(host: Host, client: Guest, server: Guest) -> None:
        ports = ("53",) if protocol == "udp" else ()
        host.apply(
            listed(client, allow("out", "any", protocol, *ports)),
            listed(server, allow("in", "any", protocol, *ports)),
        )
        asker, answerer = client.datagrams(4000), server.datagrams(53)
        asker.sendto(bytes(100), (server.address, 53))
        assert len(answerer.recv(4096)) == 100

        asker.sendto(bytes(3000), (server.address, 53))

        if arrives:
            assert len(answerer.recv(4096)) == 3000
        else:
            with pytest.raises(TimeoutError):
                answerer.recv(4096)

    on_host(tmp_path, 2, scenario)


def _pings(guest: Guest, address: str) -> bool:
    echo = guest.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    echo.settimeout(0.3)
    echo.sendto(bytes.fromhex("0800f7fd00010001"), (address, 0))
    try:
        while True:
            data, (source, _) = echo.recvfrom(256)
            if source == address and data[20] == 0:
                return True
    except TimeoutError:
        return False


def test_a_frame_for_another_hardware_address_is_not_handed_to_a_guest(tmp_path: Path) -> None:
    """What the bridge floods because it knows no port is not seen by listed guests."""

    def scenario(host: Host, outsider: Guest, guest: Guest) -> None:
        host.apply(listed(guest, allow("in", "any", "any")))
        sender, sniffer = outsider.raw(), guest.raw()
        for mac, payload, is_seen in (
            (guest.mac, b"for you", True),
            ("52:54:00:00:00:99", b"for another", False),
        ):
            sender.send(
                udp_frame(
                    macs=(outsider.mac, mac),
                    addresses=(outsider.address, guest.address),
                    ports=(9, 9),
                    payload=payload,
                )
            )
            assert sees(sniffer, payload) is is_seen

    on_host(tmp_path, 2, scenario)


def test_trace_says_what_the_kernel_does(tmp_path: Path) -> None:
    """For every pair, port and claimed source, the pure answer is what a real packet meets."""

    def scenario(host: Host, *found: Guest) -> None:
        web, app, other = found
        host.apply(
            listed(web, allow("in", "label:app", "udp", "53", "8000-8010"), label="web"),
            listed(app, allow("out", "10.20.0.1", "udp", "53"), label="app"),
            listed(other, allow("out", "any", "any"), allow("in", "10.20.0.0/25", "udp", "53")),
        )
        sniffers = {guest.name: guest.raw() for guest in found}
        senders = {guest.name: guest.raw() for guest in found}
        count = 0
        for sender, receiver, port, claimed in _questions(found):
            payload = f"packet {count:04}".encode()
            frame = udp_frame(
                macs=(sender.mac, receiver.mac),
                addresses=(claimed, receiver.address),
                ports=(4000 + count, port),
                payload=payload,
            )
            answer = trace(
                host.document,
                TraceQuestion(
                    source=sender.name,
                    destination=receiver.name,
                    source_address=claimed,
                    protocol=IpProtocol.UDP,
                    port=port,
                ),
            )

            senders[sender.name].send(frame)
            sniffers[receiver.name].settimeout(0.1)
            is_seen = sees(sniffers[receiver.name], payload)

            assert is_seen is answer.accepted, (sender.name, receiver.name, port, claimed)
            count += 1
        assert count == 24

    on_host(tmp_path, 3, scenario)


def _questions(found: tuple[Guest, ...]) -> Iterator[tuple[Guest, Guest, int, str]]:
    for sender in found:
        for receiver in found:
            if receiver is not sender:
                for port in (53, 8005):
                    yield sender, receiver, port, sender.address
                    yield sender, receiver, port, "10.20.0.99"


FOREIGN = """
table bridge novacron {
    chain c {
        type filter hook forward priority 0; policy accept;
        ether type ip counter comment "of another"
    }
}
table bridge filter {
    set s { type ether_addr; elements = { 52:54:00:00:00:01 }; }
    chain forward { }
}
table inet novacron-segments {
    map m { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop }; }
}
"""


def foreign_rules() -> str:
    """Everything in the kernel but our table, as nft writes it; counts left out."""
    done = subprocess.run(
        ["nft", "-a", "-s", "list", "ruleset"],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    tables = done.stdout.split("\ntable ")
    ours = "bridge novacron-segments"
    return "\ntable ".join(t.strip() for t in tables if ours not in t.split("{")[0])


def test_tables_of_others_stay_byte_for_byte(tmp_path: Path) -> None:
    """Applying, changing and removing segments leaves every other table as it was."""

    def scenario(host: Host, guest: Guest) -> None:
        subprocess.run(["nft", "-f", "-"], input=FOREIGN, check=True, text=True, timeout=20)
        before = foreign_rules()
        host.apply(listed(guest, allow("in", "any", "any")))
        assert foreign_rules() == before
        host.apply(listed(guest))
        assert foreign_rules() == before

        with pytest.raises(SegmentsCheckFailedError):
            asyncio.run(host.segments.apply(SegmentDocument(), _refuse))

        assert foreign_rules() == before
        assert "table inet novacron-segments" in before

    on_host(tmp_path, 1, scenario)
