"""A tree of every kind of child on three levels, for the kills of test_soak; run as a program.

Usage: ``python -m tests.process.soak_tree DIRECTORY``; the run directory and the logs go there.
"""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

from supervisor.child import logs
from supervisor.child.service import BlockingContext, BlockingService, Service, ServiceContext
from supervisor.core.readiness import EXEC
from supervisor.core.spec import (
    Backoff,
    ChildSpec,
    ChildType,
    RestartIntensity,
    RestartStrategy,
    SupervisorSpec,
)
from supervisor.runtime.launch import TreeSettings
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.notify import ServiceManager
from supervisor.runtime.root import RootSettings, run_root

# Kills come faster than any budget of a real tree allows; this test is about repair. Only the
# subtree ``frail`` keeps OTP's own budget, gives up, and is replaced as a whole.
_GENEROUS = RestartIntensity(intensity=100_000, period_s=60.0)
_PROMPT = Backoff(initial_s=0.0, max_s=0.0)
# A program that puts a grandchild into a session of its own and forgets it.
_DAEMONIZING = "setsid -f sleep 1000; exec sleep 1000"


class Ticker(Service):
    """Does nothing, on an asyncio loop."""

    async def init(self, context: ServiceContext) -> None:
        """Nothing is needed."""


class Turner(BlockingService):
    """Does nothing, on a loop of its own."""

    def run(self, context: BlockingContext) -> None:
        """Turn until told to stop."""
        poller = select.poll()
        poller.register(context.control_fd(), select.POLLIN)
        context.ready()
        while context.turn():
            poller.poll(1000)


def leaves(prefix: str) -> tuple[ChildSpec, ...]:
    """One child of each kind."""
    return (
        ChildSpec(id=f"{prefix}-service", start="tests.process.soak_tree:Ticker", depends_on=()),
        ChildSpec(
            id=f"{prefix}-loop",
            start="tests.process.soak_tree:Turner",
            type=ChildType.LOOP,
            depends_on=(),
        ),
        ChildSpec(
            id=f"{prefix}-program",
            start="supervisor.child.command:prepare",
            type=ChildType.COMMAND,
            settings={"argv": ["sh", "-c", _DAEMONIZING]},
            readiness=EXEC,
            liveness=None,
            depends_on=(),
        ),
    )


def tree() -> SupervisorSpec:
    """Three levels; each strategy once."""
    deep = _supervisor("deep", leaves("deep"), RestartStrategy.ONE_FOR_ALL)
    frail = ChildSpec(
        id="frail",
        type=ChildType.SUPERVISOR,
        depends_on=(),
        children=SupervisorSpec(children=leaves("frail")),
    )
    middle = _supervisor("middle", (*leaves("middle"), deep, frail), RestartStrategy.REST_FOR_ONE)
    return SupervisorSpec(children=(*leaves("top"), middle), intensity=_GENEROUS, backoff=_PROMPT)


def _supervisor(name: str, children: tuple[ChildSpec, ...], strategy: RestartStrategy) -> ChildSpec:
    return ChildSpec(
        id=name,
        type=ChildType.SUPERVISOR,
        depends_on=(),
        children=SupervisorSpec(
            children=children, strategy=strategy, intensity=_GENEROUS, backoff=_PROMPT
        ),
    )


class _NoReload:
    def start(self) -> int | None:
        return None

    def take(self) -> None:
        return None


def main() -> int:
    """Run the tree until SIGTERM."""
    directory = Path(sys.argv[1])
    started_s = time.monotonic()
    launcher = LauncherClient.fork("soak", ("tests.process.soak_tree",))
    log_dir = str(directory / "logs")
    logs.configure("novacron", log_dir=log_dir, level="info")
    return run_root(
        tree(),
        RootSettings(
            name="soak",
            version="0",
            node_id="soak",
            environment="test",
            roles=(),
            state_dir=str(directory),
            started_s=started_s,
            phase_ends_s=(),
            shutdown_timeout_s=30.0,
            addresses={},
        ),
        TreeSettings(run_dir=str(directory / "run"), log_dir=log_dir, title="soak"),
        reloader=_NoReload(),
        manager=ServiceManager(os.environ),
        launcher=launcher,
    )


if __name__ == "__main__":
    sys.exit(main())
