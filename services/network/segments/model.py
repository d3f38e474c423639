"""The document that says which interface may speak with whom; everything else is dropped.

guarded: ["vnet*"]            names that are dropped entirely unless an interface is listed
trusted: []                   ports that may carry guests' addresses, such as a second bridge
elsewhere: {app: [10.0.0.9]}  addresses of a label's members on other hosts
interfaces:
- name: vnet0
mac: 52:54:00:00:00:01
addresses: [10.20.0.11, "fd00:20::11"]
labels: [web]
dhcp: true
rules:
- {direction: in, peers: ["label:app", 192.0.2.0/24], protocol: tcp, ports: ["443"]}
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.network.model import LINK_NAME_BYTES_MAX

# A message holds 1 MiB, and an interface with a rule takes some 200 bytes of it.
INTERFACES_MAX = 4096
RULES_MAX = 64
PEERS_MAX = 64
PORTS_MAX = 32
ADDRESSES_MAX = 16
LABELS_MAX = 16
PATTERNS_MAX = 16
ELSEWHERE_MAX = 4096
LABEL_PREFIX = "label:"
ANY = "any"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\*?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_RULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Direction(enum.Enum):
    """As the guest sees it."""

    IN = "in"
    OUT = "out"


class IpProtocol(enum.Enum):
    """What a rule is about; ``icmp`` means ICMPv6 for IPv6 peers."""

    ANY = "any"
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    ICMP = "icmp"


WITH_PORTS = frozenset((IpProtocol.TCP, IpProtocol.UDP, IpProtocol.SCTP))


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRule:
    """What one interface may begin or be asked for; answers need no rule.

    Attributes:
        direction: ``in`` to the guest, ``out`` of it.
        peers: each ``label:<name>``, an address, a network, or ``any``; at least one.
        protocol: ``any``, ``tcp``, ``udp``, ``sctp`` or ``icmp``.
        ports: destination ports as ``443`` or ``8000-8099``; none means all.
        name: shown by ``trace`` and in the ruleset; "" for its place, such as ``in 1``.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    direction: Direction
    peers: tuple[str, ...]
    protocol: IpProtocol = IpProtocol.ANY
    ports: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        _check_count("peers", self.peers, PEERS_MAX, least=1)
        _check_count("ports", self.ports, PORTS_MAX)
        for peer in self.peers:
            _check_peer(peer)
        for port in self.ports:
            parse_ports(port)
        if self.ports and self.protocol not in WITH_PORTS:
            raise ValueError(f"ports need the protocol tcp, udp or sctp, not {self.protocol.value}")
        if self.name and _RULE_NAME.fullmatch(self.name) is None:
            raise ValueError(
                f"name is {self.name!r:.60}; a rule's name has 1 to 40 letters, digits, blanks, "
                "dots, dashes and underscores"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels among the peers."""
        return tuple(
            peer.removeprefix(LABEL_PREFIX) for peer in self.peers if peer.startswith(LABEL_PREFIX)
        )

    @property
    def networks(self) -> tuple[Network, ...]:
        """The addresses and networks among the peers."""
        return tuple(
            ipaddress.ip_network(peer)
            for peer in self.peers
            if peer != ANY and not peer.startswith(LABEL_PREFIX)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentInterface:
    """One guest's interface on the host.

    Attributes:
        name: the link's name on the host, such as ``vnet0``.
        mac: the hardware address that the guest must use.
        addresses: the addresses that it may use as source; for IPv6 also the link-local one that
            belongs to its hardware address.
        labels: groups that rules name it by.
        dhcp: it may ask for an address, and be answered by what is no guest here.
        rules: what is let through; nothing else is.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    name: str
    mac: str
    addresses: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    dhcp: bool = False
    rules: tuple[SegmentRule, ...] = ()

    def __post_init__(self) -> None:
        if len(self.name) > LINK_NAME_BYTES_MAX or _NAME.fullmatch(self.name) is None:
            raise ValueError(
                f"name is {self.name!r:.60}; a link name has 1 to {LINK_NAME_BYTES_MAX} letters, "
                "digits, dots, dashes and underscores"
            )
        if _MAC.fullmatch(self.mac) is None:
            raise ValueError(
                f"{self.name}: mac is {self.mac!r:.60}; write it as 52:54:00:12:34:56, in small "
                "letters"
            )
        if int(self.mac[:2], 16) & 1:
            raise ValueError(f"{self.name}: mac {self.mac} is a multicast address")
        _check_count(f"{self.name}: addresses", self.addresses, ADDRESSES_MAX)
        _check_count(f"{self.name}: labels", self.labels, LABELS_MAX)
        _check_count(f"{self.name}: rules", self.rules, RULES_MAX)
        for address in self.addresses:
            _check_source(address, f"{self.name}: addresses")
        for label in self.labels:
            _check_label(label, f"{self.name}: labels")

    @property
    def sources(self) -> tuple[Address, ...]:
        """All source addresses that it may use, sorted."""
        own = {ipaddress.ip_address(address) for address in self.addresses}
        if any(address.version == 6 for address in own):
            own.add(link_local(self.mac))
        return tuple(sorted(own, key=lambda address: (address.version, int(address))))


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentDocument:
    """Everything that is wanted on one host; see the module.

    Raises:
        ValueError: interfaces contradict each other, or a field is out of its range.
    """

    guarded: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    interfaces: tuple[SegmentInterface, ...] = ()

    def __post_init__(self) -> None:
        for title, patterns in (("guarded", self.guarded), ("trusted", self.trusted)):
            _check_count(title, patterns, PATTERNS_MAX)
            for pattern in patterns:
                _check_pattern(pattern, title)
        _check_count("interfaces", self.interfaces, INTERFACES_MAX)
        _check_count("elsewhere", tuple(self.elsewhere), ELSEWHERE_MAX)
        for label, addresses in self.elsewhere.items():
            _check_label(label, "elsewhere")
            _check_count(f"elsewhere.{label}", addresses, ELSEWHERE_MAX)
            for address in addresses:
                _check_source(address, f"elsewhere.{label}")
        _check_unique(self.interfaces)
        self._check_labels()

    @property
    def members(self) -> dict[str, tuple[Address, ...]]:
        """The addresses behind each label, here and elsewhere, sorted."""
        found: dict[str, set[Address]] = {
            label: {ipaddress.ip_address(address) for address in addresses}
            for label, addresses in self.elsewhere.items()
        }
        for interface in self.interfaces:
            for label in interface.labels:
                found.setdefault(label, set()).update(
                    address for address in interface.sources if not address.is_link_local
                )
        return {
            label: tuple(sorted(found[label], key=lambda address: (address.version, int(address))))
            for label in sorted(found)
        }

    def _check_labels(self) -> None:
        known = set(self.elsewhere)
        for interface in self.interfaces:
            known.update(interface.labels)
        for interface in self.interfaces:
            for rule in interface.rules:
                for label in rule.labels:
                    if label not in known:
                        import difflib  # only when somebody mistyped

                        close = difflib.get_close_matches(label, known, n=1)
                        hint = f"; did you mean {close[0]}?" if close else ""
                        raise ValueError(
                            f"{interface.name}: a rule names the label {label}, which nobody "
                            f"carries{hint}"
                        )


def parse_ports(text: str) -> tuple[int, int]:
    """First and last port of ``443`` or ``8000-8099``.

    Raises:
        ValueError: it is neither, or out of 1 to 65535.
    """
    found = _PORT.fullmatch(text)
    if found is not None:
        first = int(found[1])
        last = int(found[2] or found[1])
        if 1 <= first <= last <= 65535:
            return first, last
    raise ValueError(f"ports has {text!r:.40}; write 443, or 8000-8099, within 1 to 65535")


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The link-local address that belongs to a hardware address.

    Source: RFC 4291 appendix A (modified EUI-64).
    """
    octets = bytes.fromhex(mac.replace(":", ""))
    tail = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + tail)


def _check_count(title: str, items: tuple[object, ...], most: int, *, least: int = 0) -> None:
    if not least <= len(items) <= most:
        raise ValueError(f"{title} has {len(items)} entries; {least} to {most} are allowed")


def _check_peer(peer: str) -> None:
    if peer == ANY:
        return
    if peer.startswith(LABEL_PREFIX):
        _check_label(peer.removeprefix(LABEL_PREFIX), "peers")
        return
    try:
        ipaddress.ip_network(peer)
    except ValueError as exc:
        raise ValueError(
            f"peers has {peer!r:.60}; write label:<name>, an address, a network or any ({exc})"
        ) from exc


def _check_label(label: str, title: str) -> None:
    if _LABEL.fullmatch(label) is None:
        raise ValueError(
            f"{title} has {label!r:.60}; a label has 1 to 32 small letters, digits and dashes"
        )


def _check_pattern(pattern: str, title: str) -> None:
    size = len(pattern.removesuffix("*"))
    if _PATTERN.fullmatch(pattern) is None or size > LINK_NAME_BYTES_MAX:
        raise ValueError(f"{title} has {pattern!r:.60}; write a link name, or its beginning and *")


def _check_source(address: str, title: str) -> None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError as exc:
        raise ValueError(f"{title} has {address!r:.60}, which is no address") from exc
    if found.is_multicast or found.is_unspecified or found.is_loopback:
        raise ValueError(f"{title} has {address}, which can't be a source")


def _check_unique(interfaces: Iterable[SegmentInterface]) -> None:
    seen: dict[str, str] = {}
    for interface in interfaces:
        own = [f"name {interface.name}", f"mac {interface.mac}"]
        own += [f"address {address}" for address in interface.sources]
        for thing in own:
            if thing in seen:
                raise ValueError(
                    f"interfaces {seen[thing]} and {interface.name} have the same {thing}"
                )
            seen[thing] = interface.name
