"""The health table: every component's state, written on each change, read by any node.

Writing is idempotent: a row is replaced by a later record of the same boot or by another boot's,
so a journal read twice changes nothing. Durability is not waited for (``synchronous_commit
off``): what a crash of the server loses is a fraction of a second, and the next boot writes anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from protocol.messages.journal import JournalPage
from protocol.messages.status import NodeStatus
from services.data import health_rows
from services.data.health_rows import ComponentRow, NodeRow
from services.version import VERSION

Connection = AsyncConnection[Any]  # Any: rows are tuples or whatever the caller set

_UPSERT_NODE = """
    INSERT INTO node AS n (node_id, boot_id, seq, state, phase, version, environment, roles,
                           started_at, last_seen_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s), now())
    ON CONFLICT (node_id) DO UPDATE SET
        boot_id = excluded.boot_id, seq = excluded.seq, state = excluded.state,
        phase = excluded.phase, version = excluded.version, environment = excluded.environment,
        roles = excluded.roles, last_seen_at = excluded.last_seen_at,
        started_at = CASE WHEN n.boot_id = excluded.boot_id
                          THEN least(n.started_at, excluded.started_at)
                          ELSE excluded.started_at END
    WHERE n.boot_id <> excluded.boot_id OR n.seq <= excluded.seq
"""
_UPSERT_COMPONENT = """
    INSERT INTO component_health AS h (node_id, component, level, phase, failure, state, reason,
                                       pid, restarts, boot_id, seq, updated_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s))
    ON CONFLICT (node_id, component) DO UPDATE SET
        level = excluded.level, phase = excluded.phase, failure = excluded.failure,
        state = excluded.state, reason = excluded.reason, pid = excluded.pid,
        restarts = excluded.restarts, boot_id = excluded.boot_id, seq = excluded.seq,
        updated_at = excluded.updated_at
    WHERE h.boot_id <> excluded.boot_id OR h.seq < excluded.seq
"""
_DELETE_EARLIER_BOOTS = "DELETE FROM component_health WHERE node_id = %s AND boot_id <> %s"
_STOP_NODE = "UPDATE node SET state = 'stopped', last_seen_at = now() WHERE node_id = %s"
_STOP_COMPONENTS = """
    UPDATE component_health
    SET state = 'stopped', reason = 'the node was stopped', pid = NULL, updated_at = now()
    WHERE node_id = %s
"""
_SELECT_NODES = """
    SELECT node_id, boot_id, state, phase, version, environment, roles,
           extract(epoch FROM started_at)::float8, extract(epoch FROM last_seen_at)::float8
    FROM node ORDER BY node_id
"""
_SELECT_COMPONENTS = """
    SELECT component, level, phase, failure, state, reason, pid, restarts,
           extract(epoch FROM updated_at)::float8
    FROM component_health WHERE node_id = %s ORDER BY component
"""


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One node as the table knows it; a node that does not stop in order stays as it was.

    Compare ``last_seen_s`` with the clock: a running node renews it every 20 seconds.
    """

    node_id: str
    boot_id: str
    state: str
    phase: int
    version: str
    environment: str
    roles: tuple[str, ...]
    started_s: float
    last_seen_s: float


@dataclass(frozen=True, slots=True)
class ComponentEntry:
    """One component of a node as the table knows it."""

    component: str
    level: str
    phase: int
    failure: str
    state: str
    reason: str
    pid: int | None
    restarts: int
    updated_s: float


class HealthWriter:
    """Turns journal pages into rows of one node.

    Args:
        node_id: whose rows.
        environment, roles: for the node's row.
    """

    def __init__(self, *, node_id: str, environment: str, roles: Sequence[str]) -> None:
        self._node_id = node_id
        self._environment = environment
        self._roles = list(roles)
        self._boot_id = ""
        self._node: NodeRow | None = None

    @property
    def is_stopping(self) -> bool:
        """The node's last record says that it stops as a whole."""
        return self._node is not None and self._node.state == health_rows.STOPPING

    async def write(
        self, connection: Connection, page: JournalPage, status: NodeStatus | None = None
    ) -> int:
        """Write what a page says, in one transaction.

        Args:
            connection: in autocommit mode.
            page: also an empty one, which only says that the node is still there.
            status: everything, where the page follows a gap.

        Returns:
            How many components the page or the status speaks of.
        """
        before = self._node if page.boot_id == self._boot_id else None
        node = health_rows.node_row(page.records, before)
        components = health_rows.component_rows(page.records)
        if status is not None:
            node = health_rows.node_row_of_status(status, page)
            components = health_rows.rows_of_status(status, page, time.time())
        if node is None:  # what happens before the first phase's end
            started_s = page.records[0].time_s if page.records else time.time()
            node = NodeRow(state=health_rows.STARTING, phase=0, seq=0, started_s=started_s)
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit TO off")
            await connection.execute(_UPSERT_NODE, self._node_values(page.boot_id, node))
            if page.boot_id != self._boot_id:
                await connection.execute(_DELETE_EARLIER_BOOTS, [self._node_id, page.boot_id])
            if components:
                values = [self._component_values(page.boot_id, row) for row in components]
                await connection.cursor().executemany(_UPSERT_COMPONENT, values)
        self._boot_id, self._node = page.boot_id, node
        return len(components)

    async def write_stopped(self, connection: Connection) -> None:
        """Say that the node and all its components are down."""
        async with connection.transaction():
            await connection.execute(_STOP_NODE, [self._node_id])
            await connection.execute(_STOP_COMPONENTS, [self._node_id])

    def _node_values(self, boot_id: str, row: NodeRow) -> list[object]:
        return [
            self._node_id,
            boot_id,
            row.seq,
            row.state,
            row.phase,
            VERSION,
            self._environment,
            self._roles,
            row.started_s,
        ]

    def _component_values(self, boot_id: str, row: ComponentRow) -> list[object]:
        return [
            self._node_id,
            row.component,
            row.level,
            row.phase,
            row.failure,
            row.state,
            row.reason,
            row.pid,
            row.restarts,
            boot_id,
            row.seq,
            row.time_s,
        ]


async def read_nodes(connection: Connection) -> tuple[NodeEntry, ...]:
    """All nodes that share the database."""
    cursor = await connection.execute(_SELECT_NODES)
    return tuple([_node_entry(row) async for row in cursor])


async def read_components(connection: Connection, node_id: str) -> tuple[ComponentEntry, ...]:
    """A node's components, by path."""
    cursor = await connection.execute(_SELECT_COMPONENTS, [node_id])
    return tuple([ComponentEntry(*row) async for row in cursor])


def _node_entry(row: tuple[Any, ...]) -> NodeEntry:
    node_id, boot_id, state, phase, version, environment, roles, started_s, last_seen_s = row
    return NodeEntry(
        node_id=node_id,
        boot_id=boot_id,
        state=state,
        phase=phase,
        version=version,
        environment=environment,
        roles=tuple(roles),
        started_s=started_s,
        last_seen_s=last_seen_s,
    )
