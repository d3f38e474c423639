"""The first milliseconds of ``novacron run``: fork what must be forked early, then go on.

Reading the configuration needs libraries that no process of the tree needs. So the launcher is
forked before they are imported: it shares more memory with its children, and it imports what
they need at the same time as this process imports what the configuration needs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.node.output import Output
from supervisor.runtime.launcher_client import WarmStart, warm_start

# In the order in which the first children start; the gateway's framework, which takes as long as
# all the rest, comes last. What the data level needs is imported before its supervisor is forked
# and so is shared by everybody.
PRELOAD = (
    "supervisor.runtime.nested",
    "supervisor.child.asyncio_runtime",
    "services.telemetry.service",
    "psycopg",
    "psycopg_pool",
    "services.data.database_service",
    "services.data.embedded",
    "redis.asyncio",
    "services.data.cache_service",
    "services.security.service",
    "services.network.service",
    "services.vm.service",
    "supervisor.child.blocking_runtime",
    "services.dwcp.manager",
    "services.dwcp.transport",
    "services.optional.workload.service",
    "pydantic",
    "starlette.applications",
    "fastapi",
    "uvicorn",
    "services.api.service",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of ``novacron run``; None or empty where a flag was not given."""

    config_dir: Path | None = None
    environment: str | None = None
    state_dir: Path | None = None
    roles: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True, slots=True)
class Start:
    """What exists before the configuration is read.

    Attributes:
        executed_s: monotonic time at which the program was executed.
        output: the console process.
        warm: the root's launcher.
    """

    executed_s: float
    output: Output
    warm: WarmStart


def run(options: RunOptions) -> int:
    """Run a node in the foreground; returns the program's exit code."""
    executed = executed_s()
    output = Output()
    warm = warm_start("novacron: novacron", PRELOAD)
    try:
        from services.node import run as node

        return node.run(options, Start(executed, output, warm))
    finally:
        warm.launcher.end()
        output.close()


def executed_s() -> float:
    """Monotonic time at which this program was executed, to a hundredth of a second.

    The kernel counts from the fork before it, and in ticks; a host that was suspended counts
    that time too, which no monotonic clock does, so the result is never before the boot.
    """
    stat = Path("/proc/self/stat").read_text()
    ticks = int(stat.rpartition(")")[2].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age_s)
