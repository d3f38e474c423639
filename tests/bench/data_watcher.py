"""One database service in a process of its own: ``host database`` on the command line.

It watches all nodes and writes a line per page: the monotonic time at which it came, then the
reasons of node a's unwell components. The clock is the machine's, so another process can compare.
"""

from __future__ import annotations

import asyncio
import sys
import time

import structlog

from protocol.records import from_wire
from services.data.database_service import DatabaseService
from services.data.health_records import NodesPage
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.memory_journal import MemoryJournal


async def watch(host: str, database: str) -> None:
    """Come up and watch."""
    journal = MemoryJournal("boot-of-b")
    journal.add("init:complete")
    context = MemoryServiceContext(
        path="data/database",
        settings={"node_id": "b", "postgres": {"host": host, "database": database}},
        peers=journal.peers(),
    )
    service = DatabaseService()
    await service.init(context)
    call = service.calls()["health.watch"]
    mark = ""
    while True:
        reply = call(Request("api", "health.watch", {"mark": mark, "wait_s": 20.0}, 30.0))
        assert not isinstance(reply, dict)
        page = from_wire(NodesPage, await reply)
        seen_s, mark = time.monotonic(), page.mark
        reasons = [c.reason for n in page.nodes if n.node.node_id == "a" for c in n.unwell]
        print(seen_s, *reasons, flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(watch(sys.argv[1], sys.argv[2]))
