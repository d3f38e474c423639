"""The gateway over real sockets; only the tree around it is in memory."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocol.errors import RemoteCallError
from protocol.messages.health import HealthState
from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Verdict,
)
from protocol.records import Plain, to_wire
from services.api.protocol import ApiServerState
from services.api.server import ApiServer
from services.api.service import ApiService
from services.telemetry.errors import PortInUseError
from services.telemetry.listening import open_listener
from services.vm.model import DomainList, DomainRecord, DomainState
from supervisor.child.logs import correlation_id
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
PROBLEM = "application/problem+json"
STATUS = NodeStatus(
    schema=SCHEMA,
    verdict=Verdict.DEGRADED,
    reason="data/cache is degraded",
    platform=PlatformStatus(
        name="NovaCron",
        version="1.0.0",
        node_id="node-001",
        environment="embedded",
        roles=("backend",),
        pid=1,
        state_dir="/s",
        started_s=0.5,
        uptime_s=61.0,
        boot_s=1.0,
    ),
    phase=PhaseStatus(number=6, name="health", complete=True),
    components=tuple(
        ComponentStatus(
            path=path,
            id=path.rpartition("/")[2],
            level=path.partition("/")[0],
            phase=3,
            failure="critical",
            kind="service",
            state=state,
            pid=10,
        )
        for path, state in (
            ("data/database", HealthState.HEALTHY),
            ("data/cache", HealthState.DEGRADED),
            ("core/vm", HealthState.HEALTHY),
        )
    ),
)
DOMAINS = DomainList(
    domains=(
        DomainRecord(name="a", uuid="u-a", state=DomainState.RUNNING, vcpus=2, memory_bytes=1024),
        DomainRecord(name="b", uuid="u-b", state=DomainState.SHUTOFF),
    )
)


async def status(request: Request) -> Plain:
    """The root's status."""
    return to_wire(STATUS)


async def domains(request: Request) -> Plain:
    """The VM component's list."""
    return to_wire(DOMAINS)


