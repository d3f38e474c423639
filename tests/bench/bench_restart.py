"""SIGKILL of a Python component until its replacement is healthy.

The clock starts just before the signal is sent and stops at the time at which the root noted in its
journal that the component is healthy with another pid; from that moment its status says so too.
The journal is read only afterwards, so nothing disturbs what is measured.

Only restarts without a pause are measured. A supervisor pauses from a component's second failure
within half a minute on, so each component is killed once per boot, and further boots follow until
there are enough kills. Each boot gets some seconds for what the node does in the background first.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator

from tests.bench.figures import Benchmark, Figure, MeasurementError, note, spread
from tests.bench.nodes import fresh_node, start
from tests.fixtures.fix_node import Node

LIMIT_S = 0.025
COMPONENTS = ("telemetry", "core/network", "core/dwcp/manager", "core/dwcp/transport.0", "api")
# The launcher imports what restarts need and forks a spare; then the boot has left nothing to do.
SETTLE_S = 3.0
PAUSE_S = 0.5
PATIENCE_S = 10.0


def measure(runs: int) -> Iterator[Figure]:
    """Kill every component once per boot until there were ``runs`` kills."""
    found: dict[str, list[float]] = {path: [] for path in COMPONENTS}
    with fresh_node() as node:
        kills = 0
        while kills < runs:
            start(node)
            time.sleep(SETTLE_S)
            for path in COMPONENTS:
                found[path].append(_kill(node, path))
                kills += 1
            node.stop()
    every = [taken_s for values in found.values() for taken_s in values]
    yield Figure(
        name="restart_healthy",
        value=statistics.median(every),
        unit="s",
        limit=LIMIT_S,
        median_of=len(every),
        details={
            "all": spread(every),
            **{path: spread(values) for path, values in found.items()},
        },
    )


def _kill(node: Node, path: str) -> float:
    pid = node.component(path).pid
    if pid is None:
        raise MeasurementError(f"{path} does not run")
    # The journal's clock, which is this one's too, as both are of one machine.
    killed_s = time.time()
    os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        time.sleep(PAUSE_S)
        steps = _states_since(node, path, killed_s)
        for at_s, state, new_pid in steps:
            if state == "healthy" and new_pid not in (None, pid):
                way = ", ".join(f"{name} {(s - killed_s) * 1000:.1f}" for s, name, _pid in steps)
                note(f"  {path:24} {(at_s - killed_s) * 1000:6.1f} ms ({way})")
                return at_s - killed_s
    raise MeasurementError(f"{path} was not replaced within {PATIENCE_S} s")


def _states_since(node: Node, path: str, since_s: float) -> list[tuple[float, str, int | None]]:
    return [
        (record["time_s"], record["fields"]["state"], record["fields"]["pid"])
        for record in node.journal()
        if record["name"] == "component:state"
        and record["component"] == path
        and record["time_s"] >= since_s
    ]


BENCHMARK = Benchmark(
    figures=("restart_healthy",),
    summary="SIGKILL of a Python component until its replacement is healthy",
    runs=20,
    measure=measure,
)
