"""What the health table says of nodes, as other processes get it. Pure; no driver is loaded.

All times and ages are the database server's: the clocks of the nodes take no part, so a node
whose clock is wrong is neither taken for dead nor for alive because of it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

# States in which a node ends: it says nothing any more, and need not.
FINAL_STATES = frozenset(("stopped", "failed"))
WAIT_MAX_S = 60.0
# An answer has to fit into a message of 1 MiB, also where every node has much to say.
PAGE_BYTES_MAX = 768 * 1024
UNWELL_MAX = 50
REASON_LENGTH_MAX = 300
_NODE_BYTES = 600
_COMPONENT_BYTES = 300


class Standing(enum.Enum):
    """A node as others see it.

    ``unknown`` is a node whose lease has run out: nobody can say how it is, least of all that it
    is well. ``unwell`` is one that is ready with a component that is not healthy.
    """

    READY = "ready"
    UNWELL = "unwell"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """One node as the table knows it.

    Attributes:
        node_id, boot_id, version, environment, roles: as the node wrote them.
        state: what the node last said: starting, ready, failed, stopping or stopped.
        phase: of its boot.
        started_s: when this boot began, Unix time.
        since_s: since when the state is this one, Unix time.
        in_state_s: the same as an age.
        silent_s: how long ago the node last renewed its row.
        lease_left_s: how long the row holds; below 0 it has run out.
    """

    node_id: str
    boot_id: str
    state: str
    phase: int
    version: str
    environment: str
    roles: tuple[str, ...]
    started_s: float
    since_s: float
    in_state_s: float
    silent_s: float
    lease_left_s: float

    @property
    def is_stale(self) -> bool:
        """The lease has run out, and the node did not say that it ends."""
        return self.lease_left_s < 0 and self.state not in FINAL_STATES

    def aged(self, seconds: float) -> NodeEntry:
        """The same row so much later."""
        return replace(
            self,
            in_state_s=self.in_state_s + seconds,
            silent_s=self.silent_s + seconds,
            lease_left_s=self.lease_left_s - seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentEntry:
    """One component of a node as the table knows it; ``in_state_s`` ago it became so."""

    component: str
    level: str
    phase: int
    failure: str
    state: str
    reason: str
    pid: int | None
    restarts: int
    updated_s: float
    in_state_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """A node and what is not healthy in it.

    Attributes:
        standing: what counts.
        standing_s: for how long; for an unknown node, since its lease ran out.
        node: the row.
        unwell: its components that are not healthy, as it last said.
    """

    standing: Standing
    standing_s: float
    node: NodeEntry
    unwell: tuple[ComponentEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchQuery:
    """Body of ``health.watch``.

    Attributes:
        mark: of the last answer; the call returns as soon as there is something newer. "" and
            a mark of another process are answered at once.
        wait_s: the longest wait.
    """

    mark: str = ""
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.wait_s <= WAIT_MAX_S:
            raise ValueError(f"wait_s is {self.wait_s:g}; 0 to {WAIT_MAX_S:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesPage:
    """What ``health.watch`` answers.

    Attributes:
        mark: for the next query.
        is_current: changes arrive; otherwise this is what was last known, and ages.
        own_id: the node that answers.
        nodes: by id; of each at most UNWELL_MAX components, with shortened reasons.
        left_out: nodes for which there was no room.
    """

    mark: str
    is_current: bool
    own_id: str
    nodes: tuple[NodeHealth, ...]
    left_out: int = 0


def judge(node: NodeEntry, unwell: tuple[ComponentEntry, ...]) -> NodeHealth:
    """Say how a node is to be seen."""
    standing, for_s = _standing(node, unwell)
    return NodeHealth(standing=standing, standing_s=max(0.0, for_s), node=node, unwell=unwell)


def fitting(nodes: tuple[NodeHealth, ...]) -> tuple[NodeHealth, ...]:
    """As much of the nodes as one answer holds: those that are not ready before those that are."""
    kept: list[NodeHealth] = []
    left = PAGE_BYTES_MAX
    for item in sorted(nodes, key=lambda item: item.standing is Standing.READY):
        unwell = tuple(
            replace(c, reason=c.reason[:REASON_LENGTH_MAX]) for c in item.unwell[:UNWELL_MAX]
        )
        left -= _NODE_BYTES + sum(_COMPONENT_BYTES + len(c.reason.encode()) for c in unwell)
        if left < 0:
            break
        kept.append(replace(item, unwell=unwell))
    return tuple(sorted(kept, key=lambda item: item.node.node_id))


def _standing(node: NodeEntry, unwell: tuple[ComponentEntry, ...]) -> tuple[Standing, float]:
    if node.is_stale:
        return Standing.UNKNOWN, -node.lease_left_s
    if node.state == Standing.READY.value and unwell:
        # From when on the first of them was not well; not before the node was ready.
        return Standing.UNWELL, min(node.in_state_s, max(c.in_state_s for c in unwell))
    try:
        return Standing(node.state), node.in_state_s
    except ValueError:  # a word of a newer program
        return Standing.UNKNOWN, node.in_state_s
