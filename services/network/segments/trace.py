"""From a question such as ``vnet0 to vnet1, tcp 443`` to a packet, and to an answer. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from services.network.segments.compile import compile_document
from services.network.segments.evaluate import Packet, TraceStep, evaluate
from services.network.segments.model import (
    Address,
    IpProtocol,
    SegmentDocument,
    SegmentInterface,
)
from services.network.segments.ruleset import Element, Field

HOST = "host"
_FOREIGN_MAC = "02:00:00:00:00:01"
# Any port that a client might have.
_CLIENT_PORT = 49152


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceQuestion:
    """Body of ``segments.trace``.

    Attributes:
        source: the port that the packet comes from: a listed interface, another link's name, or
            ``host``.
        destination: where it goes to, likewise.
        source_mac, source_address: what it claims; "" for the listed interface's own.
        destination_mac, destination_address: "" for the listed interface's own.
        protocol: ``tcp``, ``udp``, ``sctp`` or ``icmp`` (an echo).
        port: destination port.
        established: it belongs to a flow that was accepted before.
    """

    source: str
    destination: str
    source_mac: str = ""
    source_address: str = ""
    destination_mac: str = ""
    destination_address: str = ""
    protocol: IpProtocol = IpProtocol.TCP
    port: int = 0
    established: bool = False

    def __post_init__(self) -> None:
        if self.source == self.destination:
            raise ValueError(f"source and destination are both {self.source!r:.40}")
        if self.protocol is IpProtocol.ANY:
            raise ValueError("protocol must be tcp, udp, sctp or icmp")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}, not 0 to 65535")
        for address in (self.source_address, self.destination_address):
            if address:
                ipaddress.ip_address(address)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceAnswer:
    """Reply to ``segments.trace``: the packet as it was understood, and every rule it met.

    Attributes:
        accepted: the last word; the last step is the rule that said it.
        packet: fields by nft's names.
    """

    accepted: bool
    packet: dict[str, str]
    steps: tuple[TraceStep, ...]


def trace(document: SegmentDocument, question: TraceQuestion) -> TraceAnswer:
    """Say what becomes of a packet under a document.

    Raises:
        ValueError: an address is needed that the question does not say.
    """
    packet = _packet(document, question)
    walk = evaluate(compile_document(document), packet)
    described = {name.value: str(value) for name, value in packet.fields.items()}
    return TraceAnswer(accepted=walk.accepted, packet=described, steps=walk.steps)


def _packet(document: SegmentDocument, question: TraceQuestion) -> Packet:
    listed = {item.name: item for item in document.interfaces}
    sender, receiver = listed.get(question.source), listed.get(question.destination)
    source, destination = _addresses(question, sender, receiver)
    version = source.version
    protocol = question.protocol.value
    if question.protocol is IpProtocol.ICMP and version == 6:
        protocol = "ipv6-icmp"
    to_mac = question.destination_mac or (receiver.mac if receiver else _FOREIGN_MAC)
    fields: dict[Field, str | int] = {
        Field.IN_NAME: "" if question.source == HOST else question.source,
        Field.OUT_NAME: "" if question.destination == HOST else question.destination,
        Field.ETHER_SOURCE: question.source_mac or (sender.mac if sender else _FOREIGN_MAC),
        Field.ETHER_DESTINATION: to_mac,
        Field.ETHER_TYPE: "ip" if version == 4 else "ip6",
        Field.IP4_SOURCE if version == 4 else Field.IP6_SOURCE: str(source),
        Field.IP4_DESTINATION if version == 4 else Field.IP6_DESTINATION: str(destination),
        Field.PROTOCOL: protocol,
    }
    if question.protocol is IpProtocol.ICMP:
        echo = 0 if question.established else 8
        echo6 = 129 if question.established else 128
        fields[Field.ICMP_TYPE if version == 4 else Field.ICMP6_TYPE] = (
            echo if version == 4 else echo6
        )
    else:
        fields[Field.SOURCE_PORT] = _CLIENT_PORT
        fields[Field.DESTINATION_PORT] = question.port
    return Packet(_hooks(question), fields, _flows(question, fields, version))


def _addresses(
    question: TraceQuestion, sender: SegmentInterface | None, receiver: SegmentInterface | None
) -> tuple[Address, Address]:
    said = [
        ipaddress.ip_address(text)
        for text in (question.source_address, question.destination_address)
        if text
    ]
    version = said[0].version if said else None
    source = _address(question.source_address, sender, version, "source")
    destination = _address(question.destination_address, receiver, source.version, "destination")
    if source.version != destination.version:
        raise ValueError(f"{source} and {destination} are of two families")
    return source, destination


def _address(
    text: str, interface: SegmentInterface | None, version: int | None, what: str
) -> Address:
    if text:
        return ipaddress.ip_address(text)
    own = [] if interface is None else [a for a in interface.sources if not a.is_link_local]
    for address in own:
        if version in (None, address.version):
            return address
    raise ValueError(f"say the {what}'s address: no listed interface has it")


def _hooks(question: TraceQuestion) -> tuple[str, ...]:
    if question.source == HOST:
        return ("output",)
    return ("prerouting", "input" if question.destination == HOST else "forward")


def _flows(
    question: TraceQuestion, fields: dict[Field, str | int], version: int
) -> frozenset[tuple[str, Element]]:
    if not question.established:
        return frozenset()
    pair = (
        (Field.IP4_DESTINATION, Field.IP4_SOURCE)
        if version == 4
        else (Field.IP6_DESTINATION, Field.IP6_SOURCE)
    )
    names: tuple[Field, ...] = (*pair, Field.PROTOCOL)
    kind = "pairs"
    if question.protocol is not IpProtocol.ICMP:
        names = (*names, Field.DESTINATION_PORT, Field.SOURCE_PORT)
        kind = "flows"
    return frozenset({(f"{kind}{version}", tuple(fields[name] for name in names))})
