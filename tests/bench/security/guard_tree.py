"""A tree with a policy: ``python -m tests.bench.security.guard_tree DIRECTORY`` until SIGTERM."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from protocol import codec
from supervisor.child import logs
from supervisor.child.service import CallHandler, Service
from supervisor.core.spec import ChildSpec, SupervisorSpec
from supervisor.guard.policy import Policy, Rule, to_plain
from supervisor.runtime.launch import TreeSettings
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.notify import ServiceManager
from supervisor.runtime.root import RootSettings, run_root

ECHO = "echo"
POLICY = Policy(
    rules=(
        Rule(name="plain", callers=("person:*",), calls=("plain", "status"), of=("*",)),
        Rule(name="audited", callers=("person:*",), calls=("audited",), of=("*",), audit=True),
    )
)


class EchoService(Service):
    """Answers with what it was asked."""

    def calls(self) -> Mapping[str, CallHandler]:
        """The same answer under two names."""
        return {"plain": lambda request: request.body, "audited": lambda request: request.body}


def main() -> int:
    """Run the tree."""
    directory = Path(sys.argv[1])
    launcher = LauncherClient.fork("novacron-bench")  # before there are threads
    logs.configure("novacron", log_dir="", level="warning")
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
        policy=codec.encode(to_plain(POLICY)),
    )
    tree = TreeSettings(
        run_dir=str(directory / "run"),
        log_level="warning",
        title="novacron-bench",
        spool_dir=str(directory / "spool"),
        has_policy=True,
    )
    spec = ChildSpec(id=ECHO, start="tests.bench.security.guard_tree:EchoService")
    return run_root(
        SupervisorSpec(children=(spec,)),
        settings,
        tree,
        reloader=None,
        manager=ServiceManager({}),
        launcher=launcher,
    )


if __name__ == "__main__":
    sys.exit(main())
