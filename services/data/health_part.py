"""The part of ``data/database`` that writes this node's health and knows that of all nodes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from protocol.errors import NovacronError
from protocol.messages.journal import JournalPage
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.data import health_table
from services.data.background import BackgroundTasks
from services.data.errors import DatabaseUnavailableError, StatementRefusedError
from services.data.health_listener import HealthListener
from services.data.health_records import NodesPage, Standing, WatchQuery, fitting
from services.data.health_table import HealthWriter
from services.data.health_view import NodeChange
from services.data.journal_reader import follow, read_status
from services.data.model import DatabaseSettings
from services.data.postgres import Connection, Database, connect
from supervisor.child.service import CallHandler, Request, ServiceContext

# Pause before a page is written again that the server did not take.
_WRITE_PAUSE_S = 1.0
# So many looks in a row at a row of ours that another one wrote, some 15 s at the least.
_STRANGE_LOOKS = 4
# How long a connection that is being opened keeps the process from going down.
_OPENING_S = 1.0
# The answer still has to travel before the caller's own deadline.
_ANSWER_MARGIN_S = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ComponentsQuery:
    """Body of ``health.components``; "" is the own node."""

    node_id: str = ""


class HealthPart:
    """Writes the rows of this node with each page of the journal, and watches everybody's.

    A page comes at least three times per lease, if only an empty one, so a node whose root has
    stopped answering loses its lease as one that is gone does.

    Args:
        context: of the service.
        settings: of the service.
        database: connected or not.
    """

    def __init__(
        self, context: ServiceContext, settings: DatabaseSettings, database: Database
    ) -> None:
        self._context = context
        self._settings = settings
        self._database = database
        self._writer = HealthWriter(
            node_id=settings.node_id,
            environment=settings.environment,
            roles=settings.roles,
            lease_s=settings.lease_s,
        )
        self._strange_looks = 0
        self._listener = HealthListener(
            self._open, self._report, self._note_lost, reread_s=settings.lease_s / 3
        )

    def calls(self) -> Mapping[str, CallHandler]:
        """See the head of database_service.py."""
        return {
            "health.nodes": self._nodes,
            "health.components": self._components,
            "health.watch": self._watch,
        }

    def start(self, background: BackgroundTasks) -> None:
        """Begin to write and to listen."""
        background.start(follow(self._context, self._write_page, wait_s=self._settings.lease_s / 3))
        background.start(self._listener.run())

    async def close(self) -> None:
        """Note in the table that the node is down if all of it stops."""
        if not (self._writer.is_stopping and self._database.is_connected):
            return
        try:
            async with self._database.session() as connection:
                await self._writer.write_stopped(connection)
        except DatabaseUnavailableError as exc:
            self._context.log.warning("stop_not_recorded", reason=str(exc))

    async def _write_page(self, page: JournalPage) -> None:
        status = await read_status(self._context) if page.lost else None
        while True:
            await self._database.wait_connected()
            try:
                async with self._database.session() as connection:
                    rows = await self._writer.write(connection, page, status)
            except DatabaseUnavailableError as exc:
                self._context.log.warning("health_table_not_written", reason=str(exc))
                await asyncio.sleep(_WRITE_PAUSE_S)
                continue
            except StatementRefusedError as exc:
                # The same page would be refused again, and the next one may be taken.
                self._context.log.error("health_page_refused", reason=str(exc))
                return
            break
        self._look_around(page.boot_id)
        if rows:
            self._context.measure(
                MetricSample(MetricKind.COUNTER, "novacron_database_health_rows_total", rows)
            )

    def _look_around(self, boot_id: str) -> None:
        """Count how nodes stand, and see whether another host goes by this one's name."""
        nodes = self._listener.nodes() if self._listener.is_current else ()
        counts = Counter(item.standing for item in nodes)
        for standing in Standing:
            self._context.measure(
                MetricSample(
                    MetricKind.GAUGE,
                    "novacron_nodes",
                    counts[standing],
                    {"standing": standing.value},
                )
            )
        own = {item.node.boot_id for item in nodes if item.node.node_id == self._settings.node_id}
        # What was read before our own first write may be of an earlier boot.
        self._strange_looks = self._strange_looks + 1 if own - {boot_id} else 0
        if self._strange_looks == _STRANGE_LOOKS:
            self._context.log.error(
                "node_id_taken",
                node_id=self._settings.node_id,
                advice="another host writes as this node: give each its own platform.nodeId",
            )
            self._context.emit("node:duplicate", node_id=self._settings.node_id)

    async def _open(self) -> Connection:
        await self._database.wait_connected()
        application = f"novacron {self._settings.node_id} {self._context.path} health"
        opening = asyncio.create_task(connect(self._settings.postgres, application=application))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Half-way, the connection would be left to the garbage collector.
            with contextlib.suppress(NovacronError, TimeoutError):
                await (await asyncio.wait_for(opening, _OPENING_S)).close()
            raise

    def _report(self, changes: Sequence[NodeChange]) -> None:
        """Tell this node's journal of other nodes; what happens here it knows."""
        for change in changes:
            if change.node_id == self._settings.node_id:
                continue
            was = change.was.value if change.was else ""
            now = change.now.value if change.now else ""
            self._context.log.info("node_changed", node_id=change.node_id, state=now, was=was)
            self._context.emit("node:changed", node_id=change.node_id, state=now, was=was)

    def _note_lost(self, reason: str) -> None:
        self._context.log.warning("health_listener_lost", reason=reason)

    async def _nodes(self, _request: Request) -> Plain:
        async with self._database.session() as connection:
            return to_wire(await health_table.read_nodes(connection))

    async def _components(self, request: Request) -> Plain:
        query = from_wire(ComponentsQuery, request.body or {})
        node_id = query.node_id or self._settings.node_id
        async with self._database.session() as connection:
            return to_wire(await health_table.read_components(connection, node_id))

    async def _watch(self, request: Request) -> Plain:
        query = from_wire(WatchQuery, request.body or {})
        wait_s = min(query.wait_s, max(0.0, request.remaining_s - _ANSWER_MARGIN_S))
        await self._listener.wait_news(query.mark, wait_s)
        nodes = self._listener.nodes()
        kept = fitting(nodes)
        return to_wire(
            NodesPage(
                mark=self._listener.mark,
                is_current=self._listener.is_current,
                own_id=self._settings.node_id,
                nodes=kept,
                left_out=len(nodes) - len(kept),
            )
        )
