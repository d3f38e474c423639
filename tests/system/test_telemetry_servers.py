"""The telemetry component over real sockets; only the tree around it is in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from protocol.messages.health import HealthState
from protocol.messages.journal import JournalPage, JournalRecord
from protocol.messages.metrics import MetricBatch, MetricKind, MetricSample
from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Verdict,
)
from protocol.records import Plain, from_wire, to_wire
from services.telemetry.errors import CannotListenError, PortInUseError
from services.telemetry.http import REQUEST_BYTES_MAX, HttpAnswer, HttpServer, json_answer
from services.telemetry.listening import open_listener
from services.telemetry.service import TelemetryService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

SETTINGS: dict[str, Plain] = {
    "metrics_port": 0,
    "health_port": 0,
    "platform_version": "1.0.0",
    "probe_timeout_s": 0.5,
}


class Root:
    """The root's half: a status that can be changed, and a journal that can be written to."""

    def __init__(self) -> None:
        self.phase = PhaseStatus(number=3, name="database")
        self.states = {
            "data/database": HealthState.HEALTHY,
            "data/cache": HealthState.HEALTHY,
            "core/dwcp/manager": HealthState.HEALTHY,
        }
        self.records: list[JournalRecord] = []
        self.more = asyncio.Event()

    def complete(self) -> None:
        """End the boot."""
        self.phase = PhaseStatus(number=6, name="health", complete=True)

    def write(self, name: str, component: str, **fields: Plain) -> None:
        """Add a journal record."""
        seq = len(self.records) + 1
        record = JournalRecord(
            seq=seq, time_s=seq / 10, name=name, component=component, fields=fields
        )
        self.records.append(record)
        self.more.set()

    async def status(self, request: Request) -> Plain:
        """The call ``status``."""
        components = tuple(
            ComponentStatus(
                path=path,
                id=path.rpartition("/")[2],
                level="x",
                phase=3,
                failure="degraded" if path == "data/cache" else "critical",
                kind="service",
                state=state,
                reason="" if state is HealthState.HEALTHY else f"{path} is gone",
                pid=10 if state is HealthState.HEALTHY else None,
                memory_bytes=4096 if request.body == {"memory": True} else None,
            )
            for path, state in self.states.items()
        )
        return to_wire(
            NodeStatus(
                schema=SCHEMA,
                verdict=Verdict.READY,
                reason="",
                platform=PlatformStatus(
                    name="NovaCron",
                    version="1.0.0",
                    node_id="node-001",
                    environment="embedded",
                    roles=("backend",),
                    pid=1,
                    state_dir="/s",
                    started_s=0.0,
                    uptime_s=61.0,
                    boot_s=1.0 if self.phase.complete else None,
                ),
                phase=self.phase,
                components=components,
            )
        )

    async def journal(self, request: Request) -> Plain:
        """The call ``journal``: a long poll."""
        since = request.body.get("since", 0)
        while not (found := tuple(item for item in self.records if item.seq >= since)):
            self.more.clear()
            await self.more.wait()
        return to_wire(JournalPage(boot_id="b", records=found, next=found[-1].seq + 1))

    async def answer(self, request: Request) -> Plain:
        """A component's own answer."""
        return {"is_connected": True}


@asynccontextmanager
async def running(root: Root, **settings: Plain) -> Any:
    """A telemetry service with free ports, and the ports."""
    context = MemoryServiceContext(
        path="telemetry",
        settings={**SETTINGS, **settings},
        peers={
            "novacron": {"status": root.status, "journal": root.journal},
            "data/database": {"database.status": root.answer},
            "data/cache": {"cache.status": root.answer},
            "core/dwcp/manager": {"dwcp.status": root.answer},
        },
    )
    service = TelemetryService()
    await service.init(context)
    servers = (await tell(service))["servers"]
    ports = {name: int(server["port"]) for name, server in servers.items()}
    try:
        yield service, ports
    finally:
        await service.terminate()
    assert context.failures == []


async def tell(service: TelemetryService) -> Any:
    """The reply of ``telemetry.status``."""
    return service.calls()["telemetry.status"](Request("operator", "telemetry.status", None, 1))


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn


