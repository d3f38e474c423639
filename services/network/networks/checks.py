"""What the fields of a networks document must be; each message says what is expected."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from services.network.model import LINK_NAME_BYTES_MAX

NAME_MAX = 32
_NAME = re.compile(rf"[a-z0-9]([a-z0-9-]{{0,{NAME_MAX - 2}}}[a-z0-9])?")
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def check_name(text: str, what: str) -> None:
    """Raise ValueError unless it can be a network's name."""
    if _NAME.fullmatch(text) is None:
        raise ValueError(
            f"{what} is {text!r:.60}; expected 1 to {NAME_MAX} small letters, digits and dashes"
        )


def check_link(text: str, what: str) -> None:
    """Raise ValueError unless it can be a link's name."""
    if len(text) > LINK_NAME_BYTES_MAX or _LINK.fullmatch(text) is None:
        raise ValueError(
            f"{what} is {text!r:.60}; a link name has 1 to {LINK_NAME_BYTES_MAX} letters, digits, "
            "dots, dashes and underscores"
        )


def check_range(what: str, number: int, least: int, most: int) -> None:
    """Raise ValueError unless it is within the bounds."""
    if not least <= number <= most:
        raise ValueError(f"{what} is {number}; expected {least} to {most}")


def check_count(what: str, items: tuple[object, ...], most: int) -> None:
    """Raise ValueError where there are more than allowed."""
    if len(items) > most:
        raise ValueError(f"{what} has {len(items)} entries; at most {most} are allowed")


def check_mac(text: str, what: str) -> None:
    """Raise ValueError unless it is one card's hardware address."""
    if _MAC.fullmatch(text) is None:
        raise ValueError(f"{what} is {text!r:.60}; write it as 52:54:00:12:34:56, in small letters")
    if int(text[:2], 16) & 1:
        raise ValueError(f"{what} {text} is a multicast address")


def check_unicast(text: str, what: str) -> Address:
    """The address, which must be one that a host can have.

    Raises:
        ValueError: it is none.
    """
    try:
        found = ipaddress.ip_address(text)
    except ValueError as exc:
        raise ValueError(f"{what} is {text!r:.60}, which is no address") from exc
    if found.is_multicast or found.is_unspecified or found.is_loopback:
        raise ValueError(f"{what} is {text}, which no host can have on a network")
    return found


def check_interface(text: str, what: str) -> Interface:
    """The address with its network, such as ``10.20.0.1/24``.

    Raises:
        ValueError: it is none, has no prefix length, or is the network itself.
    """
    try:
        found = ipaddress.ip_interface(text)
    except ValueError as exc:
        raise ValueError(f"{what} is {text!r:.60}; write it as 10.20.0.1/24") from exc
    if "/" not in text:
        raise ValueError(f"{what} is {text!r:.60}; it needs a prefix length, as 10.20.0.1/24")
    check_unicast(str(found.ip), what)
    network = found.network
    is_narrow = network.max_prefixlen - network.prefixlen < 2  # RFC 3021 and single addresses
    is_edge = found.ip in (network.network_address, network.broadcast_address)
    if found.version == 4 and not is_narrow and is_edge:
        raise ValueError(f"{what} is {text}, which is the network's own or its broadcast address")
    return found


def refuse_doubles(things: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError where two places say the same.

    Args:
        things: where something is said, and what.
    """
    seen: dict[str, str] = {}
    for place, thing in things:
        if thing in seen:
            raise ValueError(f"{place}: {thing} is said by {seen[thing]} already")
        seen[thing] = place


def refuse_overlaps(things: Iterable[tuple[str, str, str]]) -> None:
    """Raise ValueError where one address is said twice, or bridges share a part of a network.

    Several addresses of one network on one bridge are fine. So are link-local networks: every
    link has them, each for itself.

    Args:
        things: where an address is said, of which bridge, and the address with its network.
    """
    found: list[tuple[Interface, str, str]] = []
    seen: dict[str, str] = {}
    for place, bridge, text in things:
        interface = ipaddress.ip_interface(text)
        key = f"{bridge} {interface.ip}" if interface.is_link_local else str(interface.ip)
        if key in seen:
            raise ValueError(f"{place}: {interface.ip} is said by {seen[key]} already")
        seen[key] = place
        if not interface.is_link_local:
            found.append((interface, bridge, place))
    # In the order of their first addresses, what overlaps any one before overlaps the widest.
    found.sort(key=lambda item: (item[0].version, int(item[0].network.network_address)))
    widest: tuple[Interface, str, str] | None = None
    for interface, bridge, place in found:
        if widest is None or widest[0].version != interface.version:
            widest = (interface, bridge, place)
            continue
        network, other = interface.network, widest[0].network
        is_shared = bridge == widest[1] and network == other
        if not is_shared and int(other.broadcast_address) >= int(network.network_address):
            raise ValueError(f"{place}: {interface} overlaps {widest[0]} of {widest[2]}")
        if int(other.broadcast_address) < int(network.broadcast_address):
            widest = (interface, bridge, place)
