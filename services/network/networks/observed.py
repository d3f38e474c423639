"""What the host has, as far as networks are concerned, and which of it is this node's. Pure.

A link is this node's where its alias is ``novacron:<node id>/<network>``, or where it has no alias
yet and the hardware address that this node alone gives at creation: it died in between. The bridge
of the node itself (``network.bridge``) has the alias ``novacron:<node id>`` and is none of them.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.network.model import ALIAS_PREFIX, Link
from services.network.networks.checks import NAME_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenVxlan:
    """What the kernel says of a VXLAN link; addresses as texts, "" for none."""

    vni: int
    local: str = ""
    group: str = ""
    carrier_index: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenLink:
    """A link of the host with what a plan needs beside ``Link``.

    Attributes:
        carrier_index: of the link below it in this namespace, or None.
        vlan_id: of a VLAN.
        vxlan: of a VXLAN link.
        stp: a bridge runs the spanning tree protocol.
        remotes: of a VXLAN link: where it floods to.
    """

    link: Link
    carrier_index: int | None = None
    vlan_id: int | None = None
    vxlan: SeenVxlan | None = None
    stp: bool = False
    remotes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The link's name."""
        return self.link.name

    @property
    def index(self) -> int:
        """The kernel's number of it."""
        return self.link.index


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRoute:
    """A route that somebody made over a link.

    Attributes:
        index: the link's number.
        destination: a network, or ``default``.
        gateway, source: addresses, "" for none.
    """

    index: int
    destination: str
    gateway: str = ""
    source: str = ""

    def __str__(self) -> str:
        """As ``ip route`` writes it."""
        return f"{self.destination} via {self.gateway}" if self.gateway else self.destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All links of a host at one time.

    Attributes:
        ports_of: of a bridge's or bond's number.
        routes: over links of this node and wanted ports, where they were read.
    """

    links: tuple[SeenLink, ...] = ()
    routes: tuple[SeenRoute, ...] = ()
    by_name: Mapping[str, SeenLink] = field(default_factory=dict)
    by_index: Mapping[int, SeenLink] = field(default_factory=dict)
    ports_of: Mapping[int, tuple[SeenLink, ...]] = field(default_factory=dict)

    def master_of(self, seen: SeenLink) -> str:
        """The name of the bridge or bond that a link is a port of; "" for none."""
        if seen.link.bridge_index is None:
            return ""
        master = self.by_index.get(seen.link.bridge_index)
        return "" if master is None else master.name


def observed(links: tuple[SeenLink, ...], routes: tuple[SeenRoute, ...] = ()) -> Observed:
    """Links with their names, indexes and masters looked up."""
    ports: dict[int, list[SeenLink]] = {}
    for seen in links:
        if seen.link.bridge_index is not None:
            ports.setdefault(seen.link.bridge_index, []).append(seen)
    return Observed(
        ports_of={index: tuple(found) for index, found in ports.items()},
        links=links,
        routes=routes,
        by_name={seen.name: seen for seen in links},
        by_index={seen.index: seen for seen in links},
    )


@dataclass(frozen=True, slots=True)
class Marks:
    """Tells which links are this node's.

    Args:
        node_id: the node's.
    """

    node_id: str

    def alias(self, network: str) -> str:
        """The alias of a link that belongs to a network."""
        # NODE_ID_BYTES_MAX leaves room for the longest name within the kernel's 255 bytes.
        assert len(network) <= NAME_MAX, "documents allow no longer name"
        return f"{ALIAS_PREFIX}{self.node_id}/{network}"

    def mac(self, name: str) -> str:
        """The hardware address that a link of this name gets, the same each time."""
        digest = hashlib.sha256(f"{self.node_id}\0{name}".encode()).digest()
        # 0x02 in the first byte: locally administered, not multicast (IEEE 802-2014, 8.4).
        return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])

    def network_of(self, link: Link) -> str | None:
        """The network that a link was made for, "" where it was not marked yet; None: not ours."""
        found = link.alias.removeprefix(f"{ALIAS_PREFIX}{self.node_id}/")
        if found != link.alias:
            return found
        is_made = link.kind in ("bridge", "vlan", "vxlan")
        return "" if is_made and not link.alias and link.mac == self.mac(link.name) else None

    def is_ours(self, link: Link) -> bool:
        """Whether this node made the link for a network."""
        return self.network_of(link) is not None


def canonical_interface(text: str) -> str:
    """An address with prefix length as the kernel's listing writes it."""
    return str(ipaddress.ip_interface(text))


def canonical_address(text: str) -> str:
    """An address as the kernel's listing writes it."""
    return str(ipaddress.ip_address(text))
