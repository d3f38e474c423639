"""A VM service that came up in the test's process, for the tests of the VM level."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from protocol.records import Plain, from_wire
from services.vm.model import DomainList, DomainRecord, VmStatus
from services.vm.service import VmService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext


class Running:
    """A service and its context."""

    def __init__(self, service: VmService, context: MemoryServiceContext) -> None:
        self.service = service
        self.context = context

    async def call(self, method: str) -> Any:
        """Call a method of the service as an operator."""
        return await self.service.calls()[method](Request("operator", method, None, 5.0))

    async def status(self) -> VmStatus:
        """The service's status."""
        return from_wire(VmStatus, await self.call("vm.status"))

    async def domains(self) -> DomainList:
        """The service's domains."""
        return from_wire(DomainList, await self.call("vm.list"))

    async def domain(self, name: str) -> DomainRecord:
        """One of the service's domains."""
        return next(d for d in (await self.domains()).domains if d.name == name)

    def told(self, vm: str) -> list[tuple[str, Plain]]:
        """Events of one domain: name and detail, in order."""
        return [
            (name, fields["detail"])
            for name, fields in self.context.events
            if fields.get("vm") == vm
        ]


@asynccontextmanager
async def running(uri: str, **settings: Plain) -> AsyncIterator[Running]:
    """A service from init to terminate."""
    context = MemoryServiceContext(path="core/vm", settings={"libvirt_uri": uri, **settings})
    service = VmService()
    await service.init(context)
    try:
        yield Running(service, context)
    finally:
        await service.terminate()
    assert context.failures == []


async def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 5.0) -> None:
    """Let the service work until the condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} within {timeout_s} s"
        await asyncio.sleep(0.01)
