"""The links that a document means on a host as it is: names, carriers and MTUs worked out. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from services.network.networks.model import Network, NetworksDocument, Vlan, Vxlan
from services.network.networks.observed import (
    Marks,
    Observed,
    canonical_address,
    canonical_interface,
)

MTU_DEFAULT = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLink:
    """A link that is made.

    Attributes:
        kind: ``bridge``, ``vlan`` or ``vxlan``.
        bridge: that it is attached to; "" for a bridge itself.
        carrier: the link below; "" for none, or for a VXLAN link that the routes decide on.
        number: VLAN id or VNI.
        addresses: of the host on a bridge, as the kernel lists them.
        remotes: of a VXLAN link, as the kernel lists them.
    """

    name: str
    network: str
    kind: str
    alias: str
    mac: str
    mtu: int
    bridge: str = ""
    carrier: str = ""
    number: int = 0
    local: str = ""
    group: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()
    remotes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPort:
    """A link of the host that becomes a port."""

    name: str
    network: str
    bridge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Everything that a document means.

    Attributes:
        links: bridges first, then VLANs, then VXLAN links, so that each follows what it needs.
        conflicts: why a part of it can't be; that part is left out.
        warnings: what works and perhaps not as meant.
    """

    links: tuple[WantedLink, ...]
    ports: tuple[WantedPort, ...]
    conflicts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def resolve(document: NetworksDocument, seen: Observed, marks: Marks) -> Wanted:
    """Work out all links of a document."""
    resolver = _Resolver(document=document, seen=seen, marks=marks)
    return resolver.resolve()


@dataclass(slots=True, kw_only=True)
class _Resolver:
    document: NetworksDocument
    seen: Observed
    marks: Marks
    mtus: dict[str, int] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def resolve(self) -> Wanted:
        networks = self.document.networks
        bridges = [self._bridge(network) for network in networks]
        vlans = [self._vlan(network, vlan) for network in networks for vlan in network.vlans]
        vxlans = [self._vxlan(network, vxlan) for network in networks for vxlan in network.vxlans]
        found = (*bridges, *vlans, *vxlans)
        return Wanted(
            links=tuple(link for link in found if link is not None),
            ports=tuple(
                WantedPort(name=port, network=network.name, bridge=network.bridge)
                for network in networks
                for port in network.ports
            ),
            conflicts=tuple(dict.fromkeys(self.conflicts)),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _bridge(self, network: Network) -> WantedLink:
        return WantedLink(
            name=network.bridge,
            network=network.name,
            kind="bridge",
            alias=self.marks.alias(network.name),
            mac=self.marks.mac(network.bridge),
            mtu=self._mtu(network),
            addresses=tuple(canonical_interface(text) for text in network.bridge_addresses),
        )

    def _vlan(self, network: Network, vlan: Vlan) -> WantedLink | None:
        room = self._mtu_of(vlan.link)
        if room is None:
            self.conflicts.append(
                f"network {network.name}: the host has no link {vlan.link} to carry VLAN {vlan.id}"
            )
            return None
        mtu = self._mtu(network)
        if mtu > room:
            self.conflicts.append(
                f"network {network.name}: MTU {mtu} does not fit into {vlan.link}, which has "
                f"{room}: lower mtu, or raise the link's"
            )
            return None
        return WantedLink(
            name=vlan.link_name,
            network=network.name,
            kind="vlan",
            alias=self.marks.alias(network.name),
            mac=self.marks.mac(vlan.link_name),
            mtu=mtu,
            bridge=network.bridge,
            carrier=vlan.link,
            number=vlan.id,
        )

    def _vxlan(self, network: Network, vxlan: Vxlan) -> WantedLink | None:
        carrier = vxlan.link or self._carrier_of(vxlan.local)
        place = f"network {network.name}: VXLAN {vxlan.vni}"
        room = None if carrier is None else self._mtu_of(carrier)
        if carrier is None or room is None:
            self.conflicts.append(
                f"{place}: the host has no link {vxlan.link}"
                if vxlan.link
                else f"{place}: no link of the host has its local address {vxlan.local}"
            )
            return None
        if carrier == network.bridge:
            self.conflicts.append(f"{place}: its local address is one of {carrier} itself")
            return None
        mtu = self._mtu(network)
        if mtu > room - vxlan.overhead_bytes:
            self.conflicts.append(
                f"{place}: MTU {mtu} and {vxlan.overhead_bytes} bytes of headers do not fit into "
                f"{carrier}, which has {room}: lower mtu, or raise the link's"
            )
            return None
        return WantedLink(
            name=vxlan.link_name,
            network=network.name,
            kind="vxlan",
            alias=self.marks.alias(network.name),
            mac=self.marks.mac(vxlan.link_name),
            mtu=mtu,
            bridge=network.bridge,
            # The kernel needs a link for a group; for one address the routes know the way.
            carrier=carrier if vxlan.link or vxlan.group else "",
            number=vxlan.vni,
            local=canonical_address(vxlan.local),
            group=canonical_address(vxlan.group) if vxlan.group else "",
            port=vxlan.port,
            remotes=tuple(canonical_address(text) for text in vxlan.remotes),
        )

    def _mtu(self, network: Network) -> int:
        """What is said, or the smallest that all attached links allow."""
        if network.bridge in self.mtus:
            return self.mtus[network.bridge]
        if network.bridge in self.pending:  # carried by itself; told where it is attached
            return MTU_DEFAULT
        self.pending.add(network.bridge)
        room = self._room(network)
        self.pending.discard(network.bridge)
        there = self.seen.by_name.get(network.bridge)
        mtu = min((value for value in room.values() if value is not None), default=MTU_DEFAULT)
        if network.mtu is not None:
            mtu = network.mtu
        elif None in room.values() and there is not None:
            mtu = there.link.mtu  # what is not known is not changed
        self.mtus[network.bridge] = mtu
        for port in network.ports:
            if (room[port] or mtu) < mtu:
                self.warnings.append(
                    f"network {network.name}: MTU {mtu} is more than {room[port]} of its port "
                    f"{port}, which drops larger packets"
                )
        return mtu

    def _room(self, network: Network) -> dict[str, int | None]:
        """The largest MTU of each link that is to be attached; None for one not known."""
        found: dict[str, int | None] = {}
        for port in network.ports:
            seen = self.seen.by_name.get(port)
            found[port] = None if seen is None else seen.link.mtu
        for vlan in network.vlans:
            found[vlan.link_name] = self._mtu_of(vlan.link)
        for vxlan in network.vxlans:
            carrier = vxlan.link or self._carrier_of(vxlan.local)
            mtu = None if carrier is None else self._mtu_of(carrier)
            found[vxlan.link_name] = None if mtu is None else mtu - vxlan.overhead_bytes
        return found

    def _mtu_of(self, name: str) -> int | None:
        """The MTU that a link will have; None where there is no such link."""
        for network in self.document.networks:
            if network.bridge == name:
                return self._mtu(network)
        seen = self.seen.by_name.get(name)
        return None if seen is None else seen.link.mtu

    def _carrier_of(self, local: str) -> str | None:
        """The link that has an address, after the change."""
        wanted = ipaddress.ip_address(local)
        for network in self.document.networks:
            for text in network.bridge_addresses:
                if ipaddress.ip_interface(text).ip == wanted:
                    return network.bridge
        for seen in self.seen.links:
            if any(ipaddress.ip_interface(text).ip == wanted for text in seen.link.addresses):
                return seen.name
        return None
