"""The endpoints are shared, the tree behind them is not; without a server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from protocol.records import Plain
from services.api.access import Access
from services.api.app import make_endpoints
from services.api.model import ApiSettings
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext


def node_named(name: str) -> Plain:
    """A status as the root answers it."""
    return {
        "schema": "1",
        "verdict": "ready",
        "reason": "",
        "platform": {
            "name": name,
            "version": "1",
            "node_id": name,
            "environment": "test",
            "roles": [],
            "state_dir": "/",
            "pid": 1,
            "started_s": 0.0,
            "uptime_s": 1.0,
        },
        "phase": {"number": 6, "name": "complete", "complete": True},
        "components": [],
    }


async def names_from(app: Any) -> list[str]:
    """The names of the nodes that an application lists."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/api/v1/nodes"
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return [item["name"] for item in json.loads(body)["items"]]


def application(name: str) -> Any:
    """The endpoints above a tree whose root has this name."""

    async def status(_request: Request) -> Plain:
        return node_named(name)

    context = MemoryServiceContext(path="api", peers={"novacron": {"status": status}})
    access = Access(context, call_timeout_s=1.0)
    return make_endpoints(ApiSettings(), context, access)


def test_each_application_asks_its_own_tree() -> None:
    """Two applications with the same endpoints answer from the tree that each was given."""
    first, second = application("first"), application("second")

    async def scenario() -> list[list[str]]:
        return [await names_from(app) for app in (first, second, first)]

    assert asyncio.run(scenario()) == [["first"], ["second"], ["first"]]