@asynccontextmanager
async def running(*, peers: dict[str, Any] | None = None, **settings: Plain) -> Any:
    """A gateway on a free port, with a client for it."""
    context = MemoryServiceContext(
        path="api",
        settings={
            "port": 0,
            "version": "1.0.0",
            "call_timeout_s": 0.3,
            "anonymous_role": "viewer",
            **settings,
        },
        peers={"novacron": {"status": status}, "core/vm": {"vm.list": domains}, **(peers or {})},
    )
    service = ApiService()
    await service.init(context)
    try:
        port = (await tell(service))["port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client, service, context
    finally:
        await service.terminate()


async def tell(service: ApiService) -> Any:
    """The reply of ``api.status``."""
    return service.calls()["api.status"](Request("operator", "api.status", None, 1.0))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run one scenario in a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def assert_problem(response: httpx.Response, code: int) -> dict[str, Any]:
    """The body of an answer that must be a problem."""
    body: dict[str, Any] = response.json()
    assert response.status_code == code
    assert response.headers["content-type"] == PROBLEM
    assert body["status"] == code
    assert body["type"].startswith("urn:novacron:problem:")
    assert body["correlation_id"] == response.headers["x-correlation-id"]
    return body


def test_lists() -> None:
    """Nodes, components and machines come from the tree."""

    async def scenario() -> None:
        async with running() as (client, _service, _context):
            nodes = (await client.get("/api/v1/nodes")).json()
            components = (await client.get("/api/v1/components")).json()
            vms = (await client.get("/api/v1/vms")).json()

        node = nodes["items"][0]
        assert (nodes["total"], node["id"], node["status"]) == (1, "node-001", "degraded")
        assert node["started_at"] == "1970-01-01T00:00:00.500000Z"
        assert node["components"] == {"healthy": 2, "degraded": 1}
        assert [item["path"] for item in components["items"]] == [
            "data/database",
            "data/cache",
            "core/vm",
        ]
        assert [item["name"] for item in vms["items"]] == ["a", "b"]
        assert vms["items"][0]["state"] == "running"
        assert (vms["total"], vms["stale"]) == (2, False)

    run(scenario)


def test_filters_and_pages() -> None:
    """A filter narrows, limit and offset cut, and total counts all that match."""

    async def scenario() -> None:
        async with running() as (client, _service, _context):
            path = "/api/v1/components?state=healthy&limit=1&offset=1"
            found = (await client.get(path)).json()
            level = (await client.get("/api/v1/components?level=core")).json()
            stopped = (await client.get("/api/v1/vms?state=shutoff")).json()

        assert ([item["path"] for item in found["items"]], found["total"]) == (["core/vm"], 2)
        assert level["total"] == 1
        assert [item["name"] for item in stopped["items"]] == ["b"]

    run(scenario)


def test_vm_component_down_is_503() -> None:
    """Without the component there is no list, and the client is told to come again."""

    async def scenario() -> None:
        async with running(peers={"core/vm": {}}) as (client, _service, _context):
            response = await client.get("/api/v1/vms")

            body = assert_problem(response, 503)
            assert body["code"] == "api.component_unavailable"
            assert response.headers["retry-after"] == "1"
            assert (await client.get("/api/v1/components")).status_code == 200

    run(scenario)


def test_every_error_is_a_problem() -> None:
    """404, 405, 413, 422, 500, 502 and 503 have one form."""

    async def broken(request: Request) -> Plain:
        raise RemoteCallError("a bug", remote_code="internal")

    async def crash(request: Request) -> Plain:
        raise ZeroDivisionError("secret")

    async def scenario() -> None:
        peers: dict[str, Any] = {"core/vm": {"vm.list": broken}}
        async with running(peers=peers, body_bytes_max=10) as (client, _service, _context):
            assert_problem(await client.get("/"), 404)
            assert_problem(await client.get("/api/v1/nodes/"), 404)
            response = await client.delete("/api/v1/nodes")
            assert_problem(response, 405)
            assert response.headers["allow"] == "GET"
            invalid = await client.get("/api/v1/components?state=sleepy&limit=0")
            body = assert_problem(invalid, 422)
            assert {item["location"] for item in body["errors"]} == {"query.state", "query.limit"}
            assert_problem(await client.get("/api/v1/vms"), 502)
            content = b"x" * 11
            assert_problem(await client.request("GET", "/api/v1/nodes", content=content), 413)
            ok = await client.request("GET", "/api/v1/nodes", content=content[:10])
            assert ok.status_code == 200
        async with running(peers={"novacron": {}}) as (client, _service, _context):
            assert_problem(await client.get("/api/v1/nodes"), 503)
        async with running(peers={"core/vm": {"vm.list": crash}}) as (client, _service, _context):
            response = await client.get("/api/v1/vms")
            assert "secret" not in json.dumps(assert_problem(response, 500))

    run(scenario)


def test_rate_limit() -> None:
    """The request after a minute's worth is refused, with the time to wait."""

    async def scenario() -> None:
        async with running(requests_per_minute=3) as (client, _service, _context):
            codes = [(await client.get("/api/v1/nodes")).status_code for _ in range(3)]
            refused = await client.get("/api/v1/nodes")

            assert codes == [200, 200, 200]
            assert_problem(refused, 429)
            assert 1 <= int(refused.headers["retry-after"]) <= 20
        async with running(rate_limit_enabled=False, requests_per_minute=1) as (client, _s, _c):
            codes = [(await client.get("/api/v1/nodes")).status_code for _ in range(3)]
            assert codes == [200, 200, 200]

    run(scenario)


def test_cors_allows_the_configured_origins_only() -> None:
    """A configured origin may read answers, errors included; another one may not."""
    ours, other = "https://app.novacron.io", "https://evil.example"

    async def scenario() -> None:
        settings: dict[str, Plain] = {
            "cors_enabled": True,
            "allowed_origins": [ours],
            "requests_per_minute": 2,
        }
        async with running(**settings) as (client, _service, _context):
            preflight = {"access-control-request-method": "GET"}
            allowed = await client.options("/api/v1/nodes", headers={"origin": ours, **preflight})
            denied = await client.options("/api/v1/nodes", headers={"origin": other, **preflight})
            read = await client.get("/api/v1/nodes", headers={"origin": ours})
            unread = await client.get("/api/v1/nodes", headers={"origin": other})
            limited = await client.get("/api/v1/nodes", headers={"origin": ours})

        header = "access-control-allow-origin"
        assert allowed.headers[header] == ours
        assert denied.status_code == 400
        assert header not in denied.headers
        assert read.headers[header] == ours
        assert header not in unread.headers
        assert (limited.status_code, limited.headers[header]) == (429, ours)
        async with running() as (client, _service, _context):
            plain = await client.get("/api/v1/nodes", headers={"origin": ours})
            assert header not in plain.headers

    run(scenario)


def test_correlation_id_goes_through() -> None:
    """The client's id comes back and is the one under which the tree is called."""
    seen: list[str] = []

    async def listen(request: Request) -> Plain:
        seen.append(correlation_id.get())
        return to_wire(DOMAINS)

    async def scenario() -> None:
        async with running(peers={"core/vm": {"vm.list": listen}}) as (client, _s, _c):
            headers = {"X-Correlation-Id": "order-66"}
            response = await client.get("/api/v1/vms", headers=headers)

            assert response.headers["x-correlation-id"] == "order-66"
            assert seen == ["order-66"]
            fresh = await client.get("/api/v1/nodes")
            assert re.fullmatch(r"[0-9a-f]{16}", fresh.headers["x-correlation-id"])

    run(scenario)


def test_head_and_headers() -> None:
    """HEAD has no body, and every answer has a date and is not to be stored."""

    async def scenario() -> None:
        async with running() as (client, _service, _context):
            response = await client.head("/api/v1/nodes")

        assert (response.status_code, response.content) == (200, b"")
        assert "date" in response.headers
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers

    run(scenario)


def test_openapi_describes_every_endpoint_and_is_documented() -> None:
    """The document lists the endpoints and their problems; docs/api.md lists the same ones."""

    async def scenario() -> None:
        async with running() as (client, _service, _context):
            document = (await client.get("/api/v1/openapi.json")).json()
            assert (await client.get("/docs")).status_code == 404

        assert document["openapi"].startswith("3.1")
        assert document["info"]["version"] == "1.0.0"
        paths = document["paths"]
        assert set(paths) == {
            "/api/v1/nodes",
            "/api/v1/components",
            "/api/v1/components/{path}/{verb}",
            "/api/v1/vms",
            "/api/v1/vms/{name}",
            "/api/v1/vms/{name}/{verb}",
            "/api/v1/operations/{number}",
            "/api/v1/caller",
        }
        responses = paths["/api/v1/vms"]["get"]["responses"]
        assert set(responses) == {"200", "401", "422", "429", "500", "502", "503"}
        reference = {"$ref": "#/components/schemas/Problem"}
        assert responses["503"]["content"][PROBLEM]["schema"] == reference
        assert "HTTPValidationError" not in document["components"]["schemas"]
        text = DOCUMENT.read_text(encoding="utf-8")
        assert all(f"`{path}`" in text for path in (*paths, "/api/v1/openapi.json"))
        schemas = document["components"]["schemas"]
        fields = {name for schema in schemas.values() for name in schema.get("properties", {})}
        assert all(f"`{name}`" in text for name in fields)

    run(scenario)


def test_garbage_is_a_problem() -> None:
    """What is not HTTP gets a problem, and so does a head that is too long."""

    async def scenario() -> None:
        async with running() as (client, service, _context):
            port = client.base_url.port
            assert port is not None
            for request in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000):
                answer = await exchange(port, request)
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert PROBLEM.encode() in answer
            assert (await tell(service))["refused"] == 2

    run(scenario)


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with nothing."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(state: ApiServerState) -> Any:
    """A server with other limits."""
    server = ApiServer(nothing, state)
    await server.start(open_listener(host="127.0.0.1", port=0, setting="test"))
    try:
        yield server
    finally:
        await server.close()


