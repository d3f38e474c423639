"""The configuration of one network's dnsmasq, as text. Pure.

Every value comes checked out of ``model`` and is written from its parsed form; ``_line`` refuses
whatever could still be more than one value, since dnsmasq's files have no way to quote.

Source: dnsmasq(8), version 2.90.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from services.network.serving.model import (
    LEASES_MAX,
    Mode,
    ServedNetwork,
    Subnet,
    split_upstream,
)

CACHE_NAMES = 1000
# RFC 4861 section 6.2.1: not more than 9000 s; three times the interval between advertisements.
_RA_LIFETIME_S = 1800
_RA_INTERVAL_S = 600
_VALUE = re.compile(r"[A-Za-z0-9._:/=,#@ \[\]+-]*")
# VU#598349: who is called so is asked by browsers and tunnels for their configuration.
_NAMES_REFUSED = ("wpad", "isatap")

Option = tuple[str, str | None]


def render(network: ServedNetwork, *, mtu: int | None = None) -> str:
    """The file that dnsmasq reads for a network.

    Args:
        network: checked.
        mtu: of the link, where the network names none.

    Raises:
        ValueError: a value would be more than one.
    """
    lines = ["# Written by NovaCron for one network; what is changed here is lost."]
    lines += [_line(key, value) for key, value in _options(network, network.mtu or mtu)]
    return "\n".join(lines) + "\n"


def _options(network: ServedNetwork, mtu: int | None) -> Iterator[Option]:
    yield "interface", network.link
    yield "except-interface", "lo"
    yield "bind-interfaces", None
    yield "no-hosts", None
    yield "log-facility", "-"
    yield from _dns([subnet for subnet in network.subnets if subnet.dns is not None])
    subnets = [subnet for subnet in network.subnets if subnet.dhcp]
    if not subnets:
        return
    yield from _dhcp(subnets)
    ip6 = [subnet for subnet in subnets if subnet.interface.version == 6]
    if ip6:
        yield "enable-ra", None
        yield "ra-param", _ra(network.link, ip6, mtu)
    for place, subnet in enumerate(subnets):
        yield from _subnet(f"subnet{place}", subnet, mtu)


def _dns(subnets: list[Subnet]) -> Iterator[Option]:
    found = [subnet.dns for subnet in subnets if subnet.dns is not None]
    if not any(dns.use_host_resolvers for dns in found):
        yield "no-resolv", None
    if not found:
        yield "port", "0"
        return
    yield "cache-size", str(CACHE_NAMES)
    yield "domain-needed", None
    yield "bogus-priv", None
    yield "localise-queries", None
    for upstream in dict.fromkeys(text for dns in found for text in dns.upstreams):
        address, port = split_upstream(upstream)
        yield "server", address if port is None else f"{address}#{port}"
    for subnet in subnets:
        if subnet.dns is not None and subnet.dns.domain:
            yield "domain", f"{subnet.dns.domain},{subnet.interface.network}"
    for domain in dict.fromkeys(dns.domain for dns in found if dns.domain):
        yield "local", f"/{domain}/"


def _dhcp(subnets: list[Subnet]) -> Iterator[Option]:
    yield "dhcp-authoritative", None
    yield "dhcp-no-override", None
    yield "no-ping", None  # a first answer would wait for three seconds
    room = sum(subnet.leases + len(subnet.reservations) for subnet in subnets)
    yield "dhcp-lease-max", str(max(1, min(LEASES_MAX, room)))
    for name in _NAMES_REFUSED:
        yield "dhcp-name-match", f"set:refused,{name}"
    yield "dhcp-ignore-names", "tag:refused"


def _ra(link: str, subnets: list[Subnet], mtu: int | None) -> str:
    """Without a router's lifetime machines take no default route from us."""
    carries = any(subnet.mode is not Mode.ISOLATED for subnet in subnets)
    said = f"mtu:{mtu}," if mtu is not None else ""
    return f"{link},{said}{_RA_INTERVAL_S},{_RA_LIFETIME_S if carries else 0}"


def _subnet(tag: str, subnet: Subnet, mtu: int | None) -> Iterator[Option]:
    own, lease = subnet.interface, f"{subnet.lease_s}s"
    is_ip6 = own.version == 6
    size = own.network.prefixlen if is_ip6 else own.netmask
    for item in subnet.ranges:
        yield "dhcp-range", f"set:{tag},{item.first},{item.last},{size},{lease}"
    if not subnet.ranges:
        yield "dhcp-range", f"set:{tag},{own.network.network_address},static,{size},{lease}"
    kind = "option6" if is_ip6 else "option"
    if subnet.dns is None:  # without a value dnsmasq does not name itself either
        yield "dhcp-option", f"tag:{tag},{kind}:dns-server"
    else:
        yield "dhcp-option", f"tag:{tag},{kind}:dns-server,{_bracketed(str(own.ip))}"
    if not is_ip6:
        router = "" if subnet.mode is Mode.ISOLATED else f",{own.ip}"
        yield "dhcp-option", f"tag:{tag},option:router{router}"
        if mtu is not None:
            yield "dhcp-option", f"tag:{tag},option:mtu,{mtu}"
    for reservation in subnet.reservations:
        words = (reservation.mac, _bracketed(reservation.address), reservation.hostname)
        yield "dhcp-host", ",".join(filter(None, words))
        if subnet.dns is not None and reservation.hostname and reservation.address:
            # Else the name were known only while the machine has a lease.
            name = ".".join(filter(None, (reservation.hostname, subnet.dns.domain)))
            yield "host-record", f"{name},{reservation.address}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _line(key: str, value: str | None) -> str:
    if value is None:
        return key
    if _VALUE.fullmatch(value) is None or value != value.strip():
        raise ValueError(f"{key} would be {value!r:.80}, which a line of dnsmasq's can't hold")
    return f"{key}={value}"
