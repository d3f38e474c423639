"""The table ``inet novacron-networks`` for the served networks, as commands for nft. Pure.

    forward      within one network (bridges hand packets to us with br_netfilter): accept;
                 from a network of ours -> from;  to one of ours -> to;  between others through a
                 door that we opened -> drop
    from         the source is in a subnet that is carried: return, else drop
    to           the destination is routed, or NAT and the packet answers: return, else drop
    postrouting  from a NAT subnet out of a link that is not ours: masquerade

What is not dropped goes on to the other tables, whose drops count as well. The whole table is
replaced in one transaction; connection tracking is no part of it, so connections live on.

Source: libnftables-json(5), schema version 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from services.network.segments.render import Command
from services.network.serving.model import Mode, ServedNetwork

FAMILY = "inet"
TABLE = "novacron-networks"
_FILTER = 0
_SOURCE_NAT = 100
_PREFIX = {4: "ip", 6: "ip6"}

Json = Any  # nft's schema has no common static type


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What of the host's forwarding was opened for the networks alone.

    Attributes:
        ip4: links that packets may come in by since we turned forwarding on for them.
        ip6: forwarding of IPv6, which the kernel has for all links together, is our doing.
        clamped: links whose MTU differs from the one towards the world.
    """

    ip4: tuple[str, ...] = ()
    ip6: bool = False
    clamped: tuple[str, ...] = ()


def render(networks: Iterable[ServedNetwork], doors: Doors, *, is_present: bool) -> list[Command]:
    """The commands that make our table what the networks need; none of them, no table.

    Args:
        networks: that are served.
        doors: what we opened.
        is_present: whether the kernel has a table of ours now.
    """
    listed = [network for network in networks if network.subnets]
    commands: list[Command] = []
    if is_present or listed:
        # To delete a table that is not there is an error; to add one that is there is none.
        commands += [_table("add"), _table("delete")]
    if listed:
        commands += [_table("add"), *_sets(listed, doors), *_chains(doors)]
    return commands


def _sets(networks: list[ServedNetwork], doors: Doors) -> Iterator[Command]:
    links = [network.link for network in networks]
    yield _set("links", "ifname", links)
    yield _set("within", ["ifname", "ifname"], [{"concat": [link, link]} for link in links])
    yield _set("doors", "ifname", list(doors.ip4))
    yield _set("clamped", "ifname", list(doors.clamped))
    for version in (4, 6):
        kind = f"ipv{version}_addr"
        for mode in (Mode.NAT, Mode.ROUTED):
            found = [
                (network.link, subnet.interface.network)
                for network in networks
                for subnet in network.subnets
                if subnet.mode is mode and subnet.interface.version == version
            ]
            pairs = [{"concat": [link, _prefix(net)]} for link, net in found]
            yield _set(f"{mode.value}{version}", ["ifname", kind], pairs, has_spans=True)
            if mode is Mode.NAT:
                nets = sorted({net for _, net in found}, key=str)
                yield _set(
                    f"sources{version}", kind, [_prefix(net) for net in nets], has_spans=True
                )


