"""What is served on a network: subnets, ranges, reservations and names, as checked values.

``translate`` makes these of a networks document. Every text that reaches a configuration
file is checked here against its own narrow grammar, so that none can hold a line of its own.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import NoReturn

NETWORKS_MAX = 512
SUBNETS_MAX = 32
RESERVATIONS_MAX = 4096
UPSTREAMS_MAX = 8
LEASE_MIN_S = 120  # dnsmasq's own least
LEASE_MAX_S = 365 * 86400
# More addresses than this in one range are no use to one host, and each lease costs memory.
LEASES_MAX = 65536
MTU_MIN = 576
MTU_MAX = 65535
# RFC 8200 section 5: IPv6 needs links of at least this.
MTU_IP6_MIN = 1280

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DOMAIN_LENGTH_MAX = 253
_PORT_MAX = 65535

Interface = IPv4Interface | IPv6Interface


class Mode(enum.Enum):
    """Which packets the host carries between a subnet and the world."""

    NAT = "nat"  # out, under the host's own address; back in only what answers
    ROUTED = "routed"  # both ways, under the subnet's own addresses
    ISOLATED = "isolated"  # none


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Addresses that are given out, both ends included."""

    first: str
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """One machine's own address.

    Attributes:
        mac: six pairs of small hex digits with colons.
        address: within the subnet; "" to reserve the name alone.
        hostname: one label; "" for none.
    """

    mac: str
    address: str = ""
    hostname: str = ""

    def __post_init__(self) -> None:
        _match(_MAC, self.mac, "mac", "six pairs of small hex digits with colons")
        if int(self.mac[:2], 16) & 1:
            _refuse("mac", self.mac, "a multicast address belongs to no machine")
        if self.hostname:
            _match(_LABEL, self.hostname, "hostname", "one label of letters, digits and dashes")
        if not self.address and not self.hostname:
            raise ValueError(f"the reservation of {self.mac} has neither address nor hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """Names on a subnet.

    Attributes:
        domain: of its machines; "" for none.
        upstreams: who is asked for other names, as ``address`` or ``address:port``
            (``[address]:port`` for IPv6).
        use_host_resolvers: ask those of the host's /etc/resolv.conf besides.
    """

    domain: str = ""
    upstreams: tuple[str, ...] = ()
    use_host_resolvers: bool = False

    def __post_init__(self) -> None:
        if self.domain:
            check_domain(self.domain)
        if len(self.upstreams) > UPSTREAMS_MAX:
            raise ValueError(f"{len(self.upstreams)} upstreams; {UPSTREAMS_MAX} are allowed")
        for item in self.upstreams:
            split_upstream(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One subnet of a network.

    Attributes:
        gateway: the host's address in it with prefix length, such as ``10.20.0.1/24``.
        mode: what is carried.
        dhcp: whether addresses are given out.
        ranges: that are given out; none gives out reservations alone.
        lease_s: for how long.
        reservations: own addresses.
        dns: None to answer no names.
    """

    gateway: str
    mode: Mode = Mode.NAT
    dhcp: bool = False
    ranges: tuple[Range, ...] = ()
    lease_s: int = 3600
    reservations: tuple[Reservation, ...] = ()
    dns: Dns | None = None

    def __post_init__(self) -> None:
        if "/" not in self.gateway:
            _refuse("gateway", self.gateway, "an address with prefix length")
        own = self.interface
        if own.version == 6 and own.scope_id is not None:
            _refuse("gateway", self.gateway, "an address without a zone")
        if not LEASE_MIN_S <= self.lease_s <= LEASE_MAX_S:
            raise ValueError(f"lease_s is {self.lease_s}; {LEASE_MIN_S} to {LEASE_MAX_S}")
        if len(self.reservations) > RESERVATIONS_MAX:
            raise ValueError(f"{len(self.reservations)} reservations; {RESERVATIONS_MAX} fit")
        if (self.ranges or self.reservations) and not self.dhcp:
            raise ValueError(f"{self.gateway} has ranges or reservations, and no dhcp")
        if own.version == 6 and self.dhcp and own.network.prefixlen < 64:
            raise ValueError(f"{self.gateway}: DHCPv6 takes a prefix of 64 bits or more")
        for item in self.ranges:
            self._check_range(item)
        self._check_reservations()

    @property
    def interface(self) -> Interface:
        """The gateway's address and its network."""
        return ipaddress.ip_interface(self.gateway)

    @property
    def leases(self) -> int:
        """How many addresses the ranges have."""
        return sum(
            int(ipaddress.ip_address(item.last)) - int(ipaddress.ip_address(item.first)) + 1
            for item in self.ranges
        )

    def _check_range(self, item: Range) -> None:
        first, last = self._own(item.first, "first"), self._own(item.last, "last")
        if int(last) < int(first):
            raise ValueError(f"the range {item.first} to {item.last} ends before it begins")
        if int(last) - int(first) >= LEASES_MAX:
            raise ValueError(f"the range {item.first} to {item.last} has more than {LEASES_MAX}")

    def _check_reservations(self) -> None:
        seen: set[str] = set()
        for item in self.reservations:
            if item.address:
                found = str(self._own(item.address, "address"))
                if found == str(self.interface.ip):
                    raise ValueError(f"{item.address} of {item.mac} is the gateway's own")
                if found in seen:
                    raise ValueError(f"{item.address} is reserved twice")
                seen.add(found)
            if item.mac in seen:
                raise ValueError(f"{item.mac} has two reservations in {self.gateway}")
            seen.add(item.mac)

    def _own(self, text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        found = _address(text, what)
        if found not in self.interface.network:
            raise ValueError(f"{what} is {text}, which is not in {self.interface.network}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedNetwork:
    """One network as it is served.

    Attributes:
        name: small letters, digits and dashes; up to 32.
        link: the bridge that the host's addresses are on.
        mtu: of the network; None for what the link has.
    """

    name: str
    link: str
    subnets: tuple[Subnet, ...] = ()
    mtu: int | None = None

    def __post_init__(self) -> None:
        _match(_NAME, self.name, "name", "small letters, digits and dashes")
        _match(_LINK, self.link, "link", "the name of a link")
        if len(self.subnets) > SUBNETS_MAX:
            raise ValueError(f"{self.name} has {len(self.subnets)} subnets; {SUBNETS_MAX} fit")
        has_ip6 = any(subnet.interface.version == 6 for subnet in self.subnets)
        least = MTU_IP6_MIN if has_ip6 else MTU_MIN
        if self.mtu is not None and not least <= self.mtu <= MTU_MAX:
            raise ValueError(f"{self.name}: mtu is {self.mtu}; {least} to {MTU_MAX}")
        nets = [subnet.interface.network for subnet in self.subnets]
        for place, net in enumerate(nets):
            for other in nets[:place]:
                if net.version == other.version and net.overlaps(other):
                    raise ValueError(f"{self.name}: the subnets {other} and {net} overlap")

    @property
    def needs_dnsmasq(self) -> bool:
        """Whether there is anything to give out or to answer."""
        return any(subnet.dhcp or subnet.dns is not None for subnet in self.subnets)


def check_networks(networks: tuple[ServedNetwork, ...]) -> None:
    """Check what several networks share.

    Raises:
        ValueError: a name or a link is used twice, or there are too many.
    """
    if len(networks) > NETWORKS_MAX:
        raise ValueError(f"{len(networks)} networks are served; {NETWORKS_MAX} are allowed")
    for what in ("name", "link"):
        found = [str(getattr(network, what)) for network in networks]
        if double := next((item for item in found if found.count(item) > 1), ""):
            raise ValueError(f"two networks have the {what} {double}")


def check_domain(text: str) -> None:
    """Check that a text is a domain's name.

    Raises:
        ValueError: it is none.
    """
    if len(text) > _DOMAIN_LENGTH_MAX:
        _refuse("domain", text, f"at most {_DOMAIN_LENGTH_MAX} letters")
    for label in text.split("."):
        _match(_LABEL, label, "domain", "labels of letters, digits and dashes, with dots between")


def split_upstream(text: str) -> tuple[str, int | None]:
    """The address and port of a server of names.

    Raises:
        ValueError: it is neither ``address`` nor ``address:port``.
    """
    address, port = text, ""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            _refuse("upstreams", text, "write [address]:port")
        port = rest[1:]
        if rest and not port:
            _refuse("upstreams", text, "write [address]:port")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
        if not port:
            _refuse("upstreams", text, "write address:port")
    found = _address(address, "upstreams")
    if not port:
        return str(found), None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= _PORT_MAX):
        _refuse("upstreams", text, "its port is not 1 to 65535")
    return str(found), int(port)


def _address(text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        _refuse(what, text, "an address")
    if found.version == 6 and found.scope_id is not None:
        _refuse(what, text, "an address without a zone")
    return found


def _match(pattern: re.Pattern[str], text: str, what: str, rule: str) -> None:
    if pattern.fullmatch(text) is None:
        _refuse(what, text, rule)


def _refuse(what: str, text: str, rule: str) -> NoReturn:
    raise ValueError(f"{what} is {text!r:.60}: {rule}")