async def get(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request."""
    answer = await exchange(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:])
    headers = {name.lower(): value for name, value in pairs}
    return int(lines[0].split()[1]), headers, body


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 5.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - the condition is another side's state
            await asyncio.sleep(0.01)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run one scenario in a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def test_life_of_the_health_endpoints() -> None:
    """Alive at once, 503 with the phase while booting, ready after, 503 when the database dies."""

    async def scenario() -> None:
        root = Root()
        async with running(root) as (_service, ports):
            code, headers, body = await get(ports["health"], "/health/live")
            assert (code, headers["content-type"]) == (200, "application/json")
            assert json.loads(body)["status"] == "alive"

            code, _, body = await get(ports["health"], "/health/ready")
            assert code == 503
            assert json.loads(body)["phase"] == {"number": 3, "name": "database"}

            root.complete()
            await asyncio.sleep(1.1)  # the last finding may be a second old
            code, _, body = await get(ports["health"], "/health/ready")
            assert code == 200
            assert list(json.loads(body)) == ["status", "checks", "timestamp"]

            root.states["data/cache"] = HealthState.UNHEALTHY
            root.states["data/database"] = HealthState.UNHEALTHY
            await asyncio.sleep(1.1)
            code, _, body = await get(ports["health"], "/health/ready")
            assert code == 503
            checks = json.loads(body)["checks"]
            assert checks["cache"]["status"] == "degraded"
            assert checks["database"] == {
                "status": "unhealthy",
                "error": "data/database is gone",
            }

    run(scenario)


def test_detailed_status() -> None:
    """The detailed status has platform, components and metrics."""

    async def scenario() -> None:
        root = Root()
        root.complete()
        async with running(root) as (_service, ports):
            code, _, body = await get(ports["health"], "/health/status")

            found = json.loads(body)
            assert code == 200
            assert found["platform"] == {"name": "NovaCron", "version": "1.0.0", "uptime": "1m1s"}
            assert found["components"]["data/database"]["status"] == "healthy"
            assert found["metrics"]["novacron_init_duration_seconds_sum"] == 1.0

    run(scenario)


def test_metrics_follow_journal_status_and_casts() -> None:
    """A scrape shows what the journal, the status and a component's samples said."""

    async def scenario() -> None:
        root = Root()
        root.complete()
        async with running(root) as (service, ports):
            root.write("component:exited", "core/vm", reason="killed: signal 9")
            batch = to_wire(
                MetricBatch((MetricSample(MetricKind.GAUGE, "novacron_vm_domains", 2.0),))
            )
            await until(lambda: journal_read(service, 2))
            service.calls()["metrics"](Request("core/vm", "metrics", batch, 1.0))

            code, headers, body = await get(ports["metrics"], "/metrics")

            samples = {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(body.decode())
                for sample in family.samples
            }
            assert code == 200
            assert headers["content-type"].startswith("text/plain; version=")
            error = ("novacron_errors_total", (("class", "recoverable"), ("component", "core/vm")))
            assert samples[error] == 1.0
            assert samples["novacron_vm_domains", (("component", "core/vm"),)] == 2.0
            health = ("novacron_component_health", (("component", "data/database"),))
            assert samples[health] == 1.0
            memory = ("novacron_component_memory_bytes", (("component", "data/database"),))
            assert samples[memory] == 4096.0

    run(scenario)


async def journal_read(service: TelemetryService, next_seq: int) -> bool:
    """Whether telemetry has read that far."""
    return bool((await tell(service))["next_seq"] >= next_seq)


def test_bad_batch_is_refused() -> None:
    """What is no MetricBatch raises for the caller and changes nothing."""

    async def scenario() -> None:
        async with running(Root()) as (service, _ports):
            with pytest.raises(Exception, match="samples"):
                service.calls()["metrics"](Request("core/vm", "metrics", {"x": 1}, 1.0))

    run(scenario)


def test_prometheus_can_be_off() -> None:
    """Without Prometheus there is no metrics server, and the health server answers."""

    async def scenario() -> None:
        async with running(Root(), prometheus_enabled=False) as (_service, ports):
            assert list(ports) == ["health"]
            assert (await get(ports["health"], "/health/live"))[0] == 200

    run(scenario)


def test_other_requests_get_problems() -> None:
    """Unknown paths, wrong methods, too large and malformed requests are answered as problems."""

    async def scenario() -> None:
        async with running(Root()) as (_service, ports):
            port = ports["health"]
            assert (await get(port, "/metrics"))[0] == 404
            code, headers, _ = await get(port, "/health/live", "POST")
            assert (code, headers["allow"]) == (405, "GET, HEAD")
            assert headers["content-type"] == "application/problem+json"
            code, _, body = await get(port, "/health/live", "HEAD")
            assert (code, body) == (200, b"")
            assert b" 400 " in await exchange(port, b"\x16\x03\x01\r\n\r\n")
            long = b"GET /health/live HTTP/1.1\r\nX: " + b"x" * REQUEST_BYTES_MAX + b"\r\n\r\n"
            assert b" 400 " in await exchange(port, long)

    run(scenario)


def test_largest_request_passes() -> None:
    """A request of just the allowed size is answered."""

    async def scenario() -> None:
        async with running(Root()) as (_service, ports):
            head, tail = b"GET /health/live HTTP/1.1\r\nX: ", b"\r\n\r\n"
            request = head + b"x" * (REQUEST_BYTES_MAX - len(head) - len(tail)) + tail
            assert b" 200 " in await exchange(ports["health"], request)

    run(scenario)


def test_silent_clients_keep_nobody_out() -> None:
    """More open connections than allowed, all in mid-request: liveness answers in milliseconds."""

    async def scenario() -> None:
        async with running(Root()) as (service, ports):
            writers = []
            for _ in range(150):
                _reader, writer = await asyncio.open_connection("127.0.0.1", ports["health"])
                writer.write(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
                writers.append(writer)
            started_s = time.perf_counter()

            code, _, _ = await get(ports["health"], "/health/live")

            took_s = time.perf_counter() - started_s
            server = (await tell(service))["servers"]["health"]
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0)
            assert code == 200
            assert took_s < 0.5
            assert server["connections"] <= 64
            assert server["evicted"] >= 80

    run(scenario)


def test_hung_probes_keep_nobody_out() -> None:
    """With every connection waiting for an answer, a new one still gets in."""

    async def scenario() -> None:
        async def hang() -> HttpAnswer:
            await asyncio.Event().wait()
            raise AssertionError

        async def live() -> HttpAnswer:
            return json_answer(200, {})

        log = structlog.get_logger()
        server = HttpServer({"/hang": hang, "/live": live}, log, connections_max=4)
        await server.start(open_listener(host="127.0.0.1", port=0, setting="test"))
        hung = [asyncio.create_task(get(server.port, "/hang")) for _ in range(4)]
        await until(lambda: answered(server, 4))

        code, _, _ = await get(server.port, "/live")

        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)
        await server.close()
        assert code == 200

    run(scenario)


