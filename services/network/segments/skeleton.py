"""The chains and sets that do not depend on the interfaces. Pure; see ``compile`` for the way."""

from __future__ import annotations

from collections.abc import Iterator

from services.network.segments.model import Direction, SegmentDocument
from services.network.segments.ruleset import (
    Among,
    Chain,
    Dispatch,
    Field,
    Hook,
    InSet,
    IsUnicast,
    Jump,
    Match,
    NamedSet,
    Remember,
    Rule,
    Verdict,
)

# Sets whose elements count an interface's dropped packets: forged, from it, to it.
DROPPED = ("dropped-spoof", "dropped-out", "dropped-in")
# A flow takes some 150 bytes of the kernel's memory.
FLOWS_MAX = 131_072
SENDERS_MAX = 8192
# QEMU sends such frames for a guest that has moved here; nobody believes what is in them.
_RARP = 0x8035
# Until the other side has answered; then as long as it goes on answering.
FLOW_NEW_S = 60
FLOW_TCP_S = 3600
FLOW_OTHER_S = 180
_BEFORE_FILTERS = -310
_FILTER = -200  # NF_BR_PRI_FILTER_BRIDGED
_WITH_PORTS = ("tcp", "udp", "sctp")
_IN_LISTED = InSet((Field.IN_NAME,), "interfaces")
_OUT_LISTED = InSet((Field.OUT_NAME,), "interfaces")
_IN_OTHER = InSet((Field.IN_NAME,), "interfaces", negated=True)
_OUT_OTHER = InSet((Field.OUT_NAME,), "interfaces", negated=True)
_SPOOFED = Jump("spoofed", is_final=True)
_CHECKED = Jump("checked", is_final=True)
# "This host" of RFC 1122, as probes and DHCP use it.
_IP4_NONE = "0.0.0.0"  # noqa: S104 - compared with, nothing is bound to it
_UNSPECIFIED = Among(Field.IP6_SOURCE, ("::",))
SPECIFIED = Among(Field.IP6_SOURCE, ("::",), negated=True)
ND_WITH_OPTION = Among(Field.IP6_LENGTH, (32,))
_FALSE_NEIGHBOUR = "false neighbour discovery"
# Enough for every path MTU discovery and unreachable port of one guest, and too few for a flood.
ICMP_ERRORS_PER_S = 100
# From all senders together, listed or not.
ICMP_ERRORS_IN_PER_S = 1000
NO_RULE = {
    Direction.IN: "no rule of the receiver allows it",
    Direction.OUT: "no rule of the sender allows it",
}
ICMP = {4: "icmp", 6: "ipv6-icmp"}
_ICMP_ERRORS = (3, 11, 12)  # unreachable, time exceeded, parameter problem
_ICMP6_ERRORS = (1, 2, 3, 4)  # the same, and packet too big
# Router and neighbour messages, redirects, multicast listeners; ``source`` has looked at guests'.
_ND_AND_MLD = (130, 131, 132, 133, 134, 135, 136, 137, 143)


def flow_sets() -> dict[str, NamedSet]:
    """The sets that the kernel fills with the flows that rules allowed."""
    found = {}
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        pair = (kind, kind, "inet_proto")
        found[f"flows{version}"] = NamedSet(
            (*pair, "inet_service", "inet_service"), flows_max=FLOWS_MAX
        )
        found[f"pairs{version}"] = NamedSet(pair, flows_max=FLOWS_MAX)
    found["errors"] = NamedSet(("ifname",), flows_max=SENDERS_MAX)
    return found


def base_chains(document: SegmentDocument) -> Iterator[tuple[str, Chain]]:
    """The chains at the hooks and those that they share."""
    guarded = tuple(document.guarded)
    yield "prerouting", _prerouting(guarded, tuple(document.trusted))
    yield "forward", _entry("forward", (_IN_LISTED, _OUT_LISTED), guarded)
    yield "input", _entry("input", (_IN_LISTED,), ())
    yield "output", _entry("output", (_OUT_LISTED,), guarded)
    yield "source", _source()
    yield "source-arp", _source_arp()
    yield "source4", _source4()
    yield "source6", _source6()
    yield "source-nd", _source_nd()
    yield "checked", _checked(guarded)
    yield "flows", Chain(tuple(_established()))
    yield "remember", Chain(tuple(_remember()))
    yield "sender", _party(Direction.OUT)
    yield "receiver", _party(Direction.IN)
    yield "spoofed", _counting("dropped-spoof", Field.IN_NAME, "forged source")
    yield "dropped-out", _counting("dropped-out", Field.IN_NAME, "not allowed out")
    yield "dropped-in", _counting("dropped-in", Field.OUT_NAME, "not allowed in")


