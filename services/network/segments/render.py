"""A ruleset, or the way from one to another, as commands in nft's JSON schema. Pure.

Source: libnftables-json(5), schema version 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.network.segments.ruleset import (
    FAMILY,
    TABLE,
    AddressSpan,
    Among,
    Chain,
    Dispatch,
    Element,
    Field,
    InSet,
    IsUnicast,
    Jump,
    Match,
    NamedSet,
    Remember,
    Rule,
    Ruleset,
    Span,
    Value,
    Verdict,
    VerdictMap,
)

Json = Any  # nft's schema has no common static type
_META = frozenset(("iifname", "oifname"))


@dataclass(frozen=True, slots=True)
class Command:
    """One command for nft; ``origin`` is the interface whose document asked for it, or ""."""

    body: Json
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """The names in the kernel's table; None instead of it where there is no table."""

    sets: frozenset[str]
    maps: frozenset[str]
    chains: frozenset[str]


def to_json(commands: Iterable[Command]) -> str:
    """The text that nft reads as one transaction."""
    return json.dumps({"nftables": [command.body for command in commands]})


def remove(present: Present | None) -> list[Command]:
    """Take the table away."""
    return [] if present is None else [_command("delete", "table", family=FAMILY, name=TABLE)]


def replace(present: Present | None, wanted: Ruleset) -> list[Command]:
    """From whatever is in the table to the ruleset; only flows stay."""
    flows = {name for name, item in wanted.sets.items() if item.flows_max}
    commands, kept = _emptied(present, flows)
    for name, item in wanted.sets.items():
        if name not in kept:
            commands.append(_new_set(name, item))
            commands += _elements("add", name, item.elements)
    commands += [_new_map(name) for name in wanted.maps]
    commands += [_new_chain(name, chain) for name, chain in wanted.chains.items()]
    for name, chain in wanted.chains.items():
        commands += _rules(name, chain)
    for name, mapping in wanted.maps.items():
        commands += _jumps("add", name, mapping.elements, returns=mapping.returns)
    return commands


def restore(present: Present | None, snapshot: str) -> list[Command]:
    """From whatever is in the table to a snapshot of it, see ``nft``; only flows stay."""
    items: list[dict[str, Json]] = json.loads(snapshot)
    flows = {item["set"]["name"] for item in items if "timeout" in item.get("set", {})}
    commands, kept = _emptied(present, flows)
    # A map's elements name chains, and rules name all.
    for kind in ("chain", "set", "map", "rule"):
        commands += [
            Command({"add": item})
            for item in items
            if kind in item and item[kind].get("name") not in kept
        ]
    return commands


def _emptied(present: Present | None, flows: set[str]) -> tuple[list[Command], set[str]]:
    """Commands that leave of the table these sets alone, and those of them that are there."""
    commands = [_command("add", "table", family=FAMILY, name=TABLE)]
    if present is None:
        return commands, set()
    kept = flows & present.sets
    commands += [_named("flush", "chain", name) for name in sorted(present.chains)]
    commands += [_named("delete", "map", name) for name in sorted(present.maps)]
    commands += [_named("delete", "chain", name) for name in sorted(present.chains)]
    commands += [_named("delete", "set", name) for name in sorted(present.sets - kept)]
    return commands, kept


def change(known: Ruleset, wanted: Ruleset) -> list[Command]:
    """From a ruleset that is in force as it was sent to another; flows and counts stay."""
    new_sets = [name for name in wanted.sets if name not in known.sets]
    new_chains = [name for name in wanted.chains if name not in known.chains]
    changed = [
        name
        for name, chain in wanted.chains.items()
        if name in known.chains and known.chains[name].rules != chain.rules
    ]
    commands = [_new_set(name, wanted.sets[name]) for name in new_sets]
    for name, item in wanted.sets.items():
        commands += _changed_elements(name, known.sets.get(name), item)
    commands += [_new_chain(name, wanted.chains[name]) for name in new_chains]
    commands += [_named("flush", "chain", name) for name in changed]
    for name in (*new_chains, *changed):
        commands += _rules(name, wanted.chains[name])
    for name, mapping in wanted.maps.items():
        commands += _changed_jumps(name, known.maps[name], mapping)
    gone = [name for name in known.chains if name not in wanted.chains]
    commands += [_named("flush", "chain", name) for name in gone]
    commands += [_named("delete", "chain", name) for name in gone]
    commands += [_named("delete", "set", name) for name in known.sets if name not in wanted.sets]
    return commands


def _changed_elements(name: str, known: NamedSet | None, wanted: NamedSet) -> Iterator[Command]:
    before: Mapping[Element, str] = {} if known is None else known.elements
    gone = {key: origin for key, origin in before.items() if key not in wanted.elements}
    new = {key: origin for key, origin in wanted.elements.items() if key not in before}
    yield from _elements("delete", name, gone)
    yield from _elements("add", name, new)


def _changed_jumps(name: str, known: VerdictMap, wanted: VerdictMap) -> Iterator[Command]:
    gone = {k: v for k, v in known.elements.items() if wanted.elements.get(k) != v}
    new = {k: v for k, v in wanted.elements.items() if known.elements.get(k) != v}
    yield from _jumps("delete", name, gone, returns=wanted.returns)
    yield from _jumps("add", name, new, returns=wanted.returns)