def _chains(doors: Doors) -> Iterator[Command]:
    yield _chain("forward", {"type": "filter", "hook": "forward", "prio": _FILTER})
    yield _chain("from")
    yield _chain("to")
    yield _chain("postrouting", {"type": "nat", "hook": "postrouting", "prio": _SOURCE_NAT})
    if doors.clamped:
        yield _rule("forward", _in("iifname", "clamped"), *_CLAMP)
        yield _rule("forward", _in("oifname", "clamped"), *_CLAMP)
    same = {"concat": [{"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}]}
    yield _rule("forward", _match(same, "@within"), {"accept": None})
    yield _rule("forward", _in("iifname", "links"), {"jump": {"target": "from"}})
    yield _rule("forward", _in("oifname", "links"), {"jump": {"target": "to"}})
    others = (_in("iifname", "links", negated=True), _in("oifname", "links", negated=True))
    if doors.ip4:
        comment = "forwarding is on for networks of this node alone"
        door = (_is("nfproto", "ipv4"), _in("iifname", "doors"), others[1])
        yield _rule("forward", *door, {"drop": None}, comment=comment)
    if doors.ip6:
        comment = "forwarding is on for networks of this node alone"
        yield _rule("forward", _is("nfproto", "ipv6"), *others, {"drop": None}, comment=comment)
    for version in (4, 6):
        for mode in (Mode.NAT, Mode.ROUTED):
            yield _rule("from", _pair("iifname", "saddr", mode, version), {"return": None})
    yield _rule("from", {"drop": None}, comment="of no subnet that is carried")
    for version in (4, 6):
        yield _rule("to", _pair("oifname", "daddr", Mode.ROUTED, version), {"return": None})
    yield _rule("to", _ANSWERS, {"return": None})
    yield _rule("to", {"drop": None}, comment="no answer, and no routed subnet")
    for version in (4, 6):
        source = _match(_payload(version, "saddr"), f"@sources{version}")
        out = _in("oifname", "links", negated=True)
        yield _rule("postrouting", source, out, {"masquerade": None})


# Answers to an isolated subnet can't be: ``from`` let nothing of it out.
_ANSWERS: Json = {
    "match": {
        "op": "in",
        "left": {"ct": {"key": "state"}},
        "right": ["established", "related"],
    }
}
# A SYN names the largest segment that its sender takes; on the way it may only become smaller.
_CLAMP: tuple[Json, ...] = (
    {
        "match": {
            "op": "==",
            "left": {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["syn", "rst"]]},
            "right": "syn",
        }
    },
    {
        "mangle": {
            "key": {"tcp option": {"name": "maxseg", "field": "size"}},
            "value": {"rt": {"key": "mtu"}},
        }
    },
)


def _table(verb: str) -> Command:
    return Command({verb: {"table": {"family": FAMILY, "name": TABLE}}})


def _set(
    name: str, kind: str | list[str], elements: list[Json], *, has_spans: bool = False
) -> Command:
    fields: dict[str, Json] = {"family": FAMILY, "table": TABLE, "name": name, "type": kind}
    if has_spans:
        fields["flags"] = ["interval"]
    if elements:
        fields["elem"] = elements
    return Command({"add": {"set": fields}})


def _chain(name: str, hook: dict[str, Json] | None = None) -> Command:
    fields: dict[str, Json] = {"family": FAMILY, "table": TABLE, "name": name}
    if hook is not None:
        fields |= {**hook, "policy": "accept"}
    return Command({"add": {"chain": fields}})


def _rule(chain: str, *expressions: Json, comment: str = "") -> Command:
    fields: dict[str, Json] = {
        "family": FAMILY,
        "table": TABLE,
        "chain": chain,
        "expr": list(expressions),
    }
    if comment:
        fields["comment"] = comment
    return Command({"add": {"rule": fields}})


def _match(left: Json, right: Json, *, negated: bool = False) -> Json:
    return {"match": {"op": "!=" if negated else "==", "left": left, "right": right}}


def _in(key: str, name: str, *, negated: bool = False) -> Json:
    return _match({"meta": {"key": key}}, f"@{name}", negated=negated)


def _is(key: str, value: str) -> Json:
    return _match({"meta": {"key": key}}, value)


def _payload(version: int, field: str) -> Json:
    return {"payload": {"protocol": _PREFIX[version], "field": field}}


def _pair(key: str, field: str, mode: Mode, version: int) -> Json:
    left = {"concat": [{"meta": {"key": key}}, _payload(version, field)]}
    return _match(left, f"@{mode.value}{version}")


def _prefix(net: IPv4Network | IPv6Network) -> Json:
    return {"prefix": {"addr": str(net.network_address), "len": net.prefixlen}}
