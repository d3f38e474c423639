"""The document that says which networks a node has; docs/networks.md has every key.

drift: repair
networks:
- name: guests
  bridge: br-guests
  ports: [eth1]
  vlans: [{link: eth2, id: 20}]
  vxlans: [{vni: 4020, local: 192.0.2.10, remotes: [192.0.2.11]}]
  subnets:
  - {gateway: 10.20.0.1/24, mode: nat, dhcp: {first: 10.20.0.100, last: 10.20.0.199}}
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from services.network.networks.checks import (
    check_count,
    check_interface,
    check_link,
    check_name,
    check_range,
    check_unicast,
    refuse_doubles,
    refuse_overlaps,
)
from services.network.networks.subnets import Subnet

# A bridge takes 1023 ports (BR_PORT_BITS), and a message with the document holds 1 MiB.
NETWORKS_MAX = 512
PORTS_MAX = 512
VLANS_MAX = 128
VXLANS_MAX = 128
REMOTES_MAX = 256
ADDRESSES_MAX = 32
SUBNETS_MAX = 32
MTU_MIN = 576  # RFC 791: what every host must take
MTU_MAX = 65535
VXLAN_PORT = 4789  # IANA's; Linux without a word takes 8472
VNI_MAX = (1 << 24) - 2  # all ones is reserved in the kernel
VLAN_ID_MAX = 4094


class DriftPolicy(enum.Enum):
    """What happens when the host no longer is as the document says."""

    REPAIR = "repair"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vlan:
    """A VLAN on a link of the host, attached to the network's bridge.

    Attributes:
        link: the link that carries it, the host's own or the bridge of another network.
        id: 1 to 4094.
        name: of the link that is made; "" for ``<link>.<id>``.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    link: str
    id: int
    name: str = ""

    def __post_init__(self) -> None:
        check_link(self.link, "link")
        check_range("id", self.id, 1, VLAN_ID_MAX)
        check_link(self.link_name, "name")

    @property
    def link_name(self) -> str:
        """The name of the link that is made."""
        return self.name or f"{self.link}.{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan:
    """A VXLAN segment between hosts, attached to the network's bridge.

    Attributes:
        vni: the segment's number, the same on all hosts; 1 to 16777214.
        local: this host's address that the others send to.
        remotes: addresses of the other hosts; each gets what is not known to be elsewhere.
        group: multicast address instead of ``remotes``.
        link: the link that carries it; "" for the one that has ``local``.
        port: UDP port, 4789 unless said.
        name: of the link that is made; "" for ``vx<vni>``.

    Raises:
        ValueError: a field is out of its range, or fields contradict each other.
    """

    vni: int
    local: str
    remotes: tuple[str, ...] = ()
    group: str = ""
    link: str = ""
    port: int = VXLAN_PORT
    name: str = ""

    def __post_init__(self) -> None:
        check_range("vni", self.vni, 1, VNI_MAX)
        check_range("port", self.port, 1, 65535)
        check_link(self.link_name, "name")
        if self.link:
            check_link(self.link, "link")
        local = check_unicast(self.local, "local")
        check_count("remotes", self.remotes, REMOTES_MAX)
        for index, text in enumerate(self.remotes):
            remote = check_unicast(text, f"remotes[{index}]")
            if remote.version != local.version:
                raise ValueError(
                    f"remotes[{index}]: {text} and local {self.local} differ in family"
                )
            if remote == local:
                raise ValueError(f"remotes[{index}]: {text} is this host itself, see local")
        refuse_doubles((f"remotes[{i}]", text) for i, text in enumerate(self.remotes))
        if self.group:
            self._check_group(local.version)

    @property
    def link_name(self) -> str:
        """The name of the link that is made."""
        return self.name or f"vx{self.vni}"

    @property
    def overhead_bytes(self) -> int:
        """What the outer headers take of the carrying link's MTU.

        Source: RFC 7348, section 5: Ethernet 14, VXLAN 8, UDP 8, and IPv4's 20 or IPv6's 40.
        """
        return 50 if ipaddress.ip_address(self.local).version == 4 else 70

    def _check_group(self, version: int) -> None:
        if self.remotes:
            raise ValueError("group and remotes exclude each other; name one of them")
        try:
            group = ipaddress.ip_address(self.group)
        except ValueError as exc:
            raise ValueError(f"group is {self.group!r:.60}, which is no address") from exc
        if not group.is_multicast or group.version != version:
            raise ValueError(
                f"group is {self.group}; expected a multicast address of local's family"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A bridge, what is attached to it, and the subnets on it.

    Attributes:
        name: of the network, in small letters, digits and dashes.
        bridge: the link name of its bridge, which is made.
        mtu: of the bridge and all links made for it; None for the smallest that its ports, VLANs
            and VXLAN segments allow, or 1500 without any.
        addresses: of the host on the bridge, beside the subnets' gateways.
        ports: links of the host that become ports of the bridge.

    Raises:
        ValueError: a field is out of its range, or fields contradict each other.
    """

    name: str
    bridge: str
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    vlans: tuple[Vlan, ...] = ()
    vxlans: tuple[Vxlan, ...] = ()
    subnets: tuple[Subnet, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        check_link(self.bridge, "bridge")
        if self.mtu is not None:
            check_range("mtu", self.mtu, MTU_MIN, MTU_MAX)
        check_count("addresses", self.addresses, ADDRESSES_MAX)
        check_count("ports", self.ports, PORTS_MAX)
        check_count("vlans", self.vlans, VLANS_MAX)
        check_count("vxlans", self.vxlans, VXLANS_MAX)
        check_count("subnets", self.subnets, SUBNETS_MAX)
        for index, text in enumerate(self.addresses):
            check_interface(text, f"addresses[{index}]")
        for index, port in enumerate(self.ports):
            check_link(port, f"ports[{index}]")

    @property
    def bridge_addresses(self) -> tuple[str, ...]:
        """All addresses that the host has on the bridge, as ``10.20.0.1/24``."""
        return (*self.addresses, *(subnet.gateway for subnet in self.subnets))

    @property
    def made_ports(self) -> tuple[Vlan | Vxlan, ...]:
        """The links that are made and attached to the bridge."""
        return (*self.vlans, *self.vxlans)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworksDocument:
    """All networks of one node; see the module.

    Raises:
        ValueError: networks contradict each other; the message begins with the key's path.
    """

    drift: DriftPolicy = DriftPolicy.REPAIR
    networks: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        check_count("networks", self.networks, NETWORKS_MAX)
        refuse_doubles(
            (f"networks[{index}].name", network.name) for index, network in enumerate(self.networks)
        )
        refuse_doubles(_made_links(self))
        refuse_doubles(_ports(self))
        refuse_doubles(_tags(self))
        refuse_doubles(_segments(self))
        made = {name: place for place, name in _made_links(self)}
        for place, name in _ports(self):
            if name in made:
                raise ValueError(f"{place}: {name} is made by {made[name]}; it is a port already")
        self._check_carriers()
        refuse_overlaps(_addresses(self))
        refuse_doubles(_subnets(self))

    def _check_carriers(self) -> None:
        """No VLAN or VXLAN segment may lead back into the bridge that it is attached to."""
        above = {network.bridge: network for network in self.networks}
        attached = {
            item.link_name: network.bridge
            for network in self.networks
            for item in network.made_ports
        }
        for index, network in enumerate(self.networks):
            for number, item in enumerate(network.made_ports):
                is_vlan = number < len(network.vlans)
                at = f"vlans[{number}]" if is_vlan else f"vxlans[{number - len(network.vlans)}]"
                place = f"networks[{index}].{at}.link"
                if item.link in attached:
                    raise ValueError(
                        f"{place}: {item.link} is a port of {attached[item.link]}, so it can't "
                        "carry anything else"
                    )
                if item.link in above and _leads_to(above, item.link, network.bridge):
                    raise ValueError(f"{place}: {item.link} is carried by {network.bridge} itself")


def _leads_to(above: dict[str, Network], start: str, end: str) -> bool:
    """Tell whether what ``start`` is carried by includes the bridge ``end``."""
    pending, seen = [start], set[str]()
    while pending:
        name = pending.pop()
        if name == end:
            return True
        if name in seen or name not in above:
            continue
        seen.add(name)
        pending += [item.link for item in above[name].made_ports if item.link]
    return False


def _made_links(document: NetworksDocument) -> Iterator[tuple[str, str]]:
    for index, network in enumerate(document.networks):
        yield f"networks[{index}].bridge", network.bridge
        for number, vlan in enumerate(network.vlans):
            yield f"networks[{index}].vlans[{number}].name", vlan.link_name
        for number, vxlan in enumerate(network.vxlans):
            yield f"networks[{index}].vxlans[{number}].name", vxlan.link_name


def _ports(document: NetworksDocument) -> Iterator[tuple[str, str]]:
    for index, network in enumerate(document.networks):
        for number, port in enumerate(network.ports):
            yield f"networks[{index}].ports[{number}]", port


def _tags(document: NetworksDocument) -> Iterator[tuple[str, str]]:
    for index, network in enumerate(document.networks):
        for number, vlan in enumerate(network.vlans):
            yield f"networks[{index}].vlans[{number}].id", f"VLAN {vlan.id} on {vlan.link}"


def _segments(document: NetworksDocument) -> Iterator[tuple[str, str]]:
    for index, network in enumerate(document.networks):
        for number, vxlan in enumerate(network.vxlans):
            yield f"networks[{index}].vxlans[{number}].vni", f"VNI {vxlan.vni}"


def _subnets(document: NetworksDocument) -> Iterator[tuple[str, str]]:
    for index, network in enumerate(document.networks):
        for number, subnet in enumerate(network.subnets):
            place = f"networks[{index}].subnets[{number}].gateway"
            yield place, f"the subnet {subnet.interface.network}"


def _addresses(document: NetworksDocument) -> Iterator[tuple[str, str, str]]:
    for index, network in enumerate(document.networks):
        for number, text in enumerate(network.addresses):
            yield f"networks[{index}].addresses[{number}]", network.bridge, text
        for number, subnet in enumerate(network.subnets):
            yield f"networks[{index}].subnets[{number}].gateway", network.bridge, subnet.gateway
