"""``python -m tests.system.vm_migration_program SETTINGS``: a VM service for orders by lines.

It runs on a lab's host. Each line that comes is a call as JSON, and each that goes an answer; the
end of the input ends the service.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from protocol.errors import NovacronError
from services.vm.service import VmService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext


async def main(settings: dict[str, Any]) -> None:
    """Serve until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # where the log goes
    context = MemoryServiceContext(path="core/vm", settings=settings)
    service = VmService()
    await service.init(context)
    calls = service.calls()

    async def answer(line: dict[str, Any]) -> None:
        said: dict[str, Any] = {"number": line["number"]}
        try:
            if line["method"] == "events":
                said["reply"] = [[name, dict(fields)] for name, fields in context.events]
            else:
                request = Request("person:ada", line["method"], line["body"], 60.0)
                said["reply"] = await calls[line["method"]](request)
        except NovacronError as exc:
            said["error"] = [exc.code, exc.message]
        print(json.dumps(said), file=answers, flush=True)

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(json.dumps({"number": 0, "reply": "ready"}), file=answers, flush=True)
    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            group.create_task(answer(json.loads(line)))
    await service.terminate()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