def _command(verb: str, kind: str, *, origin: str = "", **fields: Json) -> Command:
    return Command({verb: {kind: fields}}, origin)


def _named(verb: str, kind: str, name: str) -> Command:
    return _command(verb, kind, family=FAMILY, table=TABLE, name=name)


def _new_set(name: str, item: NamedSet) -> Command:
    fields: dict[str, Json] = {"type": item.types[0] if len(item.types) == 1 else list(item.types)}
    if item.has_spans:
        fields["flags"] = ["interval"]
    if item.counted:
        fields["stmt"] = [{"counter": None}]
    if item.flows_max:
        fields |= {"flags": ["timeout"], "size": item.flows_max, "timeout": 60}
    return _command("add", "set", family=FAMILY, table=TABLE, name=name, **fields)


def _new_map(name: str) -> Command:
    return _command(
        "add", "map", family=FAMILY, table=TABLE, name=name, type="ifname", map="verdict"
    )


def _new_chain(name: str, chain: Chain) -> Command:
    fields: dict[str, Json] = {}
    if chain.hook is not None:
        fields = {
            "type": "filter",
            "hook": chain.hook.name,
            "prio": chain.hook.priority,
            "policy": "accept",
        }
    return _command(
        "add", "chain", origin=chain.origin, family=FAMILY, table=TABLE, name=name, **fields
    )


def _elements(verb: str, name: str, elements: Mapping[Element, str]) -> Iterator[Command]:
    if elements:
        found = [_key(key) for key in elements]
        yield _element_command(verb, name, found, elements.values())


def _key(key: Element) -> Json:
    values = [_value(value) for value in key]
    return values[0] if len(values) == 1 else {"concat": values}


def _jumps(
    verb: str, name: str, elements: Mapping[str, str], *, returns: bool
) -> Iterator[Command]:
    if elements:
        kind = "jump" if returns else "goto"
        found = [[key, {kind: {"target": chain}}] for key, chain in elements.items()]
        yield _element_command(verb, name, found, elements)


def _element_command(verb: str, name: str, found: Json, origins: Iterable[str]) -> Command:
    distinct = set(origins)
    origin = distinct.pop() if len(distinct) == 1 else ""
    return _command(
        verb, "element", origin=origin, family=FAMILY, table=TABLE, name=name, elem=found
    )


def _rules(name: str, chain: Chain) -> Iterator[Command]:
    for rule in chain.rules:
        fields: dict[str, Json] = {"expr": _statements(rule)}
        if rule.comment:
            fields["comment"] = rule.comment
        yield _command(
            "add", "rule", origin=chain.origin, family=FAMILY, table=TABLE, chain=name, **fields
        )


def _statements(rule: Rule) -> list[Json]:
    found: list[Json] = [_match(match) for match in rule.matches]
    if rule.limit_per_s is not None:
        found.append({"limit": {"rate": rule.limit_per_s, "per": "second"}})
    if rule.remember is not None:
        found.append(_remember(rule.remember))
    match rule.action:
        case Verdict():
            found.append({rule.action.value: None})
        case Jump():
            verb = "goto" if rule.action.is_final else "jump"
            found.append({verb: {"target": rule.action.chain}})
        case Dispatch():
            key = _fields(rule.action.fields)
            found.append({"vmap": {"key": key, "data": f"@{rule.action.name}"}})
    return found


def _remember(item: Remember) -> Json:
    element = {"elem": {"val": _fields(item.fields), "timeout": item.timeout_s}}
    fields: dict[str, Json] = {"op": "update", "elem": element, "set": f"@{item.name}"}
    if item.rate_per_s is not None:
        fields["stmt"] = [{"limit": {"rate": item.rate_per_s, "per": "second"}}]
    return {"set": fields}


def _match(match: Match) -> Json:
    if isinstance(match, InSet):
        operator = "!=" if match.negated else "=="
        return _compare(operator, _fields(match.fields), f"@{match.name}")
    if isinstance(match, IsUnicast):
        masked = {"&": [_field(Field.ETHER_DESTINATION), "01:00:00:00:00:00"]}
        return _compare("==", masked, "00:00:00:00:00:00")
    assert isinstance(match, Among), "all kinds of matches are handled"
    values = [_value(value) for value in match.values]
    right = values[0] if len(values) == 1 else {"set": values}
    return _compare("!=" if match.negated else "==", _field(match.field), right)


def _compare(operator: str, left: Json, right: Json) -> Json:
    return {"match": {"op": operator, "left": left, "right": right}}


def _value(value: Value) -> Json:
    match value:
        case Span():
            return {"range": [value.first, value.last]}
        case AddressSpan():
            return {"range": [value.first, value.last]}
        case _:
            return value


def _fields(fields: tuple[Field, ...]) -> Json:
    return _field(fields[0]) if len(fields) == 1 else {"concat": [_field(f) for f in fields]}


def _field(field: Field) -> Json:
    text = field.value
    if text in _META:
        return {"meta": {"key": text}}
    if text.startswith("@"):
        base, offset, length = text[1:].split(",")
        return {"payload": {"base": base, "offset": int(offset), "len": int(length)}}
    protocol, _, name = text.partition(" ")
    if protocol == "meta":
        return {"meta": {"key": name}}
    return {"payload": {"protocol": protocol, "field": name}}