def _entry(hook: str, listed: tuple[Match, ...], guarded: tuple[str, ...]) -> Chain:
    rules = [Rule((match,), action=_CHECKED) for match in listed]
    rules += [_guard(Field.OUT_NAME, pattern) for pattern in guarded]
    return Chain(tuple(rules), Hook(hook, _FILTER))


def _guard(field: Field, pattern: str, *others: Match) -> Rule:
    comment = f"{pattern} is guarded and the interface not listed"
    return Rule((Among(field, (pattern,)), *others), action=Verdict.DROP, comment=comment)


def _prerouting(guarded: tuple[str, ...], trusted: tuple[str, ...]) -> Chain:
    rules = [Rule((_IN_LISTED,), action=Jump("source", is_final=True))]
    rules += [_guard(Field.IN_NAME, pattern) for pattern in guarded]
    rules += [
        Rule((Among(Field.IN_NAME, (name,)),), action=Verdict.ACCEPT, comment=f"{name} is trusted")
        for name in trusted
    ]
    for field, name, what in (
        (Field.ETHER_SOURCE, "guests-mac", "hardware address"),
        (Field.ARP_IP, "guests4", "address in ARP"),
        (Field.IP4_SOURCE, "guests4", "address"),
        (Field.IP6_SOURCE, "guests6", "address"),
    ):
        comment = f"a guest's {what} from another port"
        rules.append(Rule((InSet((field,), name),), action=Verdict.DROP, comment=comment))
    return Chain(tuple(rules), Hook("prerouting", _BEFORE_FILTERS))


def _source() -> Chain:
    own_mac = InSet((Field.IN_NAME, Field.ETHER_SOURCE), "macs", negated=True)
    rules = [Rule((own_mac,), action=_SPOOFED, comment="not its hardware address")]
    for kind, chain in (("arp", "source-arp"), ("ip", "source4"), ("ip6", "source6")):
        matches = (Among(Field.ETHER_TYPE, (kind,)),)
        rules.append(Rule(matches, action=Jump(chain, is_final=True)))
    announced = (Among(Field.ETHER_TYPE, (_RARP,)),)
    rules.append(Rule(announced, action=Verdict.ACCEPT, comment="tells bridges where it is"))
    rules.append(Rule(action=_SPOOFED, comment="neither ARP, IPv4 nor IPv6"))
    return Chain(tuple(rules))


def _source_arp() -> Chain:
    own_mac = InSet((Field.IN_NAME, Field.ARP_ETHER), "macs", negated=True)
    probe = (Among(Field.ARP_OPERATION, ("request",)), Among(Field.ARP_IP, (_IP4_NONE,)))
    own_ip = InSet((Field.IN_NAME, Field.ARP_IP), "sources4")
    return Chain(
        (
            Rule((own_mac,), action=_SPOOFED, comment="not its hardware address in ARP"),
            Rule(probe, action=Verdict.ACCEPT, comment="address probe"),
            Rule((own_ip,), action=Verdict.ACCEPT),
            Rule(action=_SPOOFED, comment="not its address in ARP"),
        )
    )


def _source4() -> Chain:
    asking = (
        Among(Field.IP4_SOURCE, (_IP4_NONE,)),
        InSet((Field.IN_NAME,), "dhcp"),
        *_ports("udp", 68, 67),
    )
    own = InSet((Field.IN_NAME, Field.IP4_SOURCE), "sources4")
    return Chain(
        (
            Rule((own,), action=Verdict.ACCEPT),
            Rule(asking, action=Verdict.ACCEPT, comment="asks for an address"),
            Rule(action=_SPOOFED, comment="not its address"),
        )
    )


