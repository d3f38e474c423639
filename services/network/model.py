"""The records of the network level: settings, links, and how the bridge is."""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import re
from dataclasses import dataclass, field

# The kernel's IFNAMSIZ is 16 with the closing zero, and its alias limit (IFALIASZ) 256.
LINK_NAME_BYTES_MAX = 15
NODE_ID_BYTES_MAX = 200
ALIAS_PREFIX = "novacron:"
_LINK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSettings:
    """The bridge that the node keeps.

    Attributes:
        enabled: False leaves the host's links alone; a bridge from before stays.
        name: the link's name, at most 15 bytes.
        address: IPv4 or IPv6 address with prefix length, such as ``10.20.0.1/24``, or None.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    enabled: bool = True
    name: str = "novacron0"
    address: str | None = None

    def __post_init__(self) -> None:
        if len(self.name) > LINK_NAME_BYTES_MAX or _LINK_NAME.fullmatch(self.name) is None:
            raise ValueError(
                f"name is {self.name!r:.60}; a link name has 1 to {LINK_NAME_BYTES_MAX} letters, "
                "digits, dots, dashes and underscores"
            )
        if self.address is None:
            return
        if "/" not in self.address:
            raise ValueError(f"address is {self.address!r:.60}; it needs a prefix length")
        ipaddress.ip_interface(self.address)  # its own message names the fault


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Settings of ``core/network``.

    Attributes:
        node_id: marks the bridge as this node's, as the alias ``novacron:<node id>``.
        bridge: the bridge to keep.
        state_dir: the node's state directory, where the wanted segments are kept; "" for a node
            without segments.
        log_dir: where the node's log files are, for what a dnsmasq said last; "" for none.

    Raises:
        ValueError: ``node_id`` is empty or too long for a link's alias.
    """

    node_id: str
    bridge: BridgeSettings = field(default_factory=BridgeSettings)
    state_dir: str = ""
    log_dir: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.node_id.encode()) <= NODE_ID_BYTES_MAX:
            raise ValueError(f"node_id takes 1 to {NODE_ID_BYTES_MAX} bytes")

    @property
    def alias(self) -> str:
        """The alias that says whose the bridge is."""
        return ALIAS_PREFIX + self.node_id

    @property
    def mac(self) -> str:
        """The bridge's hardware address, always the same for a node and a bridge name.

        A bridge without one of its own takes a port's and changes it as guests come and go, which
        breaks their neighbour caches. It is also given at creation, in one step with the name, so
        a bridge that was created but not yet marked is still recognised.
        """
        digest = hashlib.sha256(f"{self.node_id}\0{self.bridge.name}".encode()).digest()
        # 0x02 in the first byte: locally administered, not multicast (IEEE 802-2014, 8.4).
        return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of the host as the kernel reports it.

    Attributes:
        index: the kernel's number of the link.
        kind: ``bridge``, ``veth``, ``tun``, … or "" for a physical one and the loopback.
        is_up: administratively up.
        operstate: the kernel's operational state in small letters, such as ``lowerlayerdown``.
        mac: hardware address; "" where the link has none.
        alias: the operator's note on the link (``ip link set … alias``).
        bridge_index: index of the bridge or bond that the link is a port of, or None.
        addresses: addresses with prefix length, as ``10.20.0.1/24``.
    """

    name: str
    index: int
    kind: str = ""
    is_up: bool = False
    operstate: str = "unknown"
    mac: str = ""
    mtu: int = 0
    alias: str = ""
    bridge_index: int | None = None
    addresses: tuple[str, ...] = ()


class BridgeState(enum.Enum):
    """How the node's bridge is."""

    KEPT = "kept"
    DISABLED = "disabled"
    SKIPPED = "skipped"  # CAP_NET_ADMIN is missing
    CONFLICT = "conflict"  # the host has something of that name or address
    FAILED = "failed"  # the kernel refused; tried again
    REMOVED = "removed"  # somebody keeps removing it; left alone for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeStatus:
    """The bridge's state; ``reason`` is a sentence unless it is kept or disabled."""

    name: str
    state: BridgeState
    reason: str = ""
    repairs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStatus:
    """Reply to ``network.status``.

    Attributes:
        links: number of links on the host.
        resyncs: how often the event socket was lost and everything read anew.
    """

    links: int
    bridge: BridgeStatus
    resyncs: int = 0
