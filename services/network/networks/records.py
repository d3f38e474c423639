"""What the calls about networks answer; light, because the command line reads it too."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from services.network.networks.model import NetworksDocument
from services.network.networks.steps import Step


class NetworksState(enum.Enum):
    """How the networks are."""

    NONE = "none"  # never applied on this node
    IN_FORCE = "in_force"
    DRIFTED = "drifted"  # the host has something else than what was applied
    FAILED = "failed"  # the kernel refused, or a change could not be taken back


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworksStatus:
    """How the networks are; ``reason`` is a sentence unless none or in force."""

    state: NetworksState
    reason: str = ""
    revision: int = 0
    applied_s: float | None = None
    networks: int = 0
    repairs: int = 0
    restored: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReply:
    """Reply to ``networks.plan``.

    Attributes:
        revision: of what was applied last; 0 where nothing ever was.
        steps: in the order in which they would be taken.
        omitted: how many more there are.
        conflicts: what stands in the way; an apply would be refused.
        warnings: what works and perhaps not as meant.
    """

    revision: int
    steps: tuple[Step, ...] = ()
    omitted: int = 0
    conflicts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A change that was confirmed.

    Attributes:
        steps: how many were taken.
        checked: what answered before and after, such as ``gateway 192.0.2.1``.
        change_s: how long the kernel took.
        total_s: from the document to the confirmation on disk.
    """

    revision: int
    steps: int
    checked: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    change_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """A link that was made for a network, as the host has it; not all ports may be listed."""

    name: str
    network: str
    kind: str
    is_up: bool
    mtu: int
    master: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    ports_omitted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworksView:
    """Reply to ``networks.show``: what is wanted, and the links as the host has them."""

    status: NetworksStatus
    document: NetworksDocument | None = None
    links: tuple[LinkView, ...] = ()
    omitted: int = 0
