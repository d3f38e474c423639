"""Ranges of addresses and ports without overlaps: what nft's sets of spans ask for. Pure."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.network.segments.ruleset import AddressSpan, Value

_IP4_LAST = (1 << 32) - 1
_IP6_LAST = (1 << 128) - 1
ADDRESS_SPAN_ALL = ((4, 0, _IP4_LAST), (6, 0, _IP6_LAST))


@dataclass(frozen=True, slots=True)
class Box:
    """Addresses from first to last with ports from first to last; ``origin`` names the rule."""

    first: int
    last: int
    port_first: int
    port_last: int
    origin: str


def disjoint(boxes: Iterable[Box]) -> Iterator[Box]:
    """Boxes that cover the same pairs of address and port, none twice, in order.

    Where several overlap, the first in the input names the result.
    """
    found = list(boxes)
    if len(found) == 1:
        yield found[0]
        return
    pending: list[Box] = []
    for first, last, column in _columns(found):
        ports = [Box(first, last, lower, upper, origin) for lower, upper, origin in _merged(column)]
        if pending and pending[-1].last + 1 == first and _same_ports(pending, ports):
            pending = [
                Box(old.first, last, old.port_first, old.port_last, old.origin) for old in pending
            ]
        else:
            yield from pending
            pending = ports
    yield from pending


def to_value(version: int, first: int, last: int) -> Value:
    """A span of addresses as a value of a ruleset."""
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    if first == last:
        return str(kind(first))
    return AddressSpan(str(kind(first)), str(kind(last)))


def _columns(boxes: list[Box]) -> Iterator[tuple[int, int, list[Box]]]:
    """The stretches of addresses over which the same boxes apply, with those boxes."""
    edges = sorted({box.first for box in boxes} | {box.last + 1 for box in boxes})
    for start, end in itertools.pairwise(edges):
        column = [box for box in boxes if box.first <= start <= box.last]
        if column:
            yield start, end - 1, column


def _merged(column: list[Box]) -> Iterator[tuple[int, int, str]]:
    """The ports of the boxes in order; what overlaps or touches is one."""
    ordered = sorted(enumerate(column), key=lambda item: (item[1].port_first, item[0]))
    place, box = ordered[0]
    lower, upper, origin = box.port_first, box.port_last, (place, box.origin)
    for place, box in ordered[1:]:
        if box.port_first > upper + 1:
            yield lower, upper, origin[1]
            lower, upper, origin = box.port_first, box.port_last, (place, box.origin)
        else:
            upper = max(upper, box.port_last)
            origin = min(origin, (place, box.origin))
    yield lower, upper, origin[1]


def _same_ports(one: list[Box], other: list[Box]) -> bool:
    return [(b.port_first, b.port_last, b.origin) for b in one] == [
        (b.port_first, b.port_last, b.origin) for b in other
    ]
