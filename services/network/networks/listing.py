"""The kernel's lists of links, remotes and routes, as far as networks need them: requests, answers.

    ndmsg   family u8, -, -, index i32, state u16, flags u8, type u8
    rtmsg   family u8, destination length u8, source length u8, tos u8, table u8, protocol u8,
            scope u8, type u8, flags u32

Source: rtnetlink(7), linux/if_link.h, linux/neighbour.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from services.network.model import Link
from services.network.networks.observed import SeenLink, SeenRoute, SeenVxlan
from services.network.rtnetlink import Listing, attributes, number

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ROUTE = struct.Struct("=BBBBBBBBI")
_HOP = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")

_NEW_NEIGHBOUR, _GET_NEIGHBOUR, _NEW_ROUTE, _GET_ROUTE = 28, 30, 24, 26
_DUMP_REQUEST = 0x001 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_AF_BRIDGE = 7
_IFLA_LINK, _IFLA_LINK_NETNSID, _IFLA_INFO_DATA = 5, 37, 2
_IFLA_VLAN_ID, _IFLA_BR_STP_STATE = 1, 5
_IFLA_VXLAN_ID, _IFLA_VXLAN_GROUP, _IFLA_VXLAN_LINK, _IFLA_VXLAN_LOCAL = 1, 2, 3, 4
_IFLA_VXLAN_PORT, _IFLA_VXLAN_GROUP6, _IFLA_VXLAN_LOCAL6 = 15, 16, 17
_NDA_DST, _NDA_LLADDR = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH = 1, 4, 5, 7, 9
# By itself, for an address (RTPROT_KERNEL), or as a router told it (RTPROT_RA).
_MADE_BY_KERNEL = (2, 9)
_TABLE_MAIN, _UNICAST = 254, 1
_NTF_USE = 0x01
# States of a neighbour, linux/neighbour.h.
NUD_REACHABLE, NUD_PROBE, NUD_FAILED = 0x02, 0x10, 0x20
NUD_INCOMPLETE, NUD_NOARP, NUD_PERMANENT = 0x01, 0x40, 0x80


@dataclass(slots=True)
class LinkListing(Listing):
    """As ``Listing``, with what a plan needs beside."""

    seen: list[SeenLink] = field(default_factory=list)

    def note(
        self, link: Link, found: Mapping[int, memoryview], details: Mapping[int, memoryview]
    ) -> None:
        """Take in the kind's own attributes."""
        # Of a link whose lower one is in another namespace, the number means nothing here.
        carrier = None if _IFLA_LINK_NETNSID in found else number(found, _IFLA_LINK)
        data = attributes(details.get(_IFLA_INFO_DATA, memoryview(b"")))
        vlan_id, vxlan, stp = None, None, False
        if link.kind == "vlan" and _IFLA_VLAN_ID in data:
            vlan_id = int.from_bytes(data[_IFLA_VLAN_ID], "little" if _IS_LITTLE else "big")
        elif link.kind == "vxlan":
            vxlan = _vxlan(data)
        elif link.kind == "bridge":
            stp = bool(number(data, _IFLA_BR_STP_STATE))
        self.seen.append(
            SeenLink(link=link, carrier_index=carrier, vlan_id=vlan_id, vxlan=vxlan, stp=stp)
        )


