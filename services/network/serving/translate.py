"""What is served, of a networks document. Pure; the one place that knows both."""

from __future__ import annotations

from services.network.networks.model import NetworksDocument
from services.network.networks.subnets import Subnet as Wanted
from services.network.serving.model import (
    Dns,
    Mode,
    Range,
    Reservation,
    ServedNetwork,
    Subnet,
    check_networks,
)


def served(document: NetworksDocument) -> tuple[ServedNetwork, ...]:
    """The networks of a document that have anything to serve.

    Raises:
        ValueError: the document asks for what can't be served; the message names the network.
    """
    found = []
    for network in document.networks:
        if not network.subnets:
            continue
        try:
            found.append(
                ServedNetwork(
                    name=network.name,
                    link=network.bridge,
                    mtu=network.mtu,
                    subnets=tuple(_subnet(subnet) for subnet in network.subnets),
                )
            )
        except ValueError as exc:
            raise ValueError(f"network {network.name}: {exc}") from exc
    check_networks(tuple(found))
    return tuple(found)


def _subnet(wanted: Wanted) -> Subnet:
    mode = Mode(wanted.mode.value)
    dhcp, dns = wanted.dhcp, wanted.dns
    return Subnet(
        gateway=wanted.gateway,
        mode=mode,
        dhcp=dhcp is not None,
        ranges=() if dhcp is None or not dhcp.first else (Range(first=dhcp.first, last=dhcp.last),),
        lease_s=3600 if dhcp is None else dhcp.lease_s,
        reservations=()
        if dhcp is None
        else tuple(
            Reservation(mac=item.mac, address=item.address, hostname=item.name)
            for item in dhcp.reservations
        ),
        dns=None
        if dns is None
        else Dns(
            domain=dns.domain,
            upstreams=dns.upstreams,
            # Names of an isolated subnet are its own, unless a server is named.
            use_host_resolvers=not dns.upstreams and mode is not Mode.ISOLATED,
        ),
    )
