"""The part of a plan that makes: links, their attributes, ports, addresses and remotes. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any

from services.network.networks.draft import Draft, names, own_addresses
from services.network.networks.observed import SeenLink
from services.network.networks.resolve import WantedLink, WantedPort
from services.network.networks.steps import CREATING, Step, StepKind

_KINDS = {
    "bridge": StepKind.CREATE_BRIDGE,
    "vlan": StepKind.CREATE_VLAN,
    "vxlan": StepKind.CREATE_VXLAN,
}


def make_links(draft: Draft) -> None:
    """Links that are not there, and attributes of those that are."""
    for link in draft.links.values():
        found = draft.standing(link.name)
        if found is not None:
            _adjust(draft, link, found)
        elif not link.carrier or link.carrier in draft.links or draft.standing(link.carrier):
            _create(draft, link)


def attach(draft: Draft) -> None:
    """Links of this node and ports of the host to their bridges."""
    made = {step.link for step, _ in draft.changes if step.kind in CREATING}
    for link in draft.links.values():
        if link.bridge in draft.links and (link.name in made or draft.standing(link.name)):
            _attach_own(draft, link)
    for port in draft.wanted.ports:
        found = draft.seen.by_name.get(port.name)
        if port.bridge in draft.links and _may_attach(draft, port, found):
            assert found is not None, "a port that is not there was told as a conflict"
            _attach_port(draft, port, found)


def add_addresses(draft: Draft) -> None:
    """Addresses that a bridge lacks."""
    taken = [
        (ipaddress.ip_interface(text), seen.name)
        for seen in draft.seen.links
        if seen.name not in draft.going
        for text in own_addresses(seen)
        if (seen.name, text) not in draft.removed
    ]
    for link in draft.links.values():
        found = draft.standing(link.name)
        present = () if found is None else found.link.addresses
        for text in link.addresses:
            interface = ipaddress.ip_interface(text)
            if text in present:
                continue
            other = next(
                (
                    (address, name)
                    for address, name in taken
                    if name != link.name
                    and address.version == interface.version
                    and address.network.overlaps(interface.network)
                    and not interface.is_link_local
                ),
                None,
            )
            if other is not None:
                draft.conflicts.append(
                    f"network {link.network}: {text} overlaps {other[0]} on {other[1]}; choose "
                    "another network"
                )
                continue
            step = _of(link, StepKind.ADD_ADDRESS, found, address=text)
            draft.add(step, Step(kind=StepKind.REMOVE_ADDRESS, link=link.name, address=text))


def set_remotes(draft: Draft) -> None:
    """Where VXLAN links flood to. What they learnt is left alone."""
    for link in draft.links.values():
        if link.kind != "vxlan" or link.group:
            continue
        found = draft.standing(link.name)
        present = () if found is None else found.remotes
        for text in link.remotes:
            if text not in present:
                step = _of(link, StepKind.ADD_REMOTE, found, address=text)
                draft.add(step, Step(kind=StepKind.REMOVE_REMOTE, link=link.name, address=text))
        for text in present:
            if text not in link.remotes:
                step = _of(link, StepKind.REMOVE_REMOTE, found, address=text)
                draft.add(step, Step(kind=StepKind.ADD_REMOTE, link=link.name, address=text))


def _create(draft: Draft, link: WantedLink) -> None:
    create = _of(
        link,
        _KINDS[link.kind],
        mac=link.mac,
        mtu=link.mtu,
        carrier=link.carrier,
        number=link.number,
        local=link.local,
        group=link.group,
        port=link.port,
    )
    draft.add(create, _of(link, StepKind.DELETE))
    draft.add(_of(link, StepKind.SET_UP, alias=link.alias, mtu=link.mtu))


def _adjust(draft: Draft, link: WantedLink, found: SeenLink) -> None:
    now = found.link
    if now.alias != link.alias:
        back = _of(link, StepKind.MARK, found, alias=now.alias)
        draft.add(_of(link, StepKind.MARK, found, alias=link.alias), *([back] if now.alias else []))
    if now.mtu != link.mtu:
        back = _of(link, StepKind.SET_MTU, found, mtu=now.mtu)
        draft.add(_of(link, StepKind.SET_MTU, found, mtu=link.mtu), back)
    if found.stp:
        draft.add(_of(link, StepKind.STP_OFF, found), _of(link, StepKind.STP_ON, found))
    if not now.is_up:
        draft.add(_of(link, StepKind.RAISE, found), _of(link, StepKind.LOWER, found))


def _attach_own(draft: Draft, link: WantedLink) -> None:
    found = draft.standing(link.name)
    master = "" if found is None else draft.seen.master_of(found)
    if master == link.bridge:
        return
    step = _of(link, StepKind.ATTACH, found, bridge=link.bridge)
    if found is None:
        draft.add(step)  # undone with the link
    elif master:
        draft.add(step, _of(link, StepKind.ATTACH, found, bridge=master))
    else:
        draft.add(step, _of(link, StepKind.DETACH, found, bridge=link.bridge))


def _attach_port(draft: Draft, port: WantedPort, found: SeenLink) -> None:
    def step(kind: StepKind, bridge: str = "") -> Step:
        return Step(
            kind=kind, link=port.name, network=port.network, index=found.index, bridge=bridge
        )

    lower = () if found.link.is_up else (step(StepKind.LOWER),)
    master = draft.seen.master_of(found)
    if master == port.bridge:
        if not found.link.is_up:
            draft.add(step(StepKind.RAISE), *lower)
        return
    back = step(StepKind.ATTACH, master) if master else step(StepKind.DETACH, port.bridge)
    draft.add(step(StepKind.ATTACH, port.bridge), back, *lower)


def _may_attach(draft: Draft, port: WantedPort, found: SeenLink | None) -> bool:
    """Tell whether a link of the host may become a port; a conflict otherwise."""
    place = f"network {port.network}: {port.name}"
    fault = ""
    if found is None:
        fault = "is no link of the host: mend its name, or take it out of ports"
    elif found.link.kind == "bridge" or found.name == "lo":
        fault = f"is a {found.link.kind or 'loopback'}, which can't be a port: take it out of ports"
    elif draft.marks.is_ours(found.link):
        fault = "is made by this node for another network: take it out of ports"
    elif (master := draft.seen.master_of(found)) != port.bridge:
        addresses = own_addresses(found)
        routes = [str(route) for route in draft.seen.routes if route.index == found.index]
        if master and not draft.marks.is_ours(draft.seen.by_name[master].link):
            fault = (
                f"is a port of {master}, which is not this node's: release it first "
                f"('ip link set {port.name} nomaster')"
            )
        elif addresses:
            fault = (
                f"has the address {addresses[0]}, which a port can't use: move it to the network's "
                "addresses first"
            )
        elif routes:
            fault = f"has the route {names(routes)} over it, which would end: remove that first"
    if fault:
        draft.conflicts.append(f"{place} {fault}")
    return not fault


def _of(
    link: WantedLink,
    kind: StepKind,
    found: SeenLink | None = None,
    **values: Any,  # Any: the fields of Step
) -> Step:
    index = 0 if found is None else found.index
    return Step(kind=kind, link=link.name, network=link.network, index=index, **values)
