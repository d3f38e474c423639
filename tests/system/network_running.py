"""A network service in a network namespace of its own, as the tests of the network level use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from protocol.records import Plain
from services.network.service import NetworkService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_netns import run_in_netns

CALL_TIMEOUT_S = 30.0


class Running:
    """A service that came up, and its context."""

    def __init__(self, service: NetworkService, context: MemoryServiceContext) -> None:
        self.service = service
        self.context = context

    async def call(self, method: str, body: Plain = None) -> Any:
        """Call a method of the service as an operator."""
        request = Request("operator", method, body, CALL_TIMEOUT_S)
        return await self.service.calls()[method](request)

    def events(self, noun: str = "") -> list[str]:
        """Names of the emitted events; of one noun alone where one is given."""
        names = [name for name, _ in self.context.events]
        return [name for name in names if not noun or name.startswith(f"{noun}:")]


@asynccontextmanager
async def running_service(settings: Mapping[str, Plain]) -> AsyncIterator[Running]:
    """A service from init to terminate."""
    context = MemoryServiceContext(path="core/network", settings=settings)
    service = NetworkService()
    await service.init(context)
    try:
        yield Running(service, context)
    finally:
        await service.terminate()
    assert context.failures == []


def in_netns(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous scenario in a fresh namespace."""

    async def run() -> None:
        await scenario()

    run_in_netns(lambda: asyncio.run(run()))


async def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 8.0) -> None:
    """Let the service work until the condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} within {timeout_s} s"
        await asyncio.sleep(0.01)
