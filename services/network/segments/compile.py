"""The document to the ruleset of one table. Pure; the same document gives the same ruleset.

Way of a packet, in the bridge family:

    prerouting   from a listed interface: to ``source``, which lets pass only what carries the
                 interface's own hardware and IP addresses, in ARP and neighbour discovery too
                 guarded name: dropped; any other port: may not carry a listed guest's addresses
    forward, input, output
                 where a listed interface takes part: to ``checked``
                   not to this guest's hardware address -> dropped
                   ARP, neighbour discovery, DHCP       -> accepted
                   flow that was accepted before        -> accepted
                   rules of the sender, then of the receiver: drop, or return
                   the flow is remembered and accepted

Rules:
    1. What is said of addresses becomes elements of sets, keyed by the interface's name: one
       look-up, whatever number of interfaces and rules there is.
    2. Labels are sets of addresses. What is said of labels becomes a chain, named by the digest
       of its rules, so a chain never changes and interfaces with equal rules share it; a map leads
       there from the interface's name. A guest that joins a label changes elements and no rule.
    3. Sender and receiver must both agree, as far as both are listed.
    4. Flows are sets that the kernel fills: the bridge family has connection tracking only where
       the kernel was built with it.
    5. No sets without a name: the kernel takes quadratic time to name a thousand of them.
Invariant: no packet from or to a listed interface is accepted that no rule allows, except answers
in a flow that a rule allowed, ARP, neighbour discovery, DHCP where wanted, and a bounded rate of
ICMP errors to and from interfaces with rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from services.network.segments.boxes import ADDRESS_SPAN_ALL, Box, disjoint, to_value
from services.network.segments.errors import SegmentsTooLargeError
from services.network.segments.model import (
    ANY,
    WITH_PORTS,
    Direction,
    IpProtocol,
    SegmentDocument,
    SegmentInterface,
    SegmentRule,
    parse_ports,
)
from services.network.segments.ruleset import (
    Among,
    Chain,
    Element,
    Field,
    InSet,
    Jump,
    Match,
    NamedSet,
    Rule,
    Ruleset,
    Span,
    Value,
    Verdict,
    VerdictMap,
)
from services.network.segments.skeleton import (
    DROPPED,
    ICMP,
    ND_WITH_OPTION,
    NO_RULE,
    SPECIFIED,
    base_chains,
    flow_sets,
)

# The kernel takes some 40 µs for an element with spans.
ELEMENTS_MAX = 50_000
# Peers times ports of one interface; what needs more is better said by a label or a wider network.
COMBINATIONS_MAX = 4096
_DIGEST_LETTERS = 16
_KINDS = {4: "ipv4_addr", 6: "ipv6_addr"}
_PORTS_ALL = (0, 65535)
_PEER = {
    (4, Direction.IN): Field.IP4_SOURCE,
    (4, Direction.OUT): Field.IP4_DESTINATION,
    (6, Direction.IN): Field.IP6_SOURCE,
    (6, Direction.OUT): Field.IP6_DESTINATION,
}


def compile_document(document: SegmentDocument) -> Ruleset:
    """The ruleset that puts the document in force.

    Raises:
        SegmentsTooLargeError: the rules, or those of one interface, make too many elements.
    """
    chains = dict(base_chains(document))
    labelled: dict[str, dict[str, str]] = {"in": {}, "out": {}}
    neighbours: dict[str, str] = {}
    versions: dict[str, set[int]] = {
        label: {address.version for address in addresses}
        for label, addresses in document.members.items()
    }
    for interface in document.interfaces:
        for direction in Direction:
            rules = tuple(_label_rules(interface, direction, versions))
            if rules:
                name = _keep(chains, direction.value, _closed(rules, direction), interface.name)
                labelled[direction.value][interface.name] = name
        if any(address.version == 6 for address in interface.sources):
            name = _keep(chains, "nd", tuple(_neighbour_rules(interface)), interface.name)
            neighbours[interface.name] = name
    return Ruleset(
        sets={**_identity_sets(document), **_rule_sets(document), **flow_sets()},
        maps={
            "in": VerdictMap(returns=False, elements=labelled["in"]),
            "out": VerdictMap(returns=False, elements=labelled["out"]),
            "nd": VerdictMap(returns=True, elements=neighbours),
        },
        chains=chains,
    )


def rule_name(rule: SegmentRule, number: int) -> str:
    """What a rule is called: its own name, or its place among those of its direction."""
    return rule.name or f"{rule.direction.value} {number}"


def _keep(chains: dict[str, Chain], kind: str, rules: tuple[Rule, ...], origin: str) -> str:
    digest = hashlib.sha256(repr(rules).encode()).hexdigest()[:_DIGEST_LETTERS]
    name = f"{kind}-{digest}"
    chains.setdefault(name, Chain(rules, origin=origin))
    return name


def _identity_sets(document: SegmentDocument) -> dict[str, NamedSet]:
    """Who the guests are, what they may call themselves, and who is behind each label."""
    listed = document.interfaces
    names: dict[Element, str] = {(item.name,): item.name for item in listed}
    found = {
        "interfaces": NamedSet(("ifname",), names),
        "ruled": NamedSet(("ifname",), {(i.name,): i.name for i in listed if i.rules}),
        "dhcp": NamedSet(("ifname",), {(i.name,): i.name for i in listed if i.dhcp}),
        "macs": NamedSet(("ifname", "ether_addr"), {(i.name, i.mac): i.name for i in listed}),
        "guests-mac": NamedSet(("ether_addr",), {(i.mac,): i.name for i in listed}),
    }
    found |= {name: NamedSet(("ifname",), names, counted=True) for name in DROPPED}
    sources = [(i.name, address) for i in listed for address in i.sources]
    members = document.members
    for version, kind in _KINDS.items():
        own = [(name, str(a)) for name, a in sources if a.version == version]
        found[f"sources{version}"] = NamedSet(("ifname", kind), {pair: pair[0] for pair in own})
        found[f"guests{version}"] = NamedSet((kind,), {(a,): name for name, a in own})
        for label, addresses in members.items():
            elements: dict[Element, str] = {
                (str(a),): f"label {label}" for a in addresses if a.version == version
            }
            if elements:
                found[f"label{version}-{label}"] = NamedSet((kind,), elements)
    return found


def _rule_sets(document: SegmentDocument) -> dict[str, NamedSet]:
    """What rules say of addresses and networks, as elements."""
    found: dict[str, dict[Element, str]] = {}
    for version in _KINDS:
        for way in ("in", "out"):
            found |= {f"{way}{version}-{kind}": {} for kind in ("ports", "any", "icmp")}
    count = 0
    for interface in document.interfaces:
        for name, element, origin in _rule_elements(interface):
            found[name][element] = f"{interface.name}: {origin}"
            count += 1
        if count > ELEMENTS_MAX:
            raise SegmentsTooLargeError(
                f"the rules up to those of {interface.name} make {count} elements and "
                f"{ELEMENTS_MAX} are allowed: name peers by labels, or by wider networks",
                interface=interface.name,
            )
    types = {"ports": ("inet_proto", "inet_service"), "any": (), "icmp": ()}
    return {
        name: NamedSet(
            ("ifname", _KINDS[int(name[-len(kind) - 2])], *types[kind]), elements, has_spans=True
        )
        for name, elements in found.items()
        for kind in [name.rpartition("-")[2]]
    }


def _rule_elements(interface: SegmentInterface) -> Iterator[tuple[str, Element, str]]:
    """Set, element and rule's name for everything that an interface's rules say of addresses."""
    boxes: dict[tuple[str, tuple[Value, ...]], list[Box]] = {}
    combinations = 0
    for number, rule in _numbered(interface):
        for version, first, last in _address_spans(rule):
            name = f"{rule.direction.value}{version}"
            for ports in _port_spans(rule):
                box = Box(first, last, *ports, rule_name(rule, number))
                key = f"{name}-{_kind(rule)}", _protocol_value(rule)
                boxes.setdefault(key, []).append(box)
                combinations += 1
    if combinations > COMBINATIONS_MAX:
        raise SegmentsTooLargeError(
            f"the rules of {interface.name} make {combinations} combinations of peers and ports "
            f"and {COMBINATIONS_MAX} are allowed: name peers by labels, or by wider networks",
            interface=interface.name,
        )
    for (name, protocol), found in boxes.items():
        version = int(name[name.index("-") - 1])
        for box in disjoint(found):
            element: Element = (interface.name, to_value(version, box.first, box.last))
            if protocol:
                element = (*element, *protocol, _ports_value(box.port_first, box.port_last))
            yield name, element, box.origin


def _numbered(interface: SegmentInterface) -> Iterator[tuple[int, SegmentRule]]:
    counts = dict.fromkeys(Direction, 0)
    for rule in interface.rules:
        counts[rule.direction] += 1
        yield counts[rule.direction], rule


def _kind(rule: SegmentRule) -> str:
    return "ports" if rule.protocol in WITH_PORTS else rule.protocol.value


def _protocol_value(rule: SegmentRule) -> tuple[Value, ...]:
    return (rule.protocol.value,) if rule.protocol in WITH_PORTS else ()


def _address_spans(rule: SegmentRule) -> Iterator[tuple[int, int, int]]:
    if ANY in rule.peers:
        yield from ADDRESS_SPAN_ALL
        return
    for network in rule.networks:
        yield network.version, int(network.network_address), int(network.broadcast_address)


def _port_spans(rule: SegmentRule) -> Iterator[tuple[int, int]]:
    if not rule.ports:
        yield _PORTS_ALL
    for text in rule.ports:
        yield parse_ports(text)


def _label_rules(
    interface: SegmentInterface, direction: Direction, versions: dict[str, set[int]]
) -> Iterator[Rule]:
    """The rules of an interface that name labels, in one direction."""
    for number, rule in _numbered(interface):
        if rule.direction is not direction or ANY in rule.peers:
            continue
        for label in sorted(set(rule.labels)):
            for version in sorted(versions[label]):
                peer = InSet((_PEER[version, direction],), f"label{version}-{label}")
                for matches in _protocol_matches(rule, version):
                    yield Rule(
                        (peer, *matches),
                        action=Verdict.RETURN,
                        comment=rule_name(rule, number),
                    )


def _protocol_matches(rule: SegmentRule, version: int) -> Iterator[tuple[Match, ...]]:
    if rule.protocol is IpProtocol.ANY:
        yield ()
    elif rule.protocol is IpProtocol.ICMP:
        yield (Among(Field.PROTOCOL, (ICMP[version],)),)
    else:
        protocol = Among(Field.PROTOCOL, (rule.protocol.value,))
        if not rule.ports:
            yield (protocol,)
        for first, last in map(parse_ports, rule.ports):
            yield (protocol, Among(Field.DESTINATION_PORT, (_ports_value(first, last),)))


def _ports_value(first: int, last: int) -> Value:
    return first if first == last else Span(first, last)


def _closed(rules: tuple[Rule, ...], direction: Direction) -> tuple[Rule, ...]:
    final = Jump(f"dropped-{direction.value}", is_final=True)
    return (*rules, Rule(action=final, comment=NO_RULE[direction]))


def _neighbour_rules(interface: SegmentInterface) -> Iterator[Rule]:
    """What an interface may say of itself in neighbour discovery; see skeleton."""
    ether = f"0x{interface.mac.replace(':', '')}"
    yield Rule(
        (SPECIFIED, ND_WITH_OPTION, Among(Field.ND_OPTION_ETHER, (ether,), negated=True)),
        action=Jump("spoofed", is_final=True),
        comment="not its hardware address",
    )
    for address in interface.sources:
        if address.version == 6:
            target = Among(Field.ND_TARGET, (f"0x{int(address):032x}",))
            yield Rule((target,), action=Verdict.ACCEPT, comment="its address")
