"""What the ruleset does with one packet, and which rule decides: the kernel's walk. Pure.

The rate of ICMP errors counts as kept, and flows are what the caller says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.network.segments.ruleset import (
    AddressSpan,
    Among,
    Dispatch,
    Element,
    Field,
    InSet,
    IsUnicast,
    Jump,
    Match,
    NamedSet,
    Ruleset,
    Span,
    Value,
    Verdict,
)

# Chains never lead back, so this only stops a ruleset that was made wrongly.
_DEPTH_MAX = 16


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet by its fields; a field that it has not never matches."""

    hooks: tuple[str, ...]
    fields: Mapping[Field, str | int]
    flows: frozenset[tuple[str, Element]] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStep:
    """One rule that matched.

    Attributes:
        chain: where it stands.
        rule: its number in the chain, from 1; 0 for the chain's policy.
        does: such as ``goto source``, ``drop``, ``return``.
        comment: what the rule says of itself.
        because: the element of a set that decided, with the rule of the document it comes from.
    """

    chain: str
    rule: int
    does: str
    comment: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True)
class Walk:
    """What became of the packet."""

    accepted: bool
    steps: tuple[TraceStep, ...]


def evaluate(ruleset: Ruleset, packet: Packet) -> Walk:
    """Walk the packet through the hooks that it meets."""
    steps: list[TraceStep] = []
    for hook in packet.hooks:
        if _walk(ruleset, packet, hook, steps, 0) is Verdict.DROP:
            return Walk(accepted=False, steps=tuple(steps))
    return Walk(accepted=True, steps=tuple(steps))


def _walk(
    ruleset: Ruleset, packet: Packet, chain: str, steps: list[TraceStep], depth: int
) -> Verdict:
    """The verdict of a chain; RETURN where it has none."""
    assert depth < _DEPTH_MAX, "chains lead back to themselves"
    for number, rule in enumerate(ruleset.chains[chain].rules, 1):
        reasons: list[str] = []
        if not all(_matches(ruleset, packet, match, reasons) for match in rule.matches):
            continue
        action = rule.action
        target, is_final, does = None, False, ""
        if isinstance(action, Verdict):
            does = action.value
        elif isinstance(action, Jump):
            target, is_final = action.chain, action.is_final
        elif isinstance(action, Dispatch):
            key = _key(packet, action.fields)
            mapping = ruleset.maps[action.name]
            target = None if key is None else mapping.elements.get(str(key[0]))
            is_final = not mapping.returns
            if target is None:
                continue
        else:
            continue  # remembers a flow, and goes on
        if target is not None:
            does = f"{'goto' if is_final else 'jump'} {target}"
        steps.append(
            TraceStep(
                chain=chain,
                rule=number,
                does=does,
                comment=rule.comment,
                because="; ".join(reasons),
            )
        )
        if target is None:
            assert isinstance(action, Verdict), "only verdicts have no target"
            return action
        verdict = _walk(ruleset, packet, target, steps, depth + 1)
        if is_final or verdict is not Verdict.RETURN:
            return verdict
    return Verdict.RETURN


def _matches(ruleset: Ruleset, packet: Packet, match: Match, reasons: list[str]) -> bool:
    if isinstance(match, IsUnicast):
        destination = packet.fields.get(Field.ETHER_DESTINATION)
        return destination is not None and int(str(destination)[:2], 16) & 1 == 0
    if isinstance(match, Among):
        found = packet.fields.get(match.field)
        if found is None:
            return False
        return any(_covers(value, found) for value in match.values) is not match.negated
    assert isinstance(match, InSet), "all kinds of matches are handled"
    key = _key(packet, match.fields)
    if key is None:
        return False
    if ruleset.sets[match.name].flows_max:
        is_in = (match.name, key) in packet.flows
    else:
        is_in = _look_up(match.name, ruleset.sets[match.name], key, reasons)
    return is_in is not match.negated


def _key(packet: Packet, fields: tuple[Field, ...]) -> Element | None:
    found = [packet.fields.get(name) for name in fields]
    return None if None in found else tuple(value for value in found if value is not None)


def _look_up(name: str, item: NamedSet, key: Element, reasons: list[str]) -> bool:
    candidates: Iterator[Element] = iter(item.elements) if item.has_spans else iter((key,))
    for element in candidates:
        if element in item.elements and all(map(_covers, element, key)):
            if item.has_spans or name.startswith("label"):
                reasons.append(item.elements[element])
            return True
    return False


def _covers(value: Value, found: Value) -> bool:
    match value:
        case Span():
            return isinstance(found, int) and value.first <= found <= value.last
        case AddressSpan():
            first, last = ipaddress.ip_address(value.first), ipaddress.ip_address(value.last)
            address = ipaddress.ip_address(str(found))
            return address.version == first.version and int(first) <= int(address) <= int(last)
        case str() if value.endswith("*") and isinstance(found, str):
            return found.startswith(value[:-1])
        case _:
            return value == found
