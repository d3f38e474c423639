"""A ruleset as values: what is compiled, rendered for nft, compared, and evaluated by trace."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

FAMILY = "bridge"
TABLE = "novacron-segments"


class Field(enum.Enum):
    """What a rule looks at; the value is nft's own name of it."""

    IN_NAME = "iifname"
    OUT_NAME = "oifname"
    ETHER_SOURCE = "ether saddr"
    ETHER_DESTINATION = "ether daddr"
    ETHER_TYPE = "ether type"
    IP4_SOURCE = "ip saddr"
    IP4_DESTINATION = "ip daddr"
    IP6_SOURCE = "ip6 saddr"
    IP6_DESTINATION = "ip6 daddr"
    IP6_LENGTH = "ip6 length"
    ARP_OPERATION = "arp operation"
    ARP_ETHER = "arp saddr ether"
    ARP_IP = "arp saddr ip"
    PROTOCOL = "meta l4proto"
    SOURCE_PORT = "th sport"
    DESTINATION_PORT = "th dport"
    ICMP_TYPE = "icmp type"
    ICMP6_TYPE = "icmpv6 type"
    ND_TARGET = "@th,64,128"
    ND_OPTION = "@th,192,16"
    ND_OPTION_ETHER = "@th,208,48"


@dataclass(frozen=True, slots=True)
class Span:
    """All numbers from first to last."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AddressSpan:
    """All addresses from first to last, of one family."""

    first: str
    last: str


Value = str | int | Span | AddressSpan


@dataclass(frozen=True, slots=True)
class Among:
    """The field has one of the values, or a single value is not the field's."""

    field: Field
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InSet:
    """The fields together are an element of a set of the table, or are none of it."""

    fields: tuple[Field, ...]
    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsUnicast:
    """The frame goes to one hardware address: the group bit of its destination is clear."""


Match = Among | InSet | IsUnicast


class Verdict(enum.Enum):
    """What ends a chain."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain; ``is_final`` does not come back."""

    chain: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Go to the chain that a map holds for the fields; go on where it holds none."""

    fields: tuple[Field, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Put the fields into a set that the kernel fills, for that long.

    With a rate, each element has its own: the rule goes on only while it is kept.
    """

    fields: tuple[Field, ...]
    name: str
    timeout_s: int
    rate_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Statements of one rule in order: matches, limit, what is remembered, where it goes on."""

    matches: tuple[Match, ...] = ()
    limit_per_s: int | None = None
    remember: Remember | None = None
    action: Verdict | Jump | Dispatch | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """Where the kernel enters a chain; what it does not decide goes on."""

    name: str
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order. ``origin`` names the interface whose document asked for it, or ""."""

    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    origin: str = ""


Element = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set of the table.

    Attributes:
        types: nft's data types, joined for a concatenation.
        elements: with the interface or rule that each comes from.
        has_spans: elements may be spans; none overlaps another.
        counted: each element counts the packets that matched it.
        flows_max: the kernel fills it, up to so many; 0 for a set of ours.
    """

    types: tuple[str, ...]
    elements: Mapping[Element, str] = field(default_factory=dict)
    has_spans: bool = False
    counted: bool = False
    flows_max: int = 0


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """Chains by interface name; with ``returns``, what they return goes on after the dispatch."""

    returns: bool
    elements: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """One table. Names are unique in it."""

    sets: Mapping[str, NamedSet]
    maps: Mapping[str, VerdictMap]
    chains: Mapping[str, Chain]