async def answered(server: HttpServer, count: int) -> bool:
    """Whether the server has taken so many requests."""
    return server.statistics().answered >= count


def test_slow_request_is_cut_off() -> None:
    """A request that is not complete in time ends its connection."""

    async def scenario() -> None:
        server = HttpServer({}, structlog.get_logger(), request_timeout_s=0.1)
        await server.start(open_listener(host="127.0.0.1", port=0, setting="test"))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n")

        rest = await asyncio.wait_for(reader.read(), 5)

        writer.close()
        await server.close()
        assert rest == b""

    run(scenario)


def test_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that nobody takes is given up, and its memory with it."""

    async def scenario() -> None:
        async def big() -> HttpAnswer:
            return HttpAnswer(200, "text/plain", b"x" * (64 << 20))

        server = HttpServer({"/big": big}, structlog.get_logger())
        await server.start(open_listener(host="127.0.0.1", port=0, setting="test"))
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"GET /big HTTP/1.1\r\n\r\n")

        await until(lambda: answered(server, 1))
        await until(lambda: idle(server))

        client.close()
        await server.close()

    monkeypatch.setattr("services.telemetry.http.WRITE_TIMEOUT_S", 0.2)
    run(scenario)


async def idle(server: HttpServer) -> bool:
    """Whether no connection is open."""
    return server.statistics().connections == 0


def test_used_port_is_named() -> None:
    """The error of a used port says which one and what to do."""
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]

    with pytest.raises(PortInUseError, match=rf"port {port} .*healthCheckPort"):
        asyncio.run(
            TelemetryService().init(
                MemoryServiceContext(path="telemetry", settings={**SETTINGS, "health_port": port})
            )
        )
    taken.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", f"{'x' * 64}.invalid"])
def test_wrong_host_is_critical(host: str) -> None:
    """An address that is not this host's can't be cured by a restart."""
    with pytest.raises(CannotListenError, match=host):
        open_listener(host=host, port=0, setting="monitoring.host")


def test_port_is_free_again_after_terminate() -> None:
    """A restarted telemetry gets its ports back at once, recent connections or not."""

    async def scenario() -> None:
        async with running(Root()) as (_service, ports):
            await get(ports["health"], "/health/live")
        async with running(Root(), health_port=ports["health"]) as (_service, again):
            assert (await get(again["health"], "/health/live"))[0] == 200

    run(scenario)


def test_coming_up_takes_milliseconds() -> None:
    """From settings to both servers listening takes far less than the 40 ms that boot allows."""

    async def scenario() -> float:
        best_s = 1.0
        for _ in range(5):
            started_s = time.perf_counter()
            async with running(Root()):
                best_s = min(best_s, time.perf_counter() - started_s)
        return best_s

    assert asyncio.run(scenario()) < 0.04


def test_records_survive_the_wire() -> None:
    """The memory root's status is what the real one sends."""
    assert from_wire(NodeStatus, asyncio.run(status_of(Root()))).schema == SCHEMA


async def status_of(root: Root) -> Plain:
    """The root's status."""
    return await root.status(Request("telemetry", "status", None, 1.0))
