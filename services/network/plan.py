"""What has to be done so that the host has the bridge that the node wants. Pure.

Rules:
    1. A link of the configured name that is not a bridge, or a bridge that is not this node's, is
       never touched: ``BridgeConflictError``.
    2. This node's is what carries its alias, or has no alias and the hardware address that only
       this node gives at creation (it died between creating and marking).
    3. An address whose network overlaps one on another link is never added: it would take over
       routes that the host itself may live on.
    4. Only what is missing is done. Ports, further addresses and other attributes that an operator
       or guests put onto the bridge stay.
Invariant: after all steps were applied to the observed links, the plan for the result is empty.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.network.errors import BridgeConflictError
from services.network.model import Link, NetworkSettings

# An operator who removes the bridge once did it by mistake; a program that removes it over and
# over fights us, and a fight harms the guests more than a missing bridge.
REPAIRS_MAX = 5
REPAIRS_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Create a bridge with this hardware address, down."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class MarkBridge:
    """Write the alias that says whose the bridge is."""

    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class RaiseBridge:
    """Set the bridge administratively up."""

    name: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give the bridge an address, as ``10.20.0.1/24``."""

    name: str
    address: str


Step = CreateBridge | MarkBridge | RaiseBridge | AddAddress


def plan_bridge(settings: NetworkSettings, links: Sequence[Link]) -> tuple[Step, ...]:
    """Say what is missing, in the order in which it has to be done.

    Args:
        settings: what the node wants.
        links: all links of the host.

    Returns:
        Steps to apply; empty where everything is as it should be or the bridge is not enabled.

    Raises:
        BridgeConflictError: the host has something that must not be touched in the way.
    """
    wanted = settings.bridge
    if not wanted.enabled:
        return ()
    found = next((link for link in links if link.name == wanted.name), None)
    if found is not None:
        _check_ours(settings, found)
    if wanted.address is not None:
        _check_address_free(wanted.address, (link for link in links if link is not found))
    steps: list[Step] = []
    if found is None:
        steps.append(CreateBridge(wanted.name, settings.mac))
    if found is None or found.alias != settings.alias:
        steps.append(MarkBridge(wanted.name, settings.alias))
    if found is None or not found.is_up:
        steps.append(RaiseBridge(wanted.name))
    if wanted.address is not None and (found is None or not _has_address(found, wanted.address)):
        steps.append(AddAddress(wanted.name, wanted.address))
    return tuple(steps)


def may_repair(repaired_at_s: Iterable[float], now_s: float) -> bool:
    """Tell whether one more repair stays within the limit of ``REPAIRS_MAX`` per window."""
    return sum(now_s - at_s < REPAIRS_WINDOW_S for at_s in repaired_at_s) < REPAIRS_MAX


def _check_ours(settings: NetworkSettings, found: Link) -> None:
    if found.kind != "bridge":
        what = f"a {found.kind} link" if found.kind else "a physical link"
        raise BridgeConflictError(
            f"{found.name} is {what}, not a bridge; choose another network.bridge.name",
            name=found.name,
            kind=found.kind,
        )
    half_made = not found.alias and found.mac == settings.mac
    if found.alias != settings.alias and not half_made:
        owner = f"is marked {found.alias!r}" if found.alias else "carries no mark of this node"
        raise BridgeConflictError(
            f"the bridge {found.name} {owner}; choose another network.bridge.name or remove it",
            name=found.name,
            alias=found.alias,
        )


def _check_address_free(address: str, others: Iterable[Link]) -> None:
    wanted = ipaddress.ip_interface(address)
    if wanted.is_link_local:
        return  # every link has that network, each for itself
    for link in others:
        for taken in link.addresses:
            network = ipaddress.ip_interface(taken).network
            if network.version == wanted.version and network.overlaps(wanted.network):
                raise BridgeConflictError(
                    f"{address} overlaps {taken} on {link.name}; choose another "
                    "network.bridge.address",
                    address=address,
                    link=link.name,
                )


def _has_address(link: Link, address: str) -> bool:
    wanted = ipaddress.ip_interface(address)
    return any(ipaddress.ip_interface(present) == wanted for present in link.addresses)
