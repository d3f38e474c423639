"""A tree whose keys last for two seconds: ``python -m tests.process.renewal_tree DIRECTORY``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from protocol.errors import NovacronError
from protocol.messages.health import Health, HealthState
from protocol.records import Plain
from supervisor.child import logs
from supervisor.child.service import (
    BlockingCallHandler,
    BlockingContext,
    BlockingService,
    CallHandler,
    Request,
    Service,
    ServiceContext,
)
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec
from supervisor.runtime.launch import TreeSettings
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.notify import ServiceManager
from supervisor.runtime.root import RootSettings, run_root

LIFE_S = 2.0
MODULE = "tests.process.renewal_tree"


class Answer(Service):
    """Answers at once and slowly, and says how it is when asked to."""

    async def init(self, context: ServiceContext) -> None:
        """Keep the context."""
        self._context = context

    def calls(self) -> Mapping[str, CallHandler]:
        """What others ask."""
        return {"echo": lambda request: request.caller, "slow": self.slow, "ail": self.ail}

    async def slow(self, request: Request) -> Plain:
        """Answer after longer than a pair of keys is used."""
        await asyncio.sleep(LIFE_S)
        return request.caller

    def ail(self, request: Request) -> Plain:
        """Say that all is not well."""
        self._context.set_health(Health(HealthState.DEGRADED, str(request.body)))
        return None


class Asker(Service):
    """Asks the others all the time and counts what goes wrong."""

    async def init(self, context: ServiceContext) -> None:
        """Begin to ask."""
        self._context = context
        self._asked = 0
        self._errors: list[str] = []
        self._tasks = [asyncio.create_task(self._ask(*what)) for what in _QUESTIONS]

    def calls(self) -> Mapping[str, CallHandler]:
        """How it went."""
        return {"tally": lambda _request: {"asked": self._asked, "errors": self._errors}}

    async def _ask(self, path: str, method: str) -> None:
        while True:
            try:
                await self._context.call(path, method, timeout_s=5.0)
                self._asked += 1
            except NovacronError as exc:
                if self._asked:  # until then the others are coming up
                    self._errors.append(f"{path} {method}: {exc}")
            await asyncio.sleep(0.01)


_QUESTIONS = (("answer", "echo"), ("answer", "slow"), ("below/deep", "echo"), ("loop", "echo"))


class Loop(BlockingService):
    """A loop that does nothing but answer."""

    def calls(self) -> Mapping[str, BlockingCallHandler]:
        """What others ask."""
        return {"echo": lambda request: request.caller, "ail": self._ail}

    def _ail(self, request: Request) -> Plain:
        self._context.set_health(Health(HealthState.DEGRADED, str(request.body)))
        return None

    def run(self, context: BlockingContext) -> None:
        """Turn until told to stop."""
        import select

        self._context = context
        context.ready()
        while context.turn():
            select.select([context.control_fd()], [], [], 0.2)


def main() -> int:
    """Run the tree."""
    directory = Path(sys.argv[1])
    launcher = LauncherClient.fork("renewal")
    logs.configure("novacron", log_dir=str(directory), level="info")
    below = SupervisorSpec(children=(ChildSpec(id="deep", start=f"{MODULE}:Answer"),))
    children = (
        ChildSpec(id="answer", start=f"{MODULE}:Answer"),
        ChildSpec(id="loop", start=f"{MODULE}:Loop", type=ChildType.LOOP),
        ChildSpec(id="below", type=ChildType.SUPERVISOR, children=below),
        ChildSpec(id="asker", start=f"{MODULE}:Asker"),
    )
    now_s = time.monotonic()
    settings = RootSettings(
        name="renewal",
        version="1",
        node_id="test",
        environment="test",
        roles=(),
        state_dir=str(directory),
        started_s=now_s,
        phase_ends_s=(now_s, now_s),
        shutdown_timeout_s=10.0,
        addresses={},
        is_node=False,
    )
    tree = TreeSettings(
        run_dir=str(directory / "run"), log_dir=str(directory), title="renewal", identity_s=LIFE_S
    )
    return run_root(
        SupervisorSpec(children=children),
        settings,
        tree,
        reloader=None,
        manager=ServiceManager({}),
        launcher=launcher,
    )


if __name__ == "__main__":
    sys.exit(main())
