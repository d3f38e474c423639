"""What a plan is made of: single changes of links, each with the changes that undo it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class StepKind(enum.Enum):
    """What is done to a link."""

    CREATE_BRIDGE = "create-bridge"
    CREATE_VLAN = "create-vlan"
    CREATE_VXLAN = "create-vxlan"
    SET_UP = "set-up"  # marks a new link, gives it its MTU, raises it
    DELETE = "delete"
    MARK = "mark"
    SET_MTU = "set-mtu"
    RAISE = "raise"
    LOWER = "lower"
    STP_OFF = "stp-off"
    STP_ON = "stp-on"
    ATTACH = "attach"
    DETACH = "detach"
    ADD_ADDRESS = "add-address"
    REMOVE_ADDRESS = "remove-address"
    ADD_REMOTE = "add-remote"
    REMOVE_REMOTE = "remove-remote"


CREATING = frozenset((StepKind.CREATE_BRIDGE, StepKind.CREATE_VLAN, StepKind.CREATE_VXLAN))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change of one link.

    Attributes:
        link: its name.
        network: the network that it is done for; "" where none names it any more.
        index: the link's number where it was there before the plan; 0 for one that the plan
            makes, which is found by its name.
        bridge: attach: to which; detach: from which.
        address: of a host on a bridge with prefix length, or of a VXLAN's remote.
        alias, mac, mtu: as the link gets them.
        carrier: VLAN, VXLAN: the link below; "" for any.
        number: VLAN id or VNI.
        local, group, port: VXLAN's, see ``Vxlan``.
    """

    kind: StepKind
    link: str
    network: str = ""
    index: int = 0
    bridge: str = ""
    address: str = ""
    alias: str = ""
    mac: str = ""
    mtu: int = 0
    carrier: str = ""
    number: int = 0
    local: str = ""
    group: str = ""
    port: int = 0


_TEXTS = {
    StepKind.CREATE_BRIDGE: "bridge {0.link}",
    StepKind.CREATE_VLAN: "VLAN {0.link}: id {0.number} on {0.carrier}",
    StepKind.CREATE_VXLAN: "VXLAN {0.link}: VNI {0.number}, {0.local} port {0.port}",
    StepKind.SET_UP: "{0.link}: mark {0.alias}, MTU {0.mtu}, up",
    StepKind.DELETE: "{0.link}: delete",
    StepKind.MARK: "{0.link}: mark {0.alias}",
    StepKind.SET_MTU: "{0.link}: MTU {0.mtu}",
    StepKind.RAISE: "{0.link}: up",
    StepKind.LOWER: "{0.link}: down",
    StepKind.STP_OFF: "{0.link}: spanning tree off",
    StepKind.STP_ON: "{0.link}: spanning tree on",
    StepKind.ATTACH: "{0.link}: port of {0.bridge}, up",
    StepKind.DETACH: "{0.link}: no port of {0.bridge} any more",
    StepKind.ADD_ADDRESS: "{0.link}: address {0.address}",
    StepKind.REMOVE_ADDRESS: "{0.link}: no address {0.address} any more",
    StepKind.ADD_REMOTE: "{0.link}: remote {0.address}",
    StepKind.REMOVE_REMOTE: "{0.link}: no remote {0.address} any more",
}


def describe_step(step: Step) -> str:
    """What it does, in a few words such as ``eth1: port of br-guests, up``."""
    group = f", group {step.group}" if step.group else ""
    return _TEXTS[step.kind].format(step) + group
