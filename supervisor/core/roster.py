"""The children of a supervisor in start order, and what has to be found fast among them.

A supervisor of a thousand children looks at none of them but those that something happens to:
the deadlines are in a heap, whoever waits for a start or a stop is in a list of its own.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Iterator

from supervisor.core.child import Child, ChildState
from supervisor.core.spec import FailureClass

# The heap keeps deadlines that no longer hold until they pass, or until there are so many.
_STALE_PER_CHILD_MAX = 8

_PENDING = frozenset((ChildState.WAITING, ChildState.STARTING))
_BUSY = frozenset((ChildState.STARTING, ChildState.STOPPING))


class Roster:
    """Children by id, in start order.

    Attributes:
        children: the records; changed through the methods alone.
        to_stop: ids of those that are alive and are to end, asked or not yet.
        starting, stopping: how many are.
        busy: how many start or stop whose restarts count against the intensity.
    """

    def __init__(self, children: Iterable[Child]) -> None:
        self.children: dict[str, Child] = {}
        self.to_stop: set[str] = set()
        self._retired = 0
        self._wishes = 0
        self.arrange(children)

    def arrange(self, children: Iterable[Child]) -> None:
        """Take these children, in this order, in place of the present ones."""
        children = tuple(children)
        old, self.children = self.children, {child.spec.id: child for child in children}
        for name, child in old.items():
            if self.children.get(name) is not child:
                self._retired = max(self._retired, child.incarnation)
        self.to_stop &= self.children.keys()
        self.starting = self.stopping = self.busy = self._explicit = 0
        self._declared = sum(child.spec.depends_on is not None for child in children)
        self._pending: list[tuple[int, str]] = []
        self._due: list[tuple[float, int, str]] = []
        for index, child in enumerate(children):
            child.index = index
            self._begin(child)
            self._enter(child)
            self.schedule(child)
        self._next_index = len(children)
        self._stops = [(-self.children[name].index, name) for name in self.to_stop]
        heapq.heapify(self._stops)
        self._stops_seen = (0, -1)

    def add(self, child: Child) -> None:
        """Put a child last."""
        child.index, self._next_index = self._next_index, self._next_index + 1
        self._declared += child.spec.depends_on is not None
        self.children[child.spec.id] = child
        self._begin(child)
        self._enter(child)
        self.schedule(child)

    def forget(self, child: Child) -> None:
        """Drop a child that is not alive; a later one of its name has higher incarnations."""
        self._leave(child)
        self._declared -= child.spec.depends_on is not None
        self._retired = max(self._retired, child.incarnation)
        del self.children[child.spec.id]

    def move(self, child: Child, state: ChildState) -> None:
        """Give a child another state."""
        self._leave(child)
        child.state = state
        self._enter(child)

    def schedule(self, child: Child) -> None:
        """Note when time alone moves the child on; to be called when that has changed."""
        if (at_s := child.due_s) is None:
            return
        if len(self._due) > 64 + _STALE_PER_CHILD_MAX * len(self.children):
            self._due = [entry for entry in self._due if self._holds(entry)]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (at_s, child.index, child.spec.id))

    def due_s(self) -> float | None:
        """When time alone changes something; None when only an event can."""
        while self._due and not self._holds(self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def take_due(self, now_s: float) -> Iterator[Child]:
        """The children whose time has come, each once.

        One whose pause is over is not named again: what it waits for then, no time can bring.
        """
        while self._due and self._due[0][0] <= now_s:
            entry = heapq.heappop(self._due)
            if self._holds(entry):
                yield self.children[entry[2]]

    def want_stop(self, child: Child) -> None:
        """A child that is alive is to end."""
        if child.spec.id not in self.to_stop:
            self.to_stop.add(child.spec.id)
            self._wishes += 1
            heapq.heappush(self._stops, (-child.index, child.spec.id))

    def last_to_stop(self) -> Child | None:
        """Who is to be asked next: the last in start order; each is named once."""
        while self._stops:
            child = self.children.get(heapq.heappop(self._stops)[1])
            if child is None or child.spec.id not in self.to_stop:
                continue
            if child.state is not ChildState.STOPPING:
                return child
        return None

    def free_to_stop(self) -> list[Child]:
        """Whom nobody needs any more that is to end as well, last first.

        A child is needed by those that depend on it, by those behind it that are in OTP's order,
        and by those of later boot phases.
        """
        seen = (len(self.to_stop), self._wishes)
        if seen == self._stops_seen:
            return []  # nobody has ended since, and nobody else is to
        self._stops_seen = seen
        ending = sorted((self.children[name] for name in self.to_stop), key=_index, reverse=True)
        latest = max((child.spec.phase for child in ending), default=0)
        free: list[Child] = []
        needed: set[str] = set()
        for child in ending:
            is_free = child.spec.phase == latest and child.spec.id not in needed
            if is_free and child.state is not ChildState.STOPPING:
                free.append(child)
            if child.spec.depends_on is None:
                break
            needed.update(child.spec.depends_on)
        return free

    @property
    def is_in_order(self) -> bool:
        """Whether all children are in OTP's order: each needs all before it."""
        return self._declared == 0

    def pending(self) -> Iterator[tuple[Child, bool]]:
        """Whoever waits for a start or is starting, in order; with whether all before are settled.

        Ends early where nobody further on could start.
        """
        all_settled = True
        for _, name in tuple(self._pending):
            if not all_settled and not self._explicit:
                return
            child = self.children[name]
            yield child, all_settled
            all_settled = all_settled and (child.is_settled or not child.wanted)

    def is_up(self) -> bool:
        """Whether all are settled that are wanted."""
        return all(
            (child := self.children[name]).is_settled or not child.wanted
            for _, name in self._pending
        )

    def _begin(self, child: Child) -> None:
        """A record that has had no process continues where earlier ones of its name ended."""
        if child.incarnation == 0:
            child.base = child.incarnation = self._retired

    def _holds(self, entry: tuple[float, int, str]) -> bool:
        child = self.children.get(entry[2])
        return child is not None and child.due_s == entry[0]

    def _enter(self, child: Child) -> None:
        self._count(child, 1)
        if child.state in _PENDING:
            bisect.insort(self._pending, (child.index, child.spec.id))

    def _leave(self, child: Child) -> None:
        self._count(child, -1)
        if child.state in _PENDING:
            at = bisect.bisect_left(self._pending, (child.index, child.spec.id))
            del self._pending[at]

    def _count(self, child: Child, change: int) -> None:
        self.starting += change * (child.state is ChildState.STARTING)
        self.stopping += change * (child.state is ChildState.STOPPING)
        if child.state in _BUSY and child.spec.failure is not FailureClass.DEGRADED:
            self.busy += change
        if child.state in _PENDING and child.spec.depends_on is not None:
            self._explicit += change


def _index(child: Child) -> int:
    return child.index
