"""The health table: every component's state, written on each change, read by any node.

Writing is idempotent: a row is replaced by a later record of the same boot or by another boot's,
so a journal read twice changes nothing. Durability is not waited for (``synchronous_commit
off``): what a crash of the server loses is a fraction of a second, and the next boot writes anew.

Each write renews the node's lease, an empty page's too. Times in the table are the server's: a
node says how long ago something was, by its own clock, and the server counts back from now.
The table's triggers notify ``CHANNEL`` of whatever becomes another one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from protocol.messages.journal import JournalPage
from protocol.messages.status import NodeStatus
from services.data import health_rows
from services.data.columns import columns, unnest
from services.data.health_records import ComponentEntry, NodeEntry
from services.data.health_rows import ComponentRow, NodeRow
from services.version import VERSION

Connection = AsyncConnection[Any]  # Any: rows are tuples or whatever the caller set

# What the triggers notify; the payload is {"node_id", "component"}, "" for the node itself.
CHANNEL = "novacron_health"

_UPSERT_NODE = """
    INSERT INTO node AS n (node_id, boot_id, seq, state, phase, version, environment, roles,
                           started_at, last_seen_at, changed_at, lease_until)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now() - make_interval(secs => %s), now(), now(),
            now() + make_interval(secs => %s))
    ON CONFLICT (node_id) DO UPDATE SET
        boot_id = excluded.boot_id, seq = excluded.seq, state = excluded.state,
        phase = excluded.phase, version = excluded.version, environment = excluded.environment,
        roles = excluded.roles, last_seen_at = excluded.last_seen_at,
        lease_until = excluded.lease_until,
        changed_at = CASE WHEN n.boot_id = excluded.boot_id AND n.state = excluded.state
                          THEN n.changed_at ELSE excluded.changed_at END,
        started_at = CASE WHEN n.boot_id = excluded.boot_id
                          THEN least(n.started_at, excluded.started_at)
                          ELSE excluded.started_at END
    WHERE n.boot_id <> excluded.boot_id OR n.seq <= excluded.seq
"""
_COMPONENT_COLUMNS = (
    "node_id, component, level, phase, failure, state, reason, pid, restarts, boot_id, seq"
)
_COMPONENT_TYPES = (
    "text, text, text, integer, text, text, text, integer, integer, text, bigint, double precision"
)
_UPSERT_COMPONENTS = f"""
    INSERT INTO component_health AS h ({_COMPONENT_COLUMNS}, updated_at)
    SELECT {_COMPONENT_COLUMNS}, now() - make_interval(secs => age_s)
    FROM {unnest(_COMPONENT_TYPES)} AS given ({_COMPONENT_COLUMNS}, age_s)
    ON CONFLICT (node_id, component) DO UPDATE SET
        level = excluded.level, phase = excluded.phase, failure = excluded.failure,
        state = excluded.state, reason = excluded.reason, pid = excluded.pid,
        restarts = excluded.restarts, boot_id = excluded.boot_id, seq = excluded.seq,
        updated_at = excluded.updated_at
    WHERE h.boot_id <> excluded.boot_id OR h.seq < excluded.seq
"""  # noqa: S608 - constants
_DELETE_EARLIER_BOOTS = "DELETE FROM component_health WHERE node_id = %s AND boot_id <> %s"
_STOP_NODE = """
    UPDATE node SET state = 'stopped', last_seen_at = now(), changed_at = now(), lease_until = now()
    WHERE node_id = %s
"""
_STOP_COMPONENTS = """
    UPDATE component_health
    SET state = 'stopped', reason = 'the node was stopped', pid = NULL, updated_at = now()
    WHERE node_id = %s
"""
_SELECT_NODES = """
    SELECT node_id, boot_id, state, phase, version, environment, roles,
           extract(epoch FROM started_at)::float8 AS started_s,
           extract(epoch FROM changed_at)::float8 AS since_s,
           extract(epoch FROM now() - changed_at)::float8 AS in_state_s,
           extract(epoch FROM now() - last_seen_at)::float8 AS silent_s,
           extract(epoch FROM lease_until - now())::float8 AS lease_left_s
    FROM node WHERE %(ids)s::text[] IS NULL OR node_id = ANY(%(ids)s) ORDER BY node_id
"""
_SELECT_COMPONENTS = """
    SELECT node_id, component, level, phase, failure, state, reason, pid, restarts,
           extract(epoch FROM updated_at)::float8 AS updated_s,
           extract(epoch FROM now() - updated_at)::float8 AS in_state_s
    FROM component_health
    WHERE (%(ids)s::text[] IS NULL OR node_id = ANY(%(ids)s))
      AND (state <> 'healthy' OR NOT %(unwell)s)
    ORDER BY node_id, component
"""


class HealthWriter:
    """Turns journal pages into rows of one node.

    Args:
        node_id: whose rows.
        environment, roles: for the node's row.
        lease_s: how long the node's row holds unless it is written again.
    """

    def __init__(
        self, *, node_id: str, environment: str, roles: Sequence[str], lease_s: float
    ) -> None:
        self._node_id = node_id
        self._lease_s = lease_s
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
                await connection.execute(_UPSERT_COMPONENTS.encode(), columns(values))
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
            _age_s(row.started_s),
            self._lease_s,
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
            _age_s(row.time_s),
        ]


async def read_nodes(
    connection: Connection, node_ids: Sequence[str] | None = None
) -> tuple[NodeEntry, ...]:
    """The nodes that share the database: all, or those named."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SELECT_NODES, {"ids": _ids(node_ids)})
        return tuple([NodeEntry(**{**row, "roles": tuple(row["roles"])}) async for row in cursor])


async def read_components(connection: Connection, node_id: str) -> tuple[ComponentEntry, ...]:
    """A node's components, by path."""
    found = await _components(connection, [node_id], only_unwell=False)
    return found.get(node_id, ())


async def read_view(
    connection: Connection, node_ids: Sequence[str] | None = None
) -> tuple[tuple[NodeEntry, tuple[ComponentEntry, ...]], ...]:
    """Nodes with those of their components that are not healthy, all read at one moment."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        nodes = await read_nodes(connection, node_ids)
        unwell = await _components(connection, node_ids, only_unwell=True)
    return tuple((node, unwell.get(node.node_id, ())) for node in nodes)


async def _components(
    connection: Connection, node_ids: Sequence[str] | None, *, only_unwell: bool
) -> dict[str, tuple[ComponentEntry, ...]]:
    found: dict[str, list[ComponentEntry]] = {}
    async with connection.cursor(row_factory=dict_row) as cursor:
        values = {"ids": _ids(node_ids), "unwell": only_unwell}
        await cursor.execute(_SELECT_COMPONENTS, values)
        async for row in cursor:
            found.setdefault(row.pop("node_id"), []).append(ComponentEntry(**row))
    return {node_id: tuple(components) for node_id, components in found.items()}


def _ids(node_ids: Sequence[str] | None) -> list[str] | None:
    return None if node_ids is None else list(node_ids)


def _age_s(time_s: float) -> float:
    """How long ago something was by this node's clock, which may have been set back since."""
    return max(0.0, time.time() - time_s)