def test_silent_clients_keep_nobody_out() -> None:
    """With the table full of clients that say nothing, a request is answered at once."""

    async def scenario() -> None:
        async with serving(ApiServerState(connections_max=8)) as server:
            writers = []
            for _ in range(40):
                _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
                writers.append(writer)
            started_s = time.perf_counter()

            answer = await exchange(
                server.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )

            took_s = time.perf_counter() - started_s
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0)
            assert answer.startswith(b"HTTP/1.1 204 ")
            assert took_s < 0.5
            assert server.statistics()["connections"] <= 8

    run(scenario)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
    ],
)
def test_request_that_never_ends_is_cut_off(request_bytes: bytes) -> None:
    """Silence, half a head and half a body end with the deadline."""

    async def scenario() -> None:
        async with serving(ApiServerState(request_timeout_s=0.2)) as server:
            await exchange(server.port, request_bytes)

            assert server.statistics()["timed_out"] == 1

    run(scenario)


def test_kept_connection_serves_again() -> None:
    """The deadline of one request does not count for the next one on the same connection."""

    async def scenario() -> None:
        async with serving(ApiServerState(request_timeout_s=5)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
            writer.transport.abort()
            await asyncio.sleep(0)
            assert server.statistics()["requests"] == 3

    run(scenario)


def test_running_request_finishes_when_the_gateway_stops() -> None:
    """Stopping waits for the request that is being answered, and takes no new ones."""
    entered = asyncio.Event()

    async def slow(request: Request) -> Plain:
        entered.set()
        await asyncio.sleep(0.2)
        return to_wire(DOMAINS)

    async def scenario() -> None:
        async with running(peers={"core/vm": {"vm.list": slow}}) as (client, service, _context):
            asked = asyncio.create_task(client.get("/api/v1/vms"))
            await entered.wait()
            await service.terminate()

            assert (await asked).status_code == 200
            with pytest.raises(httpx.ConnectError):
                await client.get("/api/v1/nodes")

    run(scenario)


def test_used_port_is_named() -> None:
    """The error of a used port says which one and what to do."""
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]

    async def scenario() -> None:
        with pytest.raises(PortInUseError, match=rf"port {port} .*api\.port"):
            async with running(port=port):
                pass

    run(scenario)
    taken.close()


def test_idle_gateway_sleeps() -> None:
    """A gateway that nobody asks uses less than 2 ms of CPU per second."""

    async def scenario() -> None:
        async with running() as (client, _service, _context):
            await client.get("/api/v1/nodes")
            before_s = time.process_time()
            await asyncio.sleep(1.0)
            assert time.process_time() - before_s < 0.002

    run(scenario)
