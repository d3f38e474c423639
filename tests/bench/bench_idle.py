"""What a node uses that nobody asks anything of: CPU time, and memory in proportional shares.

CPU time is what the scheduler says each thread has run, ``/proc/PID/task/*/schedstat``, in
nanoseconds, at the beginning and the end of a window. Memory is the proportional set size of
``smaps_rollup`` at the window's end. PostgreSQL and Redis with all their processes are left out:
how much they use is a matter of their own settings.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from protocol.records import Plain
from supervisor.posix.processes import descendants_of
from tests.bench.figures import Benchmark, Figure, MeasurementError, note
from tests.bench.nodes import fresh_node, start
from tests.fixtures.fix_node import Node

ROOT_LIMIT_MS = 1.0
TREE_LIMIT_MS = 20.0
PSS_LIMIT_MIB = 250.0
SETTLE_S = 15.0
WINDOW_S = 20.0
FOREIGN = ("data/postgres", "data/redis")
_MIB = 1 << 20


def measure(runs: int) -> Iterator[Figure]:
    """Watch one idle node for ``runs`` windows."""
    with fresh_node() as node:
        start(node)
        time.sleep(SETTLE_S)
        windows = [_window(node) for _ in range(runs)]
        names = {pid: _title(pid) for pid in _ours(node)}
        memory = {pid: _memory(pid) for pid in names}
    roots = [used[node.pid] for used in windows]
    trees = [sum(used.values()) for used in windows]
    for pid, title in names.items():
        shares = memory[pid]
        note(
            f"  {title:40} {windows[-1].get(pid, 0.0):6.2f} ms/s {shares['Pss']:6.1f} MiB"
            f" (private dirty {shares['Private_Dirty']:5.1f})"
        )
    cpu: Plain = {title: round(windows[-1].get(pid, 0.0), 3) for pid, title in names.items()}
    mib: Plain = {title: memory[pid] for pid, title in names.items()}
    common: dict[str, Plain] = {"window_s": WINDOW_S, "processes": len(names)}
    yield Figure(
        name="idle_root_cpu",
        value=statistics.median(roots),
        unit="ms/s",
        limit=ROOT_LIMIT_MS,
        median_of=runs,
        details={**common, "windows": [round(value, 3) for value in roots]},
    )
    yield Figure(
        name="idle_tree_cpu",
        value=statistics.median(trees),
        unit="ms/s",
        limit=TREE_LIMIT_MS,
        median_of=runs,
        details={**common, "windows": [round(value, 3) for value in trees], "last_window": cpu},
    )
    yield Figure(
        name="idle_tree_pss",
        value=sum(shares["Pss"] for shares in memory.values()),
        unit="MiB",
        limit=PSS_LIMIT_MIB,
        details={**common, "mib": mib},
    )


def _window(node: Node) -> dict[int, float]:
    """Milliseconds of CPU time per second that each process used."""
    begun_s = time.monotonic()
    before = {pid: _cpu_ns(pid) for pid in _ours(node)}
    time.sleep(WINDOW_S)
    after = {pid: _cpu_ns(pid) for pid in _ours(node)}
    elapsed_s = time.monotonic() - begun_s
    if gone := before.keys() - after.keys():
        raise MeasurementError(f"processes ended while the node was idle: {sorted(gone)}")
    return {pid: (after[pid] - before.get(pid, 0)) / 1e6 / elapsed_s for pid in after}


def _ours(node: Node) -> list[int]:
    """The node's processes, the root first, without the foreign servers."""
    foreign: set[int] = set()
    for component in node.status().components:
        if component.path in FOREIGN and component.pid is not None:
            foreign.update((component.pid, *descendants_of(component.pid)))
    return [pid for pid in node.processes() if pid not in foreign]


def _cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def _memory(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 / _MIB for line in lines}
    wanted = ("Pss", "Rss", "Private_Dirty", "Private_Clean", "Shared_Dirty", "Shared_Clean")
    return {name: round(fields[name], 2) for name in wanted}


def _title(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    return f"{command.decode(errors='replace').strip()[:60]} [{pid}]"


BENCHMARK = Benchmark(
    figures=("idle_root_cpu", "idle_tree_cpu", "idle_tree_pss"),
    summary="CPU time and memory of an idle node, without PostgreSQL and Redis",
    runs=3,
    measure=measure,
)
