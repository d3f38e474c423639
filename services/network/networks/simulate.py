"""A host's links in memory: what steps would do to them. Pure.

Undoing uses it to tell which steps are still needed, wherever a change was cut off; tests use it in
place of the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from services.network.model import Link
from services.network.networks.observed import Marks, Observed, SeenLink, SeenVxlan, observed
from services.network.networks.steps import CREATING, Step, StepKind

_KINDS = {
    StepKind.CREATE_BRIDGE: "bridge",
    StepKind.CREATE_VLAN: "vlan",
    StepKind.CREATE_VXLAN: "vxlan",
}
_OF_ADDRESSES = (StepKind.ADD_ADDRESS, StepKind.REMOVE_ADDRESS)


@dataclass(slots=True, kw_only=True)
class HostLink:
    """One link; links are named, not numbered, so that they can be made again."""

    link: Link
    master: str = ""
    carrier: str = ""
    vlan_id: int | None = None
    vxlan: SeenVxlan | None = None
    stp: bool = False
    addresses: list[str] = field(default_factory=list)
    remotes: list[str] = field(default_factory=list)


class Host:
    """Links that steps are applied to.

    Args:
        seen: how the host is to begin with; it is not changed.
        marks: tells which links are this node's.
    """

    def __init__(self, seen: Observed, marks: Marks) -> None:
        self._marks = marks
        self._links = {item.name: _host_link(item, seen) for item in seen.links}
        self._next_index = max((item.index for item in seen.links), default=0) + 1

    def apply(self, step: Step) -> bool:
        """Take a step where it can be taken and changes something; False where not."""
        if step.kind in CREATING:
            return self._create(step)
        found = self._links.get(step.link)
        if found is None or (step.index and found.link.index != step.index):
            return False
        return _APPLY[step.kind](self, found, step)

    def index_of(self, name: str) -> int:
        """The number of a link; 0 where there is none."""
        found = self._links.get(name)
        return 0 if found is None else found.link.index

    def observed(self) -> Observed:
        """How the host is now."""
        indexes = {name: found.link.index for name, found in self._links.items()}
        return observed(
            tuple(
                SeenLink(
                    link=replace(
                        found.link,
                        bridge_index=indexes.get(found.master),
                        addresses=tuple(sorted(found.addresses)),
                    ),
                    carrier_index=indexes.get(found.carrier),
                    vlan_id=found.vlan_id,
                    vxlan=found.vxlan
                    and replace(found.vxlan, carrier_index=indexes.get(found.carrier, 0)),
                    stp=found.stp,
                    remotes=tuple(found.remotes),
                )
                for found in self._links.values()
            )
        )

    def is_ours(self, name: str) -> bool:
        """Tell whether this node made the link."""
        found = self._links.get(name)
        return found is not None and self._marks.is_ours(found.link)

    def delete(self, name: str) -> bool:
        """Delete a link of this node with what it carries; False where it is none."""
        if not self.is_ours(name):
            return False
        del self._links[name]
        for other in list(self._links.values()):
            if other.master == name:
                other.master = ""
            if other.carrier == name:
                self._links.pop(other.link.name, None)
        return True

    def _create(self, step: Step) -> bool:
        if step.link in self._links or (step.carrier and step.carrier not in self._links):
            return False
        vxlan = None
        if step.kind is StepKind.CREATE_VXLAN:
            vxlan = SeenVxlan(vni=step.number, local=step.local, group=step.group, port=step.port)
        self._links[step.link] = HostLink(
            link=Link(
                name=step.link,
                index=self._next_index,
                kind=_KINDS[step.kind],
                mac=step.mac,
                mtu=step.mtu,
            ),
            carrier=step.carrier,
            vlan_id=step.number if step.kind is StepKind.CREATE_VLAN else None,
            vxlan=vxlan,
        )
        self._next_index += 1
        return True


def pending(undo: Iterable[Step], seen: Observed, marks: Marks) -> tuple[Step, ...]:
    """The steps of an undo that are still needed, in their order.

    What is done already is left out, and so is what would touch a link that is not this node's any
    more: one that vanished, or that somebody else made or took under that name.
    """
    host = Host(seen, marks)
    return tuple(
        step
        for step in undo
        # Which address of a network takes the others along, the lists do not say; to take such a
        # step again does no harm.
        if host.apply(step) or (step.kind in _OF_ADDRESSES and host.is_ours(step.link))
    )


def _host_link(item: SeenLink, seen: Observed) -> HostLink:
    below = item.carrier_index if item.vxlan is None else item.vxlan.carrier_index
    carrier = seen.by_index.get(below or 0)
    return HostLink(
        link=item.link,
        master=seen.master_of(item),
        carrier="" if carrier is None else carrier.name,
        vlan_id=item.vlan_id,
        vxlan=item.vxlan,
        stp=item.stp,
        addresses=list(item.link.addresses),
        remotes=list(item.remotes),
    )


def _change(found: HostLink, **values: str | int) -> bool:
    before = found.link
    found.link = replace(before, **values)  # type: ignore[arg-type] # fields of Link
    return found.link != before


def _delete(host: Host, found: HostLink, _step: Step) -> bool:
    return host.delete(found.link.name)


def _set_up(_host: Host, found: HostLink, step: Step) -> bool:
    return _change(found, alias=step.alias, mtu=step.mtu, is_up=True)


def _lower(host: Host, found: HostLink, _step: Step) -> bool:
    return _is_free(host, found) and _change(found, is_up=False)


def _is_free(host: Host, found: HostLink) -> bool:
    """Tell whether nobody else has taken a link for a port."""
    return not found.master or host.is_ours(found.master)


def _attach(host: Host, found: HostLink, step: Step) -> bool:
    if not _is_free(host, found) or not host.index_of(step.bridge):
        return False
    if found.master == step.bridge and found.link.is_up:
        return False
    found.master = step.bridge
    _change(found, is_up=True)
    return True


def _detach(_host: Host, found: HostLink, step: Step) -> bool:
    if found.master != step.bridge:
        return False
    found.master = ""
    return True


def _remove_address(_host: Host, found: HostLink, step: Step) -> bool:
    if step.address not in found.addresses:
        return False
    network = ipaddress.ip_interface(step.address).network
    same = [text for text in found.addresses if ipaddress.ip_interface(text).network == network]
    # The first address of an IPv4 network takes the others along, without promote_secondaries.
    gone = same if network.version == 4 and same[0] == step.address else [step.address]
    found.addresses = [text for text in found.addresses if text not in gone]
    return True


def _set_stp(found: HostLink, *, to: bool) -> bool:
    before, found.stp = found.stp, to
    return before is not to


def _add(items: list[str], text: str) -> bool:
    if text in items:
        return False
    items.append(text)
    return True


def _remove(items: list[str], text: str) -> bool:
    if text not in items:
        return False
    items.remove(text)
    return True


_APPLY: dict[StepKind, Callable[[Host, HostLink, Step], bool]] = {
    StepKind.SET_UP: _set_up,
    StepKind.DELETE: _delete,
    StepKind.MARK: lambda _, found, step: _change(found, alias=step.alias),
    StepKind.SET_MTU: lambda _, found, step: _change(found, mtu=step.mtu),
    StepKind.RAISE: lambda _, found, _step: _change(found, is_up=True),
    StepKind.LOWER: _lower,
    StepKind.STP_OFF: lambda _, found, _step: _set_stp(found, to=False),
    StepKind.STP_ON: lambda _, found, _step: _set_stp(found, to=True),
    StepKind.ATTACH: _attach,
    StepKind.DETACH: _detach,
    StepKind.ADD_ADDRESS: lambda _, found, step: _add(found.addresses, step.address),
    StepKind.REMOVE_ADDRESS: _remove_address,
    StepKind.ADD_REMOTE: lambda _, found, step: _add(found.remotes, step.address),
    StepKind.REMOVE_REMOTE: lambda _, found, step: _remove(found.remotes, step.address),
}