def _source6() -> Chain:
    listeners = (_UNSPECIFIED, Among(Field.ICMP6_TYPE, (131, 132, 143)))
    own = InSet((Field.IN_NAME, Field.IP6_SOURCE), "sources6")
    # Listener queries too: who sends them decides where multicast goes.
    router = (Among(Field.ICMP6_TYPE, (130, 134, 137)),)
    neighbours = (Among(Field.ICMP6_TYPE, (135, 136)),)
    return Chain(
        (
            Rule(router, action=_SPOOFED, comment="a guest is no router"),
            Rule(neighbours, action=Jump("source-nd", is_final=True)),
            Rule((own,), action=Verdict.ACCEPT),
            Rule(listeners, action=Verdict.ACCEPT, comment="multicast listener"),
            Rule(action=_SPOOFED, comment="not its address"),
        )
    )


def _source_nd() -> Chain:
    """Neighbour discovery tells own addresses only, and the own hardware address in its option.

    Either without an option, which the length tells, or with the one: another option before it
    would hide a false one. Probes have the source ``::``, where receivers take no such option
    (RFC 4861 section 7.1.1) and senders may put others (RFC 7527).
    """
    other = InSet((Field.IN_NAME, Field.IP6_SOURCE), "sources6", negated=True)
    solicit, advert = Among(Field.ICMP6_TYPE, (135,)), Among(Field.ICMP6_TYPE, (136,))
    length = Field.IP6_LENGTH
    false = (
        (SPECIFIED, other),
        (advert, _UNSPECIFIED),
        (SPECIFIED, Among(length, (24,), negated=True), Among(length, (32,), negated=True)),
        (SPECIFIED, solicit, ND_WITH_OPTION, Among(Field.ND_OPTION, ("0x0101",), negated=True)),
        (SPECIFIED, advert, ND_WITH_OPTION, Among(Field.ND_OPTION, ("0x0201",), negated=True)),
    )
    return Chain(
        (
            *(Rule(matches, action=_SPOOFED, comment=_FALSE_NEIGHBOUR) for matches in false),
            Rule(action=Dispatch((Field.IN_NAME,), "nd")),
            Rule((SPECIFIED, solicit), action=Verdict.ACCEPT),
            Rule(action=_SPOOFED, comment=_FALSE_NEIGHBOUR),
        )
    )


def _checked(guarded: tuple[str, ...]) -> Chain:
    other_mac = InSet((Field.OUT_NAME, Field.ETHER_DESTINATION), "macs", negated=True)
    rules = [
        *(_guard(Field.OUT_NAME, pattern, _OUT_OTHER) for pattern in guarded),
        Rule(
            (_OUT_LISTED, IsUnicast(), other_mac),
            action=Jump("dropped-in", is_final=True),
            comment="not for this guest",
        ),
        Rule((Among(Field.ETHER_TYPE, ("arp", _RARP)),), action=Verdict.ACCEPT),
        Rule((Among(Field.ICMP6_TYPE, _ND_AND_MLD),), action=Verdict.ACCEPT),
        *_dhcp(),
        Rule(action=Jump("flows")),
        Rule((_IN_LISTED,), action=Jump("sender")),
        Rule((_OUT_LISTED,), action=Jump("receiver")),
        Rule(action=Jump("remember")),
        Rule(action=Verdict.ACCEPT),
    ]
    return Chain(tuple(rules))


def _dhcp() -> Iterator[Rule]:
    """Questions to, and answers from, what is no listed guest: none can pose as the server."""
    for client, server in ((68, 67), (546, 547)):
        asking = (InSet((Field.IN_NAME,), "dhcp"), _OUT_OTHER, *_ports("udp", client, server))
        answer = (InSet((Field.OUT_NAME,), "dhcp"), _IN_OTHER, *_ports("udp", server, client))
        yield Rule(asking, action=Verdict.ACCEPT, comment="DHCP")
        yield Rule(answer, action=Verdict.ACCEPT, comment="DHCP")


def _ports(protocol: str, source: int, destination: int) -> tuple[Match, ...]:
    return (
        Among(Field.PROTOCOL, (protocol,)),
        Among(Field.SOURCE_PORT, (source,)),
        Among(Field.DESTINATION_PORT, (destination,)),
    )


