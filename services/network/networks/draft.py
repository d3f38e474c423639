"""A plan in the making: what it is made from, and the changes and conflicts found so far. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from services.network.networks.model import NetworksDocument
from services.network.networks.observed import Marks, Observed, SeenLink
from services.network.networks.resolve import Wanted, WantedLink
from services.network.networks.steps import Step

_NAMES_TOLD = 5


@dataclass(slots=True, kw_only=True)
class Draft:
    """See ``plan.plan_networks`` for what it is made from.

    Attributes:
        links: what is wanted of links and can be had.
        changes: the steps, each with what undoes it.
        unresolved: names of wanted links that can not be had now; links of that name stay.
        going: links of this node that are deleted, or made anew under their name.
        removed: links and addresses that are taken from them.
    """

    wanted: Wanted
    previous: NetworksDocument
    seen: Observed
    marks: Marks
    force: bool
    may_delete: bool
    links: dict[str, WantedLink] = field(default_factory=dict)
    changes: list[tuple[Step, tuple[Step, ...]]] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    unresolved: set[str] = field(default_factory=set)
    going: dict[str, SeenLink] = field(default_factory=dict)
    removed: set[tuple[str, str]] = field(default_factory=set)

    def add(self, step: Step, *undo: Step) -> None:
        """One more step, and what undoes it."""
        self.changes.append((step, undo))

    def standing(self, name: str) -> SeenLink | None:
        """A link that is there and stays."""
        return None if name in self.going else self.seen.by_name.get(name)

    def foreign_ports(self, bridge: SeenLink) -> Iterator[SeenLink]:
        """Ports of a bridge that no network of this node made."""
        for seen in self.seen.ports_of.get(bridge.index, ()):
            if not self.marks.is_ours(seen.link):
                yield seen

    def is_former_port(self, port: SeenLink) -> bool:
        """Tell whether the last document attached it where it is."""
        master = self.seen.master_of(port)
        return any(
            network.bridge == master and port.name in network.ports
            for network in self.previous.networks
        )


def names(found: Iterable[str]) -> str:
    """Some of them, for a message."""
    listed = list(found)
    more = f" and {len(listed) - _NAMES_TOLD} more" if len(listed) > _NAMES_TOLD else ""
    return ", ".join(listed[:_NAMES_TOLD]) + more


def own_addresses(seen: SeenLink) -> tuple[str, ...]:
    """A link's addresses without those that the kernel gives it by itself."""
    return tuple(
        text for text in seen.link.addresses if not ipaddress.ip_interface(text).is_link_local
    )
