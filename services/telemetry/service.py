"""The telemetry component: two small HTTP servers, the journal, and the samples of all others.

It is the first component of the tree and alive from phase 2 on, so that a node which can't come
up can say how far it came. It opens its ports, asks for nothing and waits for nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.journal import JournalPage
from protocol.messages.metrics import MetricBatch
from protocol.records import Plain, from_wire
from services.data.journal_reader import follow
from services.telemetry import plan
from services.telemetry.http import HttpAnswer, HttpServer, Page, json_answer
from services.telemetry.listening import open_listener
from services.telemetry.model import TelemetrySettings
from services.telemetry.probe import ReadinessProbe
from services.telemetry.reader import StatusReader
from services.telemetry.registry import Metrics
from supervisor.child.service import CallHandler, Request, Service, ServiceContext


class TelemetryService(Service):
    """Serves ``/metrics`` and ``/health/…``."""

    async def init(self, context: ServiceContext) -> None:
        """Listen on both ports and begin to follow the journal.

        Raises:
            PortInUseError: another process has one of the ports.
            CannotListenError: the configured host or port can't be listened on at all.
        """
        self._context = context
        self._settings = settings = from_wire(TelemetrySettings, context.settings)
        self._metrics = Metrics()
        # Probes come often and need no memory figures, so they have a reader of their own.
        self._reader = StatusReader(context)
        self._details = StatusReader(context, self._metrics.show, with_memory=True)
        self._probe = ReadinessProbe(context, self._reader, settings)
        self._boot_id = ""
        self._next_seq = 0
        self._servers: dict[str, HttpServer] = {}
        health_pages: dict[str, Page] = {
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/health/status": self._status,
        }
        await self._serve("health", "healthCheckPort", settings.health_port, health_pages)
        if settings.prometheus_enabled:
            pages: dict[str, Page] = {"/metrics": self._scrape}
            await self._serve("metrics", "metricsPort", settings.metrics_port, pages)
        self._following = asyncio.get_running_loop().create_task(follow(context, self._take_page))
        self._following.add_done_callback(self._stopped_following)

    def calls(self) -> Mapping[str, CallHandler]:
        """``metrics`` takes samples, ``telemetry.status`` tells what telemetry does."""
        return {"metrics": self._take_metrics, "telemetry.status": self._tell_status}

    async def check(self) -> Health:
        """Healthy while it can read the node."""
        reading = await self._reader.read()
        return Health(HealthState.DEGRADED, reading.error) if reading.error else HEALTHY

    async def terminate(self) -> None:
        """Close both ports."""
        self._following.remove_done_callback(self._stopped_following)
        self._following.cancel()
        for server in self._servers.values():
            await server.close()

    async def _serve(self, name: str, setting: str, port: int, pages: Mapping[str, Page]) -> None:
        listener = open_listener(
            host=self._settings.host, port=port, setting=f"monitoring.{setting}"
        )
        server = HttpServer(pages, self._context.log)
        await server.start(listener)
        self._servers[name] = server
        self._context.log.info("listening", server=name, host=self._settings.host, port=server.port)

    def _stopped_following(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fail(error)

    # -- pages ----------------------------------------------------------------------------------

    async def _live(self) -> HttpAnswer:
        return json_answer(200, plan.live(now_s=time.time()))

    async def _ready(self) -> HttpAnswer:
        reading, results = await self._probe.run()
        code, body = plan.ready(reading, results, now_s=time.time())
        return json_answer(code, body)

    async def _status(self) -> HttpAnswer:
        reading = await self._details.read()
        exported = self._metrics.export()
        return json_answer(200, plan.status(reading, self._settings, exported, now_s=time.time()))

    async def _scrape(self) -> HttpAnswer:
        await self._details.read()
        content_type, body = self._metrics.render()
        return HttpAnswer(200, content_type, body)

    # -- what arrives ---------------------------------------------------------------------------

    async def _take_page(self, page: JournalPage) -> None:
        self._metrics.follow(page.boot_id, page.records, page.lost)
        self._boot_id, self._next_seq = page.boot_id, page.next
        if any(record.name == "init:complete" for record in page.records):
            await self._details.read(age_max_s=0.0)

    def _take_metrics(self, request: Request) -> Plain:
        try:
            batch = from_wire(MetricBatch, request.body)
        except NovacronError as exc:
            self._context.log.warning("metrics_refused", caller=request.caller, reason=str(exc))
            raise
        dropped = self._metrics.take(batch, component=request.caller)
        if dropped:
            self._context.log.warning("samples_dropped", caller=request.caller, samples=dropped)
        return {"dropped": dropped}

    def _tell_status(self, request: Request) -> Plain:
        del request
        families, series = self._metrics.series.size()
        servers = {
            name: {
                "port": server.port,
                "connections": server.statistics().connections,
                "answered": server.statistics().answered,
                "refused": server.statistics().refused,
                "evicted": server.statistics().evicted,
            }
            for name, server in self._servers.items()
        }
        return {
            "servers": servers,
            "families": families,
            "series": series,
            "samples_dropped": sum(self._metrics.series.dropped.values()),
            "boot_id": self._boot_id,
            "next_seq": self._next_seq,
        }