_IS_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A gateway that packets for everywhere go to, and the number of the link to it."""

    gateway: str
    index: int


def remotes_request(index: int) -> bytes:
    """Ask for where a VXLAN link sends to."""
    return _HEADER.pack(
        _HEADER.size + _LINK.size, _GET_NEIGHBOUR, _DUMP_REQUEST, 1, 0
    ) + _LINK.pack(_AF_BRIDGE, 0, index, 0, 0)


def remotes_in(found: Iterable[tuple[int, int, int, memoryview]], index: int) -> Iterator[str]:
    """The addresses of a link that what is not known to be elsewhere is sent to."""
    for kind, _flags, _sequence, payload in found:
        if kind != _NEW_NEIGHBOUR or _NEIGHBOUR.unpack_from(payload)[1] != index:
            continue
        entry = attributes(payload[_NEIGHBOUR.size :])
        destination = entry.get(_NDA_DST)
        if destination is not None and bytes(entry.get(_NDA_LLADDR, b"")) == bytes(6):
            yield str(ipaddress.ip_address(bytes(destination)))


def routes_request(family: int) -> bytes:
    """Ask for the routes of a family."""
    return _HEADER.pack(_HEADER.size + _ROUTE.size, _GET_ROUTE, _DUMP_REQUEST, 1, 0) + _ROUTE.pack(
        family, 0, 0, 0, 0, 0, 0, 0, 0
    )


def gateways_in(found: Iterable[tuple[int, int, int, memoryview]]) -> Iterator[DefaultRoute]:
    """The gateways of default routes in the main table."""
    for kind, _flags, _sequence, payload in found:
        if kind != _NEW_ROUTE:
            continue
        family, length, _, _, table, _, _, route_type, _ = _ROUTE.unpack_from(payload)
        if length or route_type != _UNICAST or table != _TABLE_MAIN:
            continue
        values = attributes(payload[_ROUTE.size :])
        yield from (hop for hop in _all_hops(family, values) if hop.gateway)


def routes_over(
    found: Iterable[tuple[int, int, int, memoryview]], indexes: Container[int]
) -> Iterator[SeenRoute]:
    """The routes over some links that the kernel did not make by itself."""
    for kind, _flags, _sequence, payload in found:
        if kind != _NEW_ROUTE:
            continue
        family, length, _, _, _, protocol, _, _, _ = _ROUTE.unpack_from(payload)
        if protocol in _MADE_BY_KERNEL:
            continue
        values = attributes(payload[_ROUTE.size :])
        hops = list(_all_hops(family, values))
        for hop in hops:
            if hop.index in indexes:
                target = values.get(_RTA_DST)
                source = values.get(_RTA_PREFSRC)
                yield SeenRoute(
                    index=hop.index,
                    destination=f"{socket.inet_ntop(family, target)}/{length}" if target
                    else "default",
                    gateway=hop.gateway,
                    source=socket.inet_ntop(family, source) if source else "",
                )  # fmt: skip


def neighbour_request(index: int, address: str) -> bytes:
    """Ask how the kernel knows a neighbour."""
    return _neighbour(_GET_NEIGHBOUR, 0x001, index, address)


def find_request(index: int, address: str) -> bytes:
    """Have the kernel find a neighbour that it does not know, as a packet to it would."""
    # NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    return _neighbour(_NEW_NEIGHBOUR, 0x001 | 0x004 | 0x400, index, address, flags=_NTF_USE)


def probe_request(index: int, address: str) -> bytes:
    """Have the kernel ask a neighbour that it knows whether it is still there."""
    # NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE
    return _neighbour(_NEW_NEIGHBOUR, 0x001 | 0x004 | 0x100, index, address, state=NUD_PROBE)


def state_in(found: Iterable[tuple[int, int, int, memoryview]]) -> int:
    """The state of the neighbour that was asked for; 0 where it is not known."""
    for kind, _flags, _sequence, payload in found:
        if kind == _NEW_NEIGHBOUR:
            return int(_NEIGHBOUR.unpack_from(payload)[2])
    return 0


def _neighbour(
    kind: int, request: int, index: int, address: str, *, state: int = 0, flags: int = 0
) -> bytes:
    found = ipaddress.ip_address(address)
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    payload = _NEIGHBOUR.pack(family, index, state, flags, 0)
    payload += struct.pack("=HH", 4 + len(found.packed), _NDA_DST) + found.packed
    return _HEADER.pack(_HEADER.size + len(payload), kind, request, 1, 0) + payload


def _all_hops(family: int, values: Mapping[int, memoryview]) -> Iterator[DefaultRoute]:
    """Where a route leads: links, and gateways, "" for none."""
    if index := number(values, _RTA_OIF):
        yield DefaultRoute(_gateway(family, values), index)
    yield from _multipath(family, values.get(_RTA_MULTIPATH, memoryview(b"")))


def _gateway(family: int, values: Mapping[int, memoryview]) -> str:
    found = values.get(_RTA_GATEWAY)
    return "" if found is None else socket.inet_ntop(family, found)


def _multipath(family: int, view: memoryview) -> Iterator[DefaultRoute]:
    start = 0
    while start + _HOP.size <= len(view):
        length, _flags, _hops_count, index = _HOP.unpack_from(view, start)
        if not _HOP.size <= length <= len(view) - start:
            return
        values = attributes(view[start + _HOP.size : start + length])
        yield DefaultRoute(_gateway(family, values), index)
        start += (length + 3) & ~3


def _vxlan(data: Mapping[int, memoryview]) -> SeenVxlan:
    return SeenVxlan(
        vni=number(data, _IFLA_VXLAN_ID) or 0,
        local=_address(data, _IFLA_VXLAN_LOCAL, _IFLA_VXLAN_LOCAL6),
        group=_address(data, _IFLA_VXLAN_GROUP, _IFLA_VXLAN_GROUP6),
        carrier_index=number(data, _IFLA_VXLAN_LINK) or 0,
        port=int.from_bytes(data.get(_IFLA_VXLAN_PORT, b""), "big"),
    )


def _address(data: Mapping[int, memoryview], of_4: int, of_6: int) -> str:
    value = data.get(of_4) or data.get(of_6)
    if not value or not any(value):
        return ""
    return str(ipaddress.ip_address(bytes(value)))
