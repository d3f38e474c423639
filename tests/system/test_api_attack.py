"""Attacks on the gateway's port: what is injected, what floods, what is split; it stays up."""

from __future__ import annotations

import asyncio
import random
import resource
from collections.abc import Iterator

import httpx
import pytest

from tests.system.test_api_access import TOKEN, Tree, bearer, run, running

SQL = ("' OR 1=1 --", "1; DROP TABLE api_tokens", "x' UNION SELECT digest FROM api_tokens--", "%00")
FUZZ_REQUESTS = 400
CONNECTIONS = 1000
# Each connection takes a descriptor on both sides.
DESCRIPTORS = 2 * CONNECTIONS + 500


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes and read until the server closes, for a second at most."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(request)
        async with asyncio.timeout(1):
            while piece := await reader.read(65536):
                answer += piece
    except (TimeoutError, ConnectionResetError):
        pass
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)
    return answer


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for a flood of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("text", SQL)
def test_sql_in_any_place_is_a_value_that_does_not_fit(text: str) -> None:
    """Parameters and paths that hold SQL are no such value and no such path."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree) as (client, _service, _context):
            for url, params in (
                ("/api/v1/vms", {"state": text}),
                ("/api/v1/components", {"limit": text}),
                ("/api/v1/components", {"state": text}),
            ):
                response = await client.get(url, params=params, headers=bearer())
                assert response.status_code == 422
            found = await client.get("/api/v1/components", params={"level": text}, headers=bearer())
            assert found.json()["items"] == []
            path = httpx.URL("/api/v1/components").join(f"components/{text}/stop")
            assert (await client.post(path, headers=bearer())).status_code == 404
            response = await client.get("/api/v1/vms", headers=bearer(f"nova_{text}"))
            assert response.status_code == 401
            assert tree.tried == 5
            assert tree.orders == []

    run(scenario)


@pytest.mark.parametrize(
    "line",
    [
        b"X-Correlation-Id: a\r\n Set-Cookie: x=1\r\n",
        b"X-Correlation-Id: a\nSet-Cookie: x=1\r\n",
        b"X-Correlation-Id: a\x00b\r\n",
        b"X-Correlation-Id: " + b"a" * 65 + b"\r\n",
    ],
)
def test_headers_do_not_reach_the_answer(line: bytes) -> None:
    """Nothing that a client sends ends as a header of its own, or of another's answer."""

    async def scenario() -> None:
        async with running(Tree()) as (client, _service, _context):
            request = (
                b"GET /api/v1/caller HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Authorization: Bearer " + TOKEN.encode() + b"\r\n" + line + b"\r\n"
            )
            answer = await exchange(client.base_url.port, request)
            head = answer.partition(b"\r\n\r\n")[0].lower()
            assert head.startswith((b"http/1.1 200", b"http/1.1 400"))
            assert b"set-cookie" not in head
            assert b"aaaaaaaa" not in head

    run(scenario)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ],
)
def test_a_request_can_not_be_smuggled(framing: bytes) -> None:
    """Bodies whose length two readers could read differently end the connection."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree) as (client, _service, _context):
            inner = b"POST /api/v1/components/core/vm/stop HTTP/1.1\r\nHost: x\r\n"
            request = (
                b"GET /api/v1/caller HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + TOKEN.encode() + b"\r\n" + framing + b"\r\n0\r\n\r\n" + inner
                + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
            )  # fmt: skip
            answer = await exchange(client.base_url.port, request)
            assert answer.count(b"HTTP/1.1 200") <= 1
            assert tree.orders == []

    run(scenario)


def test_garbage_of_all_kinds_leaves_the_gateway_up() -> None:
    """Requests that are cut and bent at random (seed 4711) get errors, and nothing breaks."""
    random_source = random.Random(4711)
    whole = (
        b"POST /api/v1/components/core/vm/stop HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n" + b'{"a":[1]}'
    )

    def bent() -> bytes:
        data = bytearray(whole)
        for _ in range(random_source.randrange(1, 12)):
            at = random_source.randrange(len(data))
            data[at : at + random_source.randrange(3)] = random_source.randbytes(
                random_source.randrange(4)
            )
        return bytes(data[: random_source.randrange(1, len(data) + 1)]) + b"\r\n\r\n"

    async def scenario() -> None:
        tree = Tree()
        async with running(tree, rate_limit_enabled=False) as (client, service, context):
            port = client.base_url.port
            for _ in range(FUZZ_REQUESTS // 20):
                answers = await asyncio.gather(*(exchange(port, bent()) for _ in range(20)))
                assert not any(b"HTTP/1.1 5" in answer for answer in answers)
                assert not any(b"HTTP/1.1 2" in answer for answer in answers)
            assert tree.orders == []
            assert context.failures == []
            assert (await service.check()).reason == ""

    run(scenario)


def test_a_thousand_connections_keep_nobody_out(descriptors: None) -> None:
    """While a thousand clients hold connections open and say nothing, a request is answered."""

    async def scenario() -> None:
        async with running(Tree()) as (client, _service, _context):
            port = client.base_url.port
            held = [
                (await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(CONNECTIONS)
            ]
            try:
                response = await client.get("/api/v1/caller", headers=bearer())
                assert response.status_code == 200
            finally:
                for writer in held:
                    writer.transport.abort()
                await asyncio.sleep(0)

    run(scenario)


def test_a_client_that_reads_nothing_holds_nothing_up() -> None:
    """One that asks a thousand times and never reads is not waited for by anybody else."""

    async def scenario() -> None:
        async with running(Tree(), requests_per_minute=100_000) as (client, _service, _context):
            request = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            _reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write((request + TOKEN.encode() + b"\r\n\r\n") * 1000)
            for _ in range(5):
                response = await client.get("/api/v1/caller", headers=bearer())
                assert response.status_code == 200
            writer.transport.abort()
            await asyncio.sleep(0)

    run(scenario)
