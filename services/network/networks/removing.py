"""The part of a plan that takes away: addresses, links and ports that are wanted no more. Pure.

Taken in three turns around what is made: addresses first, so that they are free; VLANs and VXLAN
links next, because the kernel has none twice; bridges last, when everything that stays has left
them. Undone in the opposite order, a bridge is there before what was attached to it comes back.
"""

from __future__ import annotations

import ipaddress

from services.network.networks.draft import Draft, names, own_addresses
from services.network.networks.observed import SeenLink, canonical_interface
from services.network.networks.resolve import WantedLink
from services.network.networks.steps import Step, StepKind


def choose_going(draft: Draft) -> None:
    """Find the links of this node that go, and what hinders that."""
    going = [
        seen
        for seen in draft.seen.links
        if draft.marks.is_ours(seen.link) and not _stays(draft, seen)
    ]
    going = [seen for seen in going if _may_go(draft, seen)]
    while True:  # what stays keeps what carries it; each turn takes at least one away
        gone = {seen.index for seen in going}
        free = [seen for seen in going if _is_free(draft, seen, gone)]
        if len(free) == len(going):
            break
        going = free
    draft.going = {seen.name: seen for seen in going}


def remove_addresses(draft: Draft) -> None:
    """Addresses of the last document that are wanted no more, and all of bridges that go."""
    before = {network.bridge: network.bridge_addresses for network in draft.previous.networks}
    for seen in draft.seen.links:
        if seen.name in draft.going:
            addresses = own_addresses(seen)
        elif seen.name in draft.links and draft.marks.is_ours(seen.link):
            wanted = draft.links[seen.name].addresses
            former = {canonical_interface(text) for text in before.get(seen.name, ())}
            addresses = tuple(
                text for text in seen.link.addresses if text in former and text not in wanted
            )
        else:
            continue
        addresses = tuple(text for text in addresses if _is_unused(draft, seen, text))
        for text in addresses:
            draft.removed.add((seen.name, text))
        for text in addresses:
            # An IPv4 network's first address takes the others along, as a sysctl wants it.
            others = [
                other
                for other in own_addresses(seen)
                if other not in addresses and _is_one_network(other, text)
            ]
            # Found by its name again: the link may have been made anew until then.
            back = [
                Step(kind=StepKind.ADD_ADDRESS, link=seen.name, address=address)
                for address in (text, *others)
            ]
            draft.add(_step(StepKind.REMOVE_ADDRESS, draft, seen, address=text), *back)
            for other in others:
                draft.add(_step(StepKind.ADD_ADDRESS, draft, seen, address=other))


def delete_carried(draft: Draft) -> None:
    """VLANs and VXLAN links that go."""
    for seen in draft.going.values():
        if seen.link.kind != "bridge":
            draft.add(_step(StepKind.DELETE, draft, seen), *_make_again(draft, seen))


def delete_bridges(draft: Draft) -> None:
    """Ports that are wanted no more, and bridges that go."""
    wanted = {port.name for port in draft.wanted.ports}
    for bridge in draft.seen.links:
        if bridge.link.kind != "bridge" or not draft.marks.is_ours(bridge.link):
            continue
        for port in draft.foreign_ports(bridge):
            if port.name in wanted:
                continue
            if bridge.name in draft.going or draft.is_former_port(port):
                detach = _step(StepKind.DETACH, draft, port, bridge=bridge.name)
                draft.add(detach, _step(StepKind.ATTACH, draft, port, bridge=bridge.name))
    for seen in draft.going.values():
        if seen.link.kind == "bridge":
            draft.add(_step(StepKind.DELETE, draft, seen), *_make_again(draft, seen))


def is_same(wanted: WantedLink, draft: Draft, seen: SeenLink) -> bool:
    """Tell whether a link is the wanted one, as far as the kernel can't change it."""
    if wanted.kind != seen.link.kind:
        return False
    carrier = draft.seen.by_name.get(wanted.carrier)
    carrier_index = 0 if carrier is None else carrier.index
    if wanted.kind == "vlan":
        return seen.vlan_id == wanted.number and seen.carrier_index == carrier_index
    if wanted.kind == "vxlan":
        found = seen.vxlan
        return found is not None and (
            found.vni,
            found.local,
            found.group,
            found.port,
            found.carrier_index,
        ) == (wanted.number, wanted.local, wanted.group, wanted.port, carrier_index)
    return True


