"""Which of the kernel's forwarding switches the networks need. Pure; ``switches`` reads and sets.

IPv4 has one switch per link that packets come in by: our bridges' and those of the links towards
the world are turned on. IPv6 has one for all links together, and the links' own ones say whether
the kernel takes itself for a router there: the common one and our bridges' are turned on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.network.serving.model import Mode, ServedNetwork
from services.network.serving.rules import Doors

ALL6 = "ipv6/conf/all/forwarding"
ALL4 = "ipv4/conf/all/forwarding"
ON = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What we turned on, and what it was before.

    Attributes:
        boot_id: of the kernel that it is about; another one begins with its own defaults.
        previous: earlier values by place below /proc/sys/net.
        passing: values of others that a change under way disturbs for a moment.
    """

    boot_id: str = ""
    previous: dict[str, str] = field(default_factory=dict)
    passing: dict[str, str] = field(default_factory=dict)


def switch(version: int, link: str) -> str:
    """The place of a link's own switch."""
    return f"ipv{version}/conf/{link}/forwarding"


def wanted(
    networks: Iterable[ServedNetwork], uplinks: Mapping[int, Iterable[str]]
) -> tuple[str, ...]:
    """The switches that have to be on, bridges' first.

    Args:
        networks: that are served.
        uplinks: links with a default route, by version of IP.
    """
    carried: dict[int, list[str]] = {4: [], 6: []}
    for network in networks:
        for subnet in network.subnets:
            links = carried[subnet.interface.version]
            if subnet.mode is not Mode.ISOLATED and network.link not in links:
                links.append(network.link)
    found = [switch(version, link) for version, links in carried.items() for link in links]
    if carried[4]:
        found += [switch(4, link) for link in uplinks.get(4, ()) if link not in carried[4]]
    if carried[6]:
        found.append(ALL6)
    return tuple(found)


def doors(
    networks: Iterable[ServedNetwork],
    opened: Opened,
    *,
    forwards_all4: bool,
    mtus: Mapping[str, int],
    uplinks: Mapping[int, Iterable[str]],
) -> Doors:
    """What the rules have to close again for everybody else.

    Args:
        networks: that are served.
        opened: what we turned on.
        forwards_all4: somebody has turned IPv4's forwarding on for the host as a whole.
        mtus: of the host's links.
        uplinks: as for ``wanted``.
    """
    served = list(networks)
    ours = {network.link for network in served}
    ways = sorted({link for links in uplinks.values() for link in links} - ours)
    ip4 = [link for link in ways if opened.previous.get(switch(4, link)) == "0"]
    clamped = [
        network.link
        for network in served
        if (own := network.mtu or mtus.get(network.link)) is not None
        and any(mtus.get(link, own) != own for link in ways)
    ]
    return Doors(
        ip4=() if forwards_all4 else tuple(ip4),
        ip6=opened.previous.get(ALL6) == "0",
        clamped=tuple(sorted(clamped)),
    )


def to_restore(
    opened: Opened, needed: Iterable[str], now: Mapping[str, str | None]
) -> dict[str, str]:
    """Values to put back: of switches that nobody needs any more and nobody else has touched.

    Args:
        opened: what we turned on.
        needed: switches that stay.
        now: present values; None for one that is gone.
    """
    keep = set(needed)
    return {
        place: value
        for place, value in opened.previous.items()
        if place not in keep and now.get(place) == ON and value != ON
    }
