"""The orders for dnsmasq processes, and what is told of one that does not come up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from protocol.errors import RemoteCallError
from protocol.records import Plain
from services.network.serving.children import Children
from services.network.serving.errors import DnsmasqFailedError
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

Handler = Callable[[Request], Awaitable[Plain]]


class Core:
    """A supervisor that notes its orders and answers as told.

    Args:
        refusals: codes of errors by order.
        state: of a child after an order.
    """

    def __init__(self, refusals: dict[str, str] | None = None, state: str = "healthy") -> None:
        self._refusals = refusals or {}
        self._state = state
        self.orders: list[tuple[str, Plain]] = []

    async def take(self, request: Request) -> Plain:
        """Carry out an order."""
        self.orders.append((request.method, request.body))
        if code := self._refusals.get(request.method):
            raise RemoteCallError(f"core: {request.method} refused", remote_code=code)
        return {"id": "dnsmasq-lan", "state": self._state, "reason": "exit code 2"}

    def children(self, log_dir: Path | None = None) -> Children:
        """The children of a network service that has this supervisor."""
        methods: dict[str, Handler] = dict.fromkeys(("add", "restart", "stop", "delete"), self.take)
        context = MemoryServiceContext(path="core/network", peers={"core": methods})
        return Children(context, log_dir)


def test_a_new_network_gets_a_child_of_the_template() -> None:
    """The order names the network and nothing that could be run."""
    core = Core()
    asyncio.run(core.children().start("lan"))
    order = {"template": "dnsmasq", "id": "dnsmasq-lan", "settings": {"network": "lan"}}
    assert core.orders == [("add", order)]


@pytest.mark.parametrize("code", ["supervisor.already_started", "supervisor.already_present"])
def test_a_child_that_is_there_is_replaced(code: str) -> None:
    """Whether it runs or was stopped."""
    core = Core({"add": code})
    asyncio.run(core.children().start("lan"))
    assert [verb for verb, _ in core.orders] == ["add", "restart"]


def test_a_child_that_is_held_back_has_not_started() -> None:
    """A supervisor answers an order for a degraded child, too."""
    core = Core({"add": "supervisor.already_started"}, state="degraded")
    with pytest.raises(DnsmasqFailedError, match=r"network lan: dnsmasq: exit code 2"):
        asyncio.run(core.children().start("lan"))


def test_what_it_said_last_is_the_reason(tmp_path: Path) -> None:
    """Without dnsmasq's own name and process id before it."""
    log = tmp_path / "core.dnsmasq-lan.log"
    log.write_text("started\n\ndnsmasq[71]: unknown interface br-lan\n\n")
    core = Core({"add": "supervisor.start_failed"})
    with pytest.raises(DnsmasqFailedError, match=r"dnsmasq: unknown interface br-lan \(core: add"):
        asyncio.run(core.children(tmp_path).start("lan"))


def test_a_child_that_is_gone_needs_no_stop() -> None:
    """Any other refusal is told."""
    asyncio.run(Core({"stop": "supervisor.no_such_child"}).children().stop("lan"))
    core = Core({"delete": "supervisor.running"})
    with pytest.raises(DnsmasqFailedError):
        asyncio.run(core.children().stop("lan"))
    assert [verb for verb, _ in core.orders] == ["stop", "delete"]


def test_a_supervisor_that_is_away_is_told() -> None:
    """As a failure of the network, which is tried again."""
    context = MemoryServiceContext(path="core/network")
    with pytest.raises(DnsmasqFailedError, match="core is not running"):
        asyncio.run(Children(context, None).start("lan"))