def _is_unused(draft: Draft, seen: SeenLink, text: str) -> bool:
    """Tell whether no route needs an address; a conflict otherwise."""
    interface = ipaddress.ip_interface(text)
    routes = [
        str(route)
        for route in draft.seen.routes
        if route.index == seen.index
        and (
            route.source == str(interface.ip)
            or (route.gateway and ipaddress.ip_address(route.gateway) in interface.network)
        )
    ]
    if routes:
        draft.conflicts.append(
            f"{seen.name} can't lose {text} while the route {names(routes)} needs it: remove that "
            "first, because taking the change back could not restore it"
        )
    return not routes


def _is_one_network(one: str, other: str) -> bool:
    return ipaddress.ip_interface(one).network == ipaddress.ip_interface(other).network


def _stays(draft: Draft, seen: SeenLink) -> bool:
    wanted = draft.links.get(seen.name)
    return wanted is not None and is_same(wanted, draft, seen)


def _may_go(draft: Draft, seen: SeenLink) -> bool:
    wanted = draft.links.get(seen.name)
    if wanted is not None:
        if "bridge" in (wanted.kind, seen.link.kind):
            draft.links.pop(seen.name)
            draft.conflicts.append(
                f"network {wanted.network}: {seen.name} is a {seen.link.kind} of this node and "
                f"can't become a {wanted.kind}: choose another name, or remove it first"
            )
            return False
        return True
    if seen.name in draft.unresolved:
        return False  # its conflict is told already
    if not draft.may_delete:
        draft.conflicts.append(
            f"{seen.name} carries this node's mark {seen.link.alias!r:.80} and is in no document: "
            "'novacronctl net apply' deletes it"
        )
        return False
    return True


def _is_free(draft: Draft, seen: SeenLink, gone: set[int]) -> bool:
    """Tell whether nobody else's link is carried by it or attached to it; a conflict otherwise."""
    carried = [
        other.name
        for other in draft.seen.links
        if other.carrier_index == seen.index and other.index not in gone
    ]
    # A port that the document wants elsewhere is in nobody's way.
    wanted = {port.name for port in draft.wanted.ports}
    ports = [
        port.name
        for port in draft.foreign_ports(seen)
        if port.name not in wanted and not draft.is_former_port(port)
    ]
    routes = [str(route) for route in draft.seen.routes if route.index == seen.index]
    verb = "be made anew" if seen.name in draft.links else "be deleted"
    if carried:
        draft.conflicts.append(
            f"{seen.name} can't {verb} while it carries {names(carried)}: remove that first"
        )
    elif routes:
        draft.conflicts.append(
            f"{seen.name} can't {verb} while the route {names(routes)} leads over it: remove that "
            "first, because taking the change back could not restore it"
        )
    elif ports and not draft.force:
        draft.conflicts.append(
            f"{seen.name} can't {verb} with {names(ports)} attached: detach that first, or use "
            "--force"
        )
    else:
        return True
    draft.links.pop(seen.name, None)
    return False


def _make_again(draft: Draft, seen: SeenLink) -> tuple[Step, ...]:
    """What brings a deleted link back; addresses and ports have steps of their own."""
    kind = {
        "bridge": StepKind.CREATE_BRIDGE,
        "vlan": StepKind.CREATE_VLAN,
        "vxlan": StepKind.CREATE_VXLAN,
    }[seen.link.kind]
    vxlan = seen.vxlan
    below = seen.carrier_index if vxlan is None else vxlan.carrier_index
    carrier = draft.seen.by_index.get(below or 0)
    create = Step(
        kind=kind,
        link=seen.name,
        mac=seen.link.mac,
        mtu=seen.link.mtu,
        carrier="" if carrier is None else carrier.name,
        number=(seen.vlan_id or 0) if vxlan is None else vxlan.vni,
        local="" if vxlan is None else vxlan.local,
        group="" if vxlan is None else vxlan.group,
        port=0 if vxlan is None else vxlan.port,
    )
    steps = [
        create,
        Step(kind=StepKind.SET_UP, link=seen.name, alias=seen.link.alias, mtu=seen.link.mtu),
    ]
    if master := draft.seen.master_of(seen):
        steps.append(Step(kind=StepKind.ATTACH, link=seen.name, bridge=master))
    steps += [
        Step(kind=StepKind.ADD_REMOTE, link=seen.name, address=remote) for remote in seen.remotes
    ]
    return tuple(steps)


def _step(
    kind: StepKind, draft: Draft, seen: SeenLink, *, address: str = "", bridge: str = ""
) -> Step:
    return Step(
        kind=kind,
        link=seen.name,
        network=draft.marks.network_of(seen.link) or "",
        index=seen.index,
        address=address,
        bridge=bridge,
    )
