"""What has to be done so that the host has the networks of a document, and what undoes it. Pure.

Rules:
    1. Links that are not this node's are never made over, changed or deleted. Those that the
       document names as ports are attached and raised; ports of the last document that are none
       any more are detached.
    2. A link of this node that the document does not name is deleted, unless somebody else's link
       is attached to it or carried by it. ``force`` detaches ports; what is carried stays a
       conflict, because the kernel would delete it too and nothing could bring it back.
    3. On a bridge of this node, only addresses of the last document are removed; others that an
       operator added stay, and so do ports.
    4. An address whose network overlaps one on another link is never added.
    5. A link or address that a route of somebody else needs is not taken away: the kernel would
       drop the route too.
    6. Each step has the steps that undo it, and they lead back from any point of the plan.
Invariant: after all steps were applied to what was observed, the plan for the result is empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.network.networks import making, removing
from services.network.networks.draft import Draft
from services.network.networks.model import NetworksDocument
from services.network.networks.observed import Marks, Observed
from services.network.networks.resolve import WantedLink, resolve
from services.network.networks.steps import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworksPlan:
    """What would be done.

    Attributes:
        steps: in the order in which they are taken.
        undo: what leads back from any point of them, in the order in which it is taken.
        conflicts: what stands in the way, each with what to do; no step belongs to them.
        warnings: what works and perhaps not as meant.
    """

    steps: tuple[Step, ...] = ()
    undo: tuple[Step, ...] = ()
    conflicts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_networks(
    document: NetworksDocument,
    previous: NetworksDocument,
    seen: Observed,
    marks: Marks,
    *,
    force: bool = False,
    may_delete: bool = True,
) -> NetworksPlan:
    """Compare what is wanted with what there is.

    Args:
        document: what is wanted.
        previous: what was applied last; says which ports and addresses were ours.
        seen: the host's links.
        marks: tells which links are this node's.
        force: detach somebody else's ports of bridges that are deleted.
        may_delete: False leaves links that the document does not name, and tells of them.
    """
    draft = Draft(
        wanted=resolve(document, seen, marks),
        previous=previous,
        seen=seen,
        marks=marks,
        force=force,
        may_delete=may_delete,
    )
    draft.unresolved = _made_by(document) - {link.name for link in draft.wanted.links}
    draft.links = {link.name: link for link in draft.wanted.links if _may_have(draft, link)}
    removing.choose_going(draft)
    removing.remove_addresses(draft)
    removing.delete_carried(draft)
    making.make_links(draft)
    making.attach(draft)
    making.add_addresses(draft)
    making.set_remotes(draft)
    removing.delete_bridges(draft)
    return NetworksPlan(
        steps=tuple(step for step, _ in draft.changes),
        undo=tuple(step for _, undo in reversed(draft.changes) for step in undo),
        conflicts=(*draft.wanted.conflicts, *dict.fromkeys(draft.conflicts)),
        warnings=draft.wanted.warnings,
    )


def _may_have(draft: Draft, link: WantedLink) -> bool:
    """Tell whether a name is free or this node's; a conflict otherwise."""
    found = draft.seen.by_name.get(link.name)
    if found is None or draft.marks.is_ours(found.link):
        return True
    what = f"a {found.link.kind} link" if found.link.kind else "a physical link"
    mark = f"is marked {found.link.alias!r:.80}" if found.link.alias else "carries no mark"
    draft.conflicts.append(
        f"network {link.network}: {link.name} is {what} that {mark} and is not this node's to "
        "change: choose another name, or remove it"
    )
    return False


def _made_by(document: NetworksDocument) -> set[str]:
    return {
        name
        for network in document.networks
        for name in (
            network.bridge,
            *(vlan.link_name for vlan in network.vlans),
            *(vxlan.link_name for vxlan in network.vxlans),
        )
    }
