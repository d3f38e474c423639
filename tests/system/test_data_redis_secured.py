"""Redis over TLS and with ACL users: who is let in, who is not, and what the node says then."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from protocol.messages.health import HealthState
from tests.fixtures.cache_nodes import CacheNode, running
from tests.fixtures.certificates import Authority
from tests.fixtures.fix_postgres import SERVICE_USER, unprivileged_dir
from tests.fixtures.fix_redis import RedisServer

pytestmark = pytest.mark.redis

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
# The rights that an operator is told to give the node: what follows the password.
RULES = tuple(DOCUMENT.read_text().partition("on >PASSWORD ")[2].partition("\n")[0].split())


class SecuredRedis:
    """A server with TLS on a port of the loopback, and the authority that it shows."""

    def __init__(self, server: RedisServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.authority = Authority(directory, "ours")
        self.pair = self.authority.issue("localhost")
        self.port = _free_port()

    def start(self, *, cert: Path | None = None, key: Path | None = None, clients: str = "no"):
        """Start it with a certificate; its own unless another one is given."""
        for file in self.directory.iterdir():
            if os.geteuid() == 0:
                shutil.chown(file, SERVICE_USER)
        self.server.start(
            *("--tls-port", str(self.port), "--bind", "127.0.0.1"),
            *("--tls-cert-file", str(cert or self.pair.cert)),
            *("--tls-key-file", str(key or self.pair.key)),
            *("--tls-ca-cert-file", str(self.authority.cert), "--tls-auth-clients", clients),
        )

    def settings(self, **tls: Any) -> dict[str, Any]:
        """How a node reaches it."""
        return {
            "host": "localhost",
            "port": self.port,
            "tls": {"ca_file": str(self.authority.cert), **tls},
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def secured() -> Iterator[SecuredRedis]:
    """A server that is not started yet."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    directory = unprivileged_dir("nc-tls-")
    server = RedisServer(program)
    try:
        yield SecuredRedis(server, directory)
    finally:
        server.remove()
        shutil.rmtree(directory)


def run(work: Callable[[CacheNode], Awaitable[None]], **settings: Any) -> CacheNode:
    """Start a node, do the work, stop it."""

    async def main() -> CacheNode:
        node = CacheNode("n1", **{"connect_timeout_s": 2.0, **settings})
        async with running(node):
            await work(node)
        return node

    return asyncio.run(main())


async def works(node: CacheNode) -> None:
    """Everything that the node does with Redis is done."""
    assert node.context.health.state is HealthState.HEALTHY, node.context.health.reason
    await node.wait_listening()
    node.journal.add("component:state", "api", state="healthy")
    for scope in ("node", "shared"):
        await node.call("set", key="k", value=1, scope=scope)
        assert await node.value("k", scope=scope) == 1
        load = (await node.call("get", key="l", scope=scope, load_s=5))["load"]
        await node.call("abandon", key="l", scope=scope, load=load)
        await node.call("delete", key="k", scope=scope)
    assert (await node.service.check()).state is HealthState.HEALTHY
    assert (await node.call("status"))["losses"] == 0


def refuses(*parts: str) -> Callable[[CacheNode], Awaitable[None]]:
    """The node is degraded, says why, and its cache works."""

    async def work(node: CacheNode) -> None:
        reason = await node.wait_health(HealthState.DEGRADED)
        for part in parts:
            assert part in reason
        await node.call("set", key="k", value=1)
        assert await node.value("k") == 1
        assert (await node.call("status"))["losses"] == 1

    return work


def test_tls_with_the_right_authority_and_name(secured: SecuredRedis) -> None:
    """Commands and published messages go over it."""
    secured.start()

    run(works, **secured.settings())


def test_certificate_of_another_authority_is_refused(secured: SecuredRedis) -> None:
    """The server can show what it likes."""
    secured.start()
    other = Authority(secured.directory, "theirs")

    run(refuses("certificate verify failed"), **secured.settings(ca_file=str(other.cert)))


def test_certificate_of_another_host_is_refused_unless_told(secured: SecuredRedis) -> None:
    """The authority may have given it to somebody else."""
    pair = secured.authority.issue("elsewhere.example")
    secured.start(cert=pair.cert, key=pair.key)

    run(refuses("certificate verify failed", "localhost"), **secured.settings())
    run(works, **secured.settings(check_host=False))


