"""The process ``data/database``: PostgreSQL for the node, and what is kept in it.

Calls (bodies and replies as plain values):

    checkpoint.save     SaveRequest {"component", "version", "state", "after"} -> SaveReply
    checkpoint.restore  {"component"} -> Checkpoint {"version", "state", "created_s", "generation",
                        "refused"} or null
    health.nodes        nothing -> [NodeEntry]: the nodes that share the database
    health.components   {"node_id"} or nothing -> [ComponentEntry]: as the health table has them
    health.watch        WatchQuery -> NodesPage: all nodes, at once or when something changes
    database.status     nothing -> DatabaseStatus

Events: ``database:connected`` (migrations, duration_s), ``database:lost`` (reason),
``database:recovered`` (duration_s), ``node:changed`` (node_id, state, was) for another node,
``node:duplicate`` (node_id) when another host writes as this one,
``checkpoint:refused`` (checkpoint_of, generation, code, reason, used: the generation, 0 for none).
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.data import durability, migrations
from services.data.background import BackgroundTasks
from services.data.checkpoint_part import CheckpointPart
from services.data.errors import DatabaseUnavailableError
from services.data.health_part import HealthPart
from services.data.model import DatabaseSettings
from services.data.postgres import Connection, Database
from services.data.statements import StatementMeter
from supervisor.child.service import (
    CallHandler,
    CriticalError,
    Request,
    Service,
    ServiceContext,
)

# How often the pool is measured.
_MEASURE_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatus:
    """What ``database.status`` answers.

    Attributes:
        is_connected: False between a loss and the next connection.
        schema: number of the newest migration.
        losses: since the process started.
        pool: psycopg_pool's counters.
    """

    is_connected: bool
    schema: int
    losses: int
    pool: dict[str, int]


class DatabaseService(Service):
    """Connects with retry, migrates, writes the health table, keeps checkpoints."""

    def __init__(self) -> None:
        self._losses = 0

    async def init(self, context: ServiceContext) -> None:
        """Connect and migrate; the first connection is used as soon as it is there.

        Raises:
            CriticalError: refused, unreachable, or a schema that is not ours.
        """
        self._context = context
        self._background = BackgroundTasks(self._fail)
        self._settings = from_wire(DatabaseSettings, context.settings)
        self._known = migrations.load()
        self._applied = 0
        self._risks: dict[str, str] = {}
        postgres = self._settings.postgres
        self._database = Database(
            # One connection is the listener's, which has its own.
            dataclasses.replace(postgres, pool_size=max(1, postgres.pool_size - 1)),
            application=f"novacron {self._settings.node_id} {context.path}",
            timeout_s=self._settings.operation_timeout_s,
            observe=StatementMeter(context.measure).observe,
        )
        self._checkpoints = CheckpointPart(context, self._settings, self._database)
        self._health = HealthPart(context, self._settings, self._database)
        started = time.monotonic()
        await self._connect()
        duration_s = time.monotonic() - started
        context.emit("database:connected", migrations=self._applied, duration_s=duration_s)
        self._background.start(self._stay_connected())
        self._background.start(self._measure_pool())
        self._health.start(self._background)

    def calls(self) -> Mapping[str, CallHandler]:
        """See the head of the file."""
        return {
            **self._checkpoints.calls(),
            **self._health.calls(),
            "database.status": self._status,
        }

    async def check(self) -> Health:
        """Ask the server for a 1, within the settings' deadline."""
        timeout_s = self._settings.check_timeout_s
        try:
            async with asyncio.timeout(timeout_s), self._database.session("check") as connection:
                await connection.execute("SELECT 1")
        except TimeoutError:
            return Health(HealthState.UNHEALTHY, f"PostgreSQL gives no answer in {timeout_s:g} s")
        except DatabaseUnavailableError as exc:
            return Health(HealthState.UNHEALTHY, str(exc))
        return HEALTHY

    async def terminate(self) -> None:
        """Note in the table that the node is down if all of it stops, and disconnect."""
        await self._background.end()
        await self._health.close()
        await self._database.close()

    async def _connect(self) -> None:
        await self._database.connect(prepare=self._migrate, on_failure=self._report_failure)
        self._context.set_health(HEALTHY)

    async def _migrate(self, connection: Connection) -> None:
        if (found := await durability.find_risks(connection)) != self._risks:
            self._risks = found
            if found:  # an external server's business, and its operator's to know
                self._context.log.warning("database_may_lose_writes", **found)
        self._applied = await migrations.migrate(connection, self._known)
        if self._applied:
            self._context.log.info(
                "schema_migrated", applied=self._applied, schema=len(self._known)
            )

    async def _report_failure(self, reason: str, pause_s: float) -> None:
        self._context.log.warning("database_connect_failed", reason=reason, retry_in_s=pause_s)
        self._context.measure(
            MetricSample(MetricKind.COUNTER, "novacron_database_connect_failures_total", 1)
        )
        self._context.set_health(
            Health(HealthState.UNHEALTHY, f"{reason}; next attempt in {pause_s:g} s")
        )

    async def _stay_connected(self) -> None:
        while True:
            reason = await self._database.wait_lost()
            lost = time.monotonic()
            self._losses += 1
            self._context.set_health(
                Health(HealthState.UNHEALTHY, f"the connection to PostgreSQL is lost: {reason}")
            )
            self._context.log.error("database_lost", reason=reason)
            self._context.emit("database:lost", reason=reason)
            await self._connect()
            duration_s = time.monotonic() - lost
            self._context.log.info("database_recovered", duration_s=duration_s)
            self._context.emit("database:recovered", duration_s=duration_s)

    async def _measure_pool(self) -> None:
        while True:
            statistics = self._database.statistics()
            for state, name in (("open", "pool_size"), ("idle", "pool_available")):
                self._context.measure(
                    MetricSample(
                        MetricKind.GAUGE,
                        "novacron_database_pool_connections",
                        statistics.get(name, 0),
                        {"state": state},
                    )
                )
            await asyncio.sleep(_MEASURE_S)

    async def _status(self, _request: Request) -> Plain:
        return to_wire(
            DatabaseStatus(
                is_connected=self._database.is_connected,
                schema=len(self._known),
                losses=self._losses,
                pool=self._database.statistics(),
            )
        )

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, CriticalError):
            self._context.set_health(Health(HealthState.UNHEALTHY, str(error)))
        self._context.fail(error)
