"""The decisions of a supervisor, recorded while somebody reads them and not otherwise.

Nothing is kept and nothing is spent until the first reader asks, and everything is dropped
LINGER_S after the last one did.
"""

from __future__ import annotations

import enum
import os
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from protocol.dataclass import dataclass, fields_of, is_dataclass
from protocol.messages.trace import Decision, TraceItem, TracePage, TraceQuery
from protocol.records import Plain
from supervisor.core.actions import Action, Changed
from supervisor.core.child import ChildState
from supervisor.core.events import Event
from supervisor.core.spec import ChildSpec, SupervisorSpec

if TYPE_CHECKING:
    from supervisor.core.supervisor import Supervisor

# A restart of a large group takes some five decisions per child; a reader comes back within
# milliseconds.
DECISIONS_MAX = 2048
# So many decisions of ACTIONS_MAX actions and two long texts each are well below a message's limit.
PAGE_DECISIONS_MAX = 100
ACTIONS_MAX = 32
TEXT_LENGTH_MAX = 500
WAIT_S_MAX = 60.0
READERS_MAX = 8
LINGER_S = 10.0
# Decisions come in bursts; each answer wakes a process that would compete with the children.
GATHER_S = 0.025

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class _Reader:
    query: TraceQuery
    deadline_s: float
    answer: Callable[[TracePage], None]


class Recorder:
    """Keeps the last decisions of one supervisor for its readers.

    Args:
        path: the supervisor's.

    Attributes:
        is_on: whether decisions are to be handed to ``add``.
    """

    def __init__(self, path: str) -> None:
        self.is_on = False
        self._path = path
        self._recording = ""
        self._decisions: deque[Decision] = deque(maxlen=DECISIONS_MAX)
        self._next = 1
        self._readers: list[_Reader] = []
        self._gather_until_s: float | None = None
        self._ends_s = 0.0

    def add(
        self, event: Event, decided: Sequence[Action], machine: Supervisor, now_s: float
    ) -> None:
        """Record one step of the state machine, before its actions are carried out."""
        decision = Decision(
            seq=self._next,
            time_s=time.time(),
            at_s=now_s,
            supervisor=self._path,
            mode=machine.mode.value,
            used=machine.restarts_in_window(now_s),
            intensity=machine.spec.intensity.intensity,
            event=describe(event),
            actions=_describe_actions(decided, machine, now_s),
        )
        self._next += 1
        self._decisions.append(decision)
        if self._readers and self._gather_until_s is None:
            self._gather_until_s = now_s + GATHER_S

    def read(self, query: TraceQuery, now_s: float, answer: Callable[[TracePage], None]) -> None:
        """Answer a query now, or as soon as there is something, or when its wait is over.

        Too many waiting readers push out the oldest, which gets what there is.
        """
        if not self.is_on:
            self.is_on, self._recording, self._next = True, os.urandom(4).hex(), 1
        self._ends_s = now_s + LINGER_S
        page = self._page(query)
        is_new = query.recording != self._recording  # it learns at once that it may rely on it
        if page.decisions or query.wait_s <= 0 or is_new:
            answer(page)
            return
        if len(self._readers) >= READERS_MAX:
            oldest = self._readers.pop(0)
            oldest.answer(self._page(oldest.query))
        deadline_s = now_s + min(query.wait_s, WAIT_S_MAX)
        self._readers.append(_Reader(query, deadline_s, answer))

    def due_s(self) -> float | None:
        """When ``turn`` is needed next; None while nothing is recorded."""
        if not self.is_on:
            return None
        due = [reader.deadline_s for reader in self._readers] or [self._ends_s]
        if self._gather_until_s is not None:
            due.append(self._gather_until_s)
        return min(due)

    def turn(self, now_s: float) -> None:
        """Answer the readers that have something to read or have waited long enough."""
        is_due = self._gather_until_s is not None and self._gather_until_s <= now_s
        if is_due:
            self._gather_until_s = None
        staying = []
        for reader in self._readers:
            if is_due or reader.deadline_s <= now_s:
                reader.answer(self._page(reader.query))
                self._ends_s = now_s + LINGER_S
            else:
                staying.append(reader)
        self._readers = staying
        if not staying and self._ends_s <= now_s:
            self.is_on = False
            self._decisions.clear()
            self._gather_until_s = None

    def _page(self, query: TraceQuery) -> TracePage:
        since = self._since(query)
        first = self._decisions[0].seq if self._decisions else self._next
        start = max(0, since - first)
        limit = max(1, min(query.limit, PAGE_DECISIONS_MAX))
        found = tuple(
            self._decisions[index]
            for index in range(start, min(start + limit, len(self._decisions)))
        )
        return TracePage(
            recording=self._recording,
            decisions=found,
            next=found[-1].seq + 1 if found else max(1, min(since, self._next)),
            lost=max(0, first - max(since, 1)),
        )

    def _since(self, query: TraceQuery) -> int:
        """Where a reader is: a new one at the end, one of another recording at the beginning."""
        if not query.recording:
            return self._next
        return query.since if query.recording == self._recording else 1


def describe(item: object) -> TraceItem:
    """An event or action by its class's name and its plain fields.

    By fields and not by a match over all of them, so that what is new is shown at once. A
    specification is shown by its size alone: settings may hold secrets.
    """
    fields: dict[str, Plain] = {}
    assert is_dataclass(item)
    for field in fields_of(type(item)):
        fields.update(_describe_field(field.name, getattr(item, field.name)))
    return TraceItem(name=_WORD.sub("_", type(item).__name__).lower(), fields=fields)


def _describe_actions(
    decided: Sequence[Action], machine: Supervisor, now_s: float
) -> tuple[TraceItem, ...]:
    found = [_describe_action(action, machine, now_s) for action in decided[:ACTIONS_MAX]]
    if len(decided) > ACTIONS_MAX:
        found.append(TraceItem(name="more", fields={"count": len(decided) - ACTIONS_MAX}))
    return tuple(found)


def _describe_action(action: Action, machine: Supervisor, now_s: float) -> TraceItem:
    if not isinstance(action, Changed):
        return describe(action)
    child = machine.children.get(action.id)
    if child is None:
        return TraceItem(name="changed", fields={"id": action.id, "state": "gone"})
    fields: dict[str, Plain] = {"id": action.id, "state": child.state.value}
    if child.failures:
        fields["failures"] = child.failures
    is_planned = child.wanted and child.state in (ChildState.WAITING, ChildState.DEGRADED)
    if is_planned and child.not_before_s > now_s:
        fields["retry_in_s"] = round(child.not_before_s - now_s, 6)
    return TraceItem(name="changed", fields=fields)


def _describe_field(name: str, value: object) -> dict[str, Plain]:
    if isinstance(value, ChildSpec):
        return {"id": value.id, "type": value.type.value}
    if isinstance(value, SupervisorSpec):
        return {"children": len(value.children)}
    if isinstance(value, enum.Enum):
        return {name: value.value}
    if value is None or isinstance(value, (bool, int, float)):
        return {name: value}
    if isinstance(value, str):
        return {name: value[:TEXT_LENGTH_MAX]}
    if is_dataclass(value) and not isinstance(value, type):
        inner: dict[str, Plain] = {}
        for field in fields_of(type(value)):
            inner.update(_describe_field(field.name, getattr(value, field.name)))
        return {name: {key: item for key, item in inner.items() if item not in ("", 0, None)}}
    return {}  # nothing that a person could read
