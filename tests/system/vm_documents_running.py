"""A VM service with a database, asked about documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from protocol.records import Plain, from_wire, to_wire
from services.vm.documents.model import VmDocument
from services.vm.documents.records import ApplyReply, DocumentList, PlanReply, VmView
from services.vm.documents.steps import StepKind
from services.vm.service import VmService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import migrate, postgres_settings

R = TypeVar("R")
NODE = "node-1"


class Node:
    """A service and its context."""

    def __init__(self, service: VmService, context: MemoryServiceContext) -> None:
        self.service = service
        self.context = context

    async def ask(self, method: str, record: type[R], **body: Any) -> R:
        """Call a method and read its reply."""
        request = Request("operator/anna", method, to_wire(body), 60.0)
        return from_wire(record, await self.service.calls()[method](request))

    async def apply(
        self, *documents: VmDocument, method: str = "vm.apply", **more: Any
    ) -> ApplyReply:
        """Keep documents and bring them to life."""
        return await self.ask(method, ApplyReply, documents=documents, **more)

    async def plan(self, *documents: VmDocument, **more: Any) -> list[tuple[StepKind, str]]:
        """What an apply would do."""
        reply = await self.ask("vm.plan", PlanReply, documents=documents, **more)
        return [(step.kind, step.name) for step in reply.plan.steps]

    async def get(self, name: str) -> VmView:
        """One machine."""
        return await self.ask("vm.get", VmView, name=name)

    async def documents(self) -> DocumentList:
        """All documents."""
        return await self.ask("vm.documents", DocumentList)


@asynccontextmanager
async def running(
    uri: str,
    database: PostgresDatabase,
    directory: Path,
    *,
    has_schema: bool = False,
    **more: Plain,
) -> AsyncIterator[Node]:
    """A service from init to terminate, on a database with the platform's schema."""
    settings = postgres_settings(database)
    if not has_schema:
        await migrate(settings)
    context = MemoryServiceContext(
        path="core/vm",
        settings={
            "libvirt_uri": uri,
            "node_id": NODE,
            "state_dir": str(directory / "state"),
            "postgres": to_wire(settings),
            "image_dirs": [str(directory)],
            **more,
        },
    )
    service = VmService()
    await service.init(context)
    try:
        yield Node(service, context)
    finally:
        await service.terminate()
    assert context.failures == []
