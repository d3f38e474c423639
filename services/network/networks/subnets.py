"""Subnets in a networks document: gateway, how packets leave, DHCP and DNS."""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass

from services.network.networks.checks import (
    Address,
    Interface,
    check_count,
    check_interface,
    check_mac,
    check_range,
    check_unicast,
    refuse_doubles,
)

RESERVATIONS_MAX = 4096
UPSTREAMS_MAX = 8
LEASE_MIN_S = 120  # dnsmasq takes no shorter one
LEASE_MAX_S = 30 * 86400
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_DOMAIN_BYTES_MAX = 253  # RFC 1035, as text


class SubnetMode(enum.Enum):
    """How packets of a subnet leave the host."""

    NAT = "nat"  # with the host's address
    ROUTED = "routed"  # with their own; others need a route back
    ISOLATED = "isolated"  # not at all; the subnet's guests reach each other and the host


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An address that one card always gets.

    Attributes:
        mac: the card's hardware address.
        address: within the subnet; it may lie within the range.
        name: what DNS calls it, without the domain; "" for none.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    mac: str
    address: str
    name: str = ""

    def __post_init__(self) -> None:
        check_mac(self.mac, "mac")
        check_unicast(self.address, "address")
        if self.name and _HOST.fullmatch(self.name) is None:
            raise ValueError(
                f"name is {self.name!r:.70}; expected 1 to 63 small letters, digits and dashes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dhcp:
    """Addresses that are given out.

    Attributes:
        first, last: the range, both included; both "" for reservations alone.
        lease_s: how long an address is given for, 120 s to 30 days.
        reservations: addresses that one card always gets.

    Raises:
        ValueError: a field is out of its range, or fields contradict each other.
    """

    first: str = ""
    last: str = ""
    lease_s: int = 3600
    reservations: tuple[Reservation, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.first) != bool(self.last):
            raise ValueError("first and last belong together; name both or none")
        if not self.first and not self.reservations:
            raise ValueError("it gives out nothing: name first and last, or reservations")
        if self.first:
            first, last = check_unicast(self.first, "first"), check_unicast(self.last, "last")
            if first.version != last.version or int(first) > int(last):
                raise ValueError(f"first {self.first} is not before last {self.last}")
        check_range("lease_s", self.lease_s, LEASE_MIN_S, LEASE_MAX_S)
        check_count("reservations", self.reservations, RESERVATIONS_MAX)
        for key in ("mac", "address", "name"):
            refuse_doubles(
                (f"reservations[{index}].{key}", getattr(item, key))
                for index, item in enumerate(self.reservations)
                if getattr(item, key)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """Names for the subnet's guests, answered at the gateway's address.

    Attributes:
        domain: of the guests' names; "" for none.
        upstreams: servers that are asked for other names; none for those of the host.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    domain: str = ""
    upstreams: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.domain and (
            len(self.domain) > _DOMAIN_BYTES_MAX or _DOMAIN.fullmatch(self.domain) is None
        ):
            raise ValueError(
                f"domain is {self.domain!r:.70}; expected labels of small letters, digits and "
                "dashes with dots between"
            )
        check_count("upstreams", self.upstreams, UPSTREAMS_MAX)
        for index, text in enumerate(self.upstreams):
            check_upstream(text, f"upstreams[{index}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """An IP network on a bridge, with the host as its gateway.

    Attributes:
        gateway: the host's address with prefix length, such as ``10.20.0.1/24``.
        mode: how packets leave the host.
        dhcp: None to give out nothing.
        dns: None to answer no names.

    Raises:
        ValueError: a field is out of its range, or fields contradict each other.
    """

    gateway: str
    mode: SubnetMode = SubnetMode.NAT
    dhcp: Dhcp | None = None
    dns: Dns | None = None

    def __post_init__(self) -> None:
        interface = check_interface(self.gateway, "gateway")
        if interface.network.num_addresses < 4:
            raise ValueError(f"gateway is {self.gateway}; the network has no room for guests")
        if self.dhcp is None:
            return
        if self.dhcp.first:
            first = ipaddress.ip_address(self.dhcp.first)
            last = ipaddress.ip_address(self.dhcp.last)
            _check_within(first, interface, "dhcp.first")
            _check_within(last, interface, "dhcp.last")
            if int(first) <= int(interface.ip) <= int(last):
                raise ValueError(f"dhcp.first: the range holds the gateway {interface.ip} itself")
        for index, item in enumerate(self.dhcp.reservations):
            place = f"dhcp.reservations[{index}].address"
            address = ipaddress.ip_address(item.address)
            _check_within(address, interface, place)
            if address == interface.ip:
                raise ValueError(f"{place}: {address} is the gateway itself")

    @property
    def interface(self) -> Interface:
        """The gateway's address with its network."""
        return ipaddress.ip_interface(self.gateway)


def check_upstream(text: str, what: str) -> None:
    """Raise ValueError unless it is a DNS server's address, which may be one of the host."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError as exc:
        raise ValueError(f"{what} is {text!r:.60}, which is no address") from exc
    if found.is_multicast or found.is_unspecified:
        raise ValueError(f"{what} is {text}, which no server can have")


def _check_within(address: Address, interface: Interface, what: str) -> None:
    network = interface.network
    if address.version != network.version or address not in network:
        raise ValueError(f"{what}: {address} is not within {network}")
    if address.version == 4 and address in (network.network_address, network.broadcast_address):
        raise ValueError(f"{what}: {address} is the network's own or its broadcast address")
