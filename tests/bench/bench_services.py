"""A small real tree for the benchmark of calls: one service that answers, one that asks.

``python -m tests.bench.bench_services DIRECTORY`` runs it until SIGTERM, with the run directory
``DIRECTORY``; whoever measures asks the caller for its figures as an operator would.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from protocol.records import Plain
from supervisor.child import logs
from supervisor.child.service import CallHandler, Request, Service, ServiceContext
from supervisor.core.spec import ChildSpec, SupervisorSpec
from supervisor.runtime.launch import TreeSettings
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.notify import ServiceManager
from supervisor.runtime.root import Reloaded, RootSettings, run_root

ECHO = "echo"
CALLER = "caller"


class EchoService(Service):
    """Answers with what it was asked."""

    def calls(self) -> Mapping[str, CallHandler]:
        """The same answer without and with a task."""
        return {"echo": self.echo, "echo_async": self.echo_async}

    def echo(self, request: Request) -> Plain:
        """Answer from a plain function."""
        return request.body

    async def echo_async(self, request: Request) -> Plain:
        """Answer from a coroutine."""
        return request.body


class CallerService(Service):
    """Calls the other service, one call after the other, and reports how long each took."""

    async def init(self, context: ServiceContext) -> None:
        """Keep the context."""
        self._context = context

    def calls(self) -> Mapping[str, CallHandler]:
        """What the benchmark asks for."""
        return {"measure": self.measure}

    async def measure(self, request: Request) -> Plain:
        """Round trips in seconds; the body says which method, how often and with which body."""
        method, count, body = request.body["method"], request.body["calls"], request.body["body"]
        call, clock = self._context.call, time.perf_counter
        found = []
        for _ in range(count):
            begun_s = clock()
            await call(ECHO, method, body)
            found.append(clock() - begun_s)
        return found


class _NoReloader:
    """The tree has no configuration to read again."""

    def start(self) -> int | None:
        return None

    def take(self) -> Reloaded | None:
        return None


def main() -> int:
    """Run the tree."""
    directory = Path(sys.argv[1])
    launcher = LauncherClient.fork("novacron-bench")  # before there are threads
    logs.configure("novacron", log_dir="", level="warning")
    here = "tests.bench.bench_services"
    children = (
        ChildSpec(id=ECHO, start=f"{here}:EchoService"),
        ChildSpec(id=CALLER, start=f"{here}:CallerService"),
    )
    now_s = time.monotonic()
    settings = RootSettings(
        name="bench",
        version="0",
        node_id="bench",
        environment="bench",
        roles=(),
        state_dir=str(directory),
        started_s=now_s,
        phase_ends_s=(now_s, now_s),
        shutdown_timeout_s=5.0,
        addresses={},
    )
    tree = TreeSettings(run_dir=str(directory), log_level="warning", title="novacron-bench")
    return run_root(
        SupervisorSpec(children=children),
        settings,
        tree,
        reloader=_NoReloader(),
        manager=ServiceManager({}),
        launcher=launcher,
    )


if __name__ == "__main__":
    sys.exit(main())
