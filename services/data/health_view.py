"""What one process knows of all nodes, and when that is another thing than before. Pure.

Rows arrive when somebody said that they changed, and all of them from time to time: a lease that
runs out is a change that nobody writes, and one that is renewed is told to nobody. So how a node
stands is decided when its row is read, and by ``expire`` when no row can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.data.health_records import (
    FINAL_STATES,
    ComponentEntry,
    NodeEntry,
    NodeHealth,
    Standing,
    judge,
)

Row = tuple[NodeEntry, tuple[ComponentEntry, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """A node stands otherwise than before; ``was`` is None for a node not seen before.

    ``now`` is None for one that is gone from the table.
    """

    node_id: str
    was: Standing | None
    now: Standing | None


@dataclass(slots=True)
class _Known:
    node: NodeEntry
    unwell: tuple[ComponentEntry, ...]
    read_s: float
    standing: Standing

    def at(self, now_s: float) -> NodeHealth:
        passed_s = now_s - self.read_s
        unwell = tuple(replace(c, in_state_s=c.in_state_s + passed_s) for c in self.unwell)
        found = judge(self.node.aged(passed_s), unwell)
        return found if found.standing is self.standing else replace(found, standing=self.standing)

    def essence(self) -> tuple[object, ...]:
        """What makes it another one to somebody who watches; not its age."""
        node = self.node
        components = tuple((c.component, c.state, c.reason, c.restarts) for c in self.unwell)
        return (node.boot_id, node.state, node.phase, node.version, self.standing, components)


class HealthView:
    """All nodes as last read.

    Attributes:
        version: grows whenever something that can be seen has changed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._known: dict[str, _Known] = {}

    def take(
        self, rows: Iterable[Row], *, asked: frozenset[str] | None, now_s: float
    ) -> list[NodeChange]:
        """Take in rows that were read.

        Args:
            rows: what was found.
            asked: the ids that were asked for, None for all; who was not found is gone.
            now_s: monotonic time.
        """
        found: dict[str, _Known] = {}
        for node, unwell in rows:
            standing = judge(node, unwell).standing
            found[node.node_id] = _Known(node, unwell, now_s, standing)
        changes = []
        for node_id in sorted((self._known.keys() if asked is None else asked) - found.keys()):
            if (gone := self._known.pop(node_id, None)) is not None:
                changes.append(NodeChange(node_id=node_id, was=gone.standing, now=None))
                self.version += 1
        for node_id, known in found.items():
            before = self._known.get(node_id)
            self._known[node_id] = known
            if before is None or before.essence() != known.essence():
                self.version += 1
            was = before.standing if before is not None else None
            if was is not known.standing:
                changes.append(NodeChange(node_id=node_id, was=was, now=known.standing))
        return changes

    def expire(self, now_s: float) -> list[NodeChange]:
        """Note whose lease has run out by now, for a view that gets no rows at the moment."""
        changes = []
        for node_id, known in self._known.items():
            standing = judge(known.node.aged(now_s - known.read_s), known.unwell).standing
            if standing is not known.standing:
                changes.append(NodeChange(node_id=node_id, was=known.standing, now=standing))
                known.standing = standing
                self.version += 1
        return changes

    def next_expiry_s(self, now_s: float) -> float | None:
        """Seconds until the first lease ends that matters, 0 if it has; None where none does."""
        left = [
            known.node.lease_left_s - (now_s - known.read_s)
            for known in self._known.values()
            if known.standing is not Standing.UNKNOWN and known.node.state not in FINAL_STATES
        ]
        return max(0.0, min(left)) if left else None

    def nodes(self, now_s: float) -> tuple[NodeHealth, ...]:
        """All nodes as they are now, by id."""
        return tuple(self._known[node_id].at(now_s) for node_id in sorted(self._known))
