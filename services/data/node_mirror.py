"""What Redis is told about a node: the documents to store and the events to publish.

Shapes, all JSON; ``<id>`` is the node's:

    novacron:node:<id>:status      {"node_id", "boot_id", "state", "phase", "seq", "updated_s"}
    novacron:node:<id>:components  hash: component's path -> {"state", "reason", "level", "phase",
                                   "failure", "pid", "restarts", "seq", "updated_s"}
    channel novacron:events        {"node_id", "boot_id", "seq", "time_s", "name", "component",
                                   "correlation", "fields"}, one per journal record
    channel novacron:health        {"node_id", "component"} of each state that changed, "" for the
                                   node's own: the same as PostgreSQL notifies

``seq`` is the journal's. Events come at least once; (boot_id, seq) tells them apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.messages.journal import JournalPage, JournalRecord
from protocol.messages.status import NodeStatus
from services.data import health_rows
from services.data.health_rows import ComponentRow, NodeRow

EVENTS_CHANNEL = "novacron:events"
HEALTH_CHANNEL = "novacron:health"


def status_key(node_id: str) -> str:
    """Where a node's status is stored."""
    return f"novacron:node:{node_id}:status"


def components_key(node_id: str) -> str:
    """Where the states of a node's components are stored."""
    return f"novacron:node:{node_id}:components"


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorUpdate:
    """What to store and to publish.

    Attributes:
        status: the node's document.
        components: documents by path.
        is_whole: ``components`` is all there are; others are to be forgotten.
        changes: of states, to be published.
        events: in order.
    """

    status: str
    components: dict[str, str]
    is_whole: bool
    changes: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


class NodeMirror:
    """Follows the journal and says what changes.

    Args:
        node_id: whose journal it is.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._boot_id = ""
        self._seq = 0
        self._node: NodeRow | None = None
        self._components: dict[str, str] = {}
        self._published = ("", 0)

    def published_to(self, status: str) -> None:
        """Take over where an earlier process of this node stopped publishing.

        Args:
            status: the document that it stored; one that can't be read counts for nothing.
        """
        try:
            document = json.loads(status)
            self._published = (str(document["boot_id"]), int(document["seq"]))
        except (ValueError, KeyError, TypeError):
            return

    def apply(
        self, page: JournalPage, *, now_s: float, status: NodeStatus | None = None
    ) -> MirrorUpdate:
        """Take in a page, and everything where it follows a gap."""
        before = self._node.state if self._node is not None else ""
        is_new_boot = page.boot_id != self._boot_id
        if is_new_boot:
            self._boot_id, self._node, self._components = page.boot_id, None, {}
        self._seq = page.next - 1
        self._node = health_rows.node_row(page.records, self._node)
        rows = health_rows.component_rows(page.records)
        if status is not None:
            self._node = health_rows.node_row_of_status(status, page)
            rows = health_rows.rows_of_status(status, page, now_s)
            self._components = {}
        changed = {row.component: _component_document(row) for row in rows}
        self._components |= changed
        return MirrorUpdate(
            status=self._status_document(now_s),
            components=changed,
            is_whole=is_new_boot or status is not None,
            changes=self._changes(changed, before),
            events=self._unpublished(page),
        )

    def whole(self, now_s: float) -> MirrorUpdate | None:
        """Everything, for a Redis that was away; None before the first page."""
        if not self._boot_id:
            return None
        return MirrorUpdate(
            status=self._status_document(now_s),
            components=dict(self._components),
            is_whole=True,
        )

    def _changes(self, components: Iterable[str], before: str) -> tuple[str, ...]:
        names = [*components]
        if self._node is not None and self._node.state != before:
            names.append("")
        return tuple(
            json.dumps({"node_id": self._node_id, "component": component}) for component in names
        )

    def _unpublished(self, page: JournalPage) -> tuple[str, ...]:
        boot_id, seq = self._published
        fresh = [r for r in page.records if page.boot_id != boot_id or r.seq > seq]
        self._published = (page.boot_id, page.next - 1)
        return tuple(self._event_document(page.boot_id, record) for record in fresh)

    def _status_document(self, now_s: float) -> str:
        node = self._node
        return json.dumps(
            {
                "node_id": self._node_id,
                "boot_id": self._boot_id,
                "state": node.state if node else health_rows.STARTING,
                "phase": node.phase if node else 0,
                "seq": self._seq,
                "updated_s": now_s,
            }
        )

    def _event_document(self, boot_id: str, record: JournalRecord) -> str:
        return json.dumps(
            {
                "node_id": self._node_id,
                "boot_id": boot_id,
                "seq": record.seq,
                "time_s": record.time_s,
                "name": record.name,
                "component": record.component,
                "correlation": record.correlation,
                "fields": record.fields,
            },
            default=_bytes_as_text,
        )


def _component_document(row: ComponentRow) -> str:
    return json.dumps(
        {
            "state": row.state,
            "reason": row.reason,
            "level": row.level,
            "phase": row.phase,
            "failure": row.failure,
            "pid": row.pid,
            "restarts": row.restarts,
            "seq": row.seq,
            "updated_s": row.time_s,
        }
    )


def _bytes_as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"an event can't hold a {type(value).__name__}")