def _established() -> Iterator[Rule]:
    """Flows that were accepted before. Only answers make a flow live on.

    What nobody answers is taken for a new flow again once it has expired, by the rules of then.
    """
    for version, source, destination in _FAMILIES:
        there = (source, destination, Field.PROTOCOL, Field.SOURCE_PORT, Field.DESTINATION_PORT)
        back = (destination, source, Field.PROTOCOL, Field.DESTINATION_PORT, Field.SOURCE_PORT)
        flows, pairs = f"flows{version}", f"pairs{version}"
        ported = Among(Field.PROTOCOL, _WITH_PORTS)
        tcp = Among(Field.PROTOCOL, ("tcp",))
        for matches, timeout_s in (((tcp,), FLOW_TCP_S), ((ported,), FLOW_OTHER_S)):
            yield Rule(
                (*matches, InSet(back, flows)),
                remember=Remember(back, flows, timeout_s),
                action=Verdict.ACCEPT,
                comment="answer in a flow",
            )
        yield Rule((ported, InSet(there, flows)), action=Verdict.ACCEPT, comment="flow")
        echo = _ECHO_ANSWER[version]
        back_pair = (destination, source, Field.PROTOCOL)
        yield Rule(
            (echo, InSet(back_pair, pairs)),
            remember=Remember(back_pair, pairs, FLOW_NEW_S),
            action=Verdict.ACCEPT,
            comment="answer to an echo",
        )


def _remember() -> Iterator[Rule]:
    for version, source, destination in _FAMILIES:
        there = (source, destination, Field.PROTOCOL, Field.SOURCE_PORT, Field.DESTINATION_PORT)
        yield Rule(
            (Among(Field.PROTOCOL, _WITH_PORTS),),
            remember=Remember(there, f"flows{version}", FLOW_NEW_S),
        )
        yield Rule(
            (_ECHO[version],),
            remember=Remember(there[:3], f"pairs{version}", FLOW_NEW_S),
        )


def _party(direction: Direction) -> Chain:
    """What the sender, or the receiver, has to allow: returns then, and drops otherwise.

    Elements first, by one look-up each; then what is said by labels, in a chain that interfaces
    with the same rules share.
    """
    way = direction.value
    is_in = direction is Direction.IN
    name = Field.OUT_NAME if is_in else Field.IN_NAME
    rules = []
    for version, source, destination in _FAMILIES:
        key = (name, source if is_in else destination)
        ported = (*key, Field.PROTOCOL, Field.DESTINATION_PORT)
        icmp = Among(Field.PROTOCOL, (ICMP[version],))
        allowed: tuple[tuple[Match, ...], ...] = (
            (Among(Field.PROTOCOL, _WITH_PORTS), InSet(ported, f"{way}{version}-ports")),
            (InSet(key, f"{way}{version}-any"),),
            (icmp, InSet(key, f"{way}{version}-icmp")),
        )
        rules += [Rule(matches, action=Verdict.RETURN) for matches in allowed]
    ruled = InSet((name,), "ruled")
    rate = Remember((Field.IN_NAME,), "errors", FLOW_NEW_S, rate_per_s=ICMP_ERRORS_PER_S)
    for field, types in ((Field.ICMP_TYPE, _ICMP_ERRORS), (Field.ICMP6_TYPE, _ICMP6_ERRORS)):
        remember = None if is_in else rate
        rules.append(
            Rule(
                (Among(field, types), ruled),
                limit_per_s=ICMP_ERRORS_IN_PER_S if is_in else None,
                remember=remember,
                action=Verdict.RETURN,
                comment="ICMP errors",
            )
        )
    rules.append(Rule(action=Dispatch((name,), way)))
    rules.append(Rule(action=Jump(f"dropped-{way}", is_final=True), comment=NO_RULE[direction]))
    return Chain(tuple(rules))


def _counting(name: str, field: Field, comment: str) -> Chain:
    return Chain(
        (
            Rule((InSet((field,), name),), action=Verdict.DROP, comment=comment),
            Rule(action=Verdict.DROP, comment=comment),
        )
    )


_FAMILIES = (
    (4, Field.IP4_SOURCE, Field.IP4_DESTINATION),
    (6, Field.IP6_SOURCE, Field.IP6_DESTINATION),
)
_ECHO = {4: Among(Field.ICMP_TYPE, (8,)), 6: Among(Field.ICMP6_TYPE, (128,))}
_ECHO_ANSWER = {4: Among(Field.ICMP_TYPE, (0,)), 6: Among(Field.ICMP6_TYPE, (129,))}