def test_expired_certificate_is_refused(secured: SecuredRedis) -> None:
    """With or without the check of the name."""
    pair = secured.authority.issue("localhost.expired", is_expired=True)
    secured.start(cert=pair.cert, key=pair.key)

    run(refuses("certificate has expired"), **secured.settings(check_host=False))


def test_own_certificate_is_shown_where_redis_wants_one(secured: SecuredRedis) -> None:
    """And without it nobody is let in."""
    pair = secured.authority.issue("node")
    secured.start(clients="yes")

    run(works, **secured.settings(cert_file=str(pair.cert), key_file=str(pair.key)))
    run(refuses("Redis:"), **secured.settings())


@pytest.mark.parametrize("names", [["ca_file"], ["cert_file", "key_file"]])
def test_missing_file_is_named(secured: SecuredRedis, names: list[str]) -> None:
    """No connection is made without it."""
    secured.start()
    gone = str(secured.directory / "gone.pem")

    run(
        refuses(f"can't read {gone}: No such file"),
        **secured.settings(**dict.fromkeys(names, gone)),
    )


def test_renewed_authority_is_used_without_a_restart(secured: SecuredRedis) -> None:
    """The file is replaced while the node runs; the next connection reads it."""
    secured.start()
    other = Authority(secured.directory, "theirs")
    file = secured.directory / "trusted.pem"
    file.write_bytes(other.cert.read_bytes())

    async def work(node: CacheNode) -> None:
        await refuses("certificate verify failed")(node)
        file.write_bytes(secured.authority.cert.read_bytes())
        await node.wait_health(HealthState.HEALTHY)

    run(work, **secured.settings(ca_file=str(file)))


def test_server_that_speaks_no_tls_is_refused(secured: SecuredRedis) -> None:
    """No way back to the clear."""
    secured.server.start("--port", str(secured.port), "--bind", "127.0.0.1")

    run(refuses("Redis"), **secured.settings())


def _with_user(server: RedisServer, *rules: str) -> None:
    with redis.Redis(unix_socket_path=server.socket) as admin:
        admin.execute_command("ACL", "SETUSER", "novacron", "reset", "on", ">right", *rules)


def test_user_with_the_documented_rights_can_do_everything(redis_server: RedisServer) -> None:
    """And nothing beside it."""
    _with_user(redis_server, *RULES)
    with redis.Redis(
        unix_socket_path=redis_server.socket, username="novacron", password="right"
    ) as client:
        for command in (("SET", "other", "1"), ("CONFIG", "GET", "*"), ("FLUSHALL",)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)

    async def work(node: CacheNode) -> None:
        await works(node)
        node.journal.add("component:state", "api", state="degraded")
        with redis.Redis(unix_socket_path=redis_server.socket) as reader:
            async with asyncio.timeout(10):
                for _ in range(1000):
                    found = reader.hget("novacron:node:n1:components", "api")
                    if found and json.loads(found)["state"] == "degraded":
                        return
                    await asyncio.sleep(0.01)

    run(work, host=redis_server.socket, user="novacron", password="right")


@pytest.mark.parametrize(
    ("user", "password", "part"),
    [
        ("novacron", "wrong-one", "invalid username-password pair"),
        ("nobody", "right", "invalid username-password pair"),
    ],
)
def test_wrong_login_is_degraded_and_shows_no_password(
    redis_server: RedisServer, user: str, password: str, part: str
) -> None:
    """With the server's sentence."""
    _with_user(redis_server, *RULES)

    node = run(refuses(part), host=redis_server.socket, user=user, password=password)

    assert password not in str(node.context.events)
    assert password not in node.context.health.reason


@pytest.mark.parametrize(
    ("without", "part"),
    [
        ("-eval", "eval"),
        ("-hset", "can't run this command"),
        ("resetchannels", "channel"),
        ("resetkeys", "key"),
    ],
)
def test_missing_right_is_degraded_and_named(
    redis_server: RedisServer, without: str, part: str
) -> None:
    """Whatever the user lacks, callers get no error and the health says what it is."""
    _with_user(redis_server, *RULES, without)

    async def work(node: CacheNode) -> None:
        node.journal.add("component:state", "api", state="healthy")
        async with asyncio.timeout(10):
            for scope in ("shared", "node"):
                await node.call("set", key="k", value=1, scope=scope)
                await node.call("get", key="k", scope=scope, load_s=1)
            reason = await node.wait_health(HealthState.DEGRADED)
        assert part in reason.lower()

    run(work, host=redis_server.socket, user="novacron", password="right")
