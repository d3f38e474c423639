"""From exec to ready, embedded profile: first boots, and boots of an initialised state directory.

Both the node's own figure, ``boot_s`` in its status, which counts from the exec of the
interpreter, and the time seen from outside: from just before the process is created until the
line with ``ready in`` stands on the standard output stream.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.messages.status import BootReport, Timing
from protocol.records import Plain, from_wire
from tests.bench.figures import Benchmark, Figure, note, spread
from tests.bench.nodes import fresh_node, start
from tests.fixtures.fix_node import Node

LIMIT_S = 1.5
FIRST_LIMIT_S = 4.0
FIRST_RUNS_MAX = 3


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot: how long it took by both clocks, where the time went, and how it ended."""

    boot_s: float
    outside_s: float
    report: BootReport
    verdict: str


def measure(runs: int) -> Iterator[Figure]:
    """First boots in fresh directories, then boots of the last of them."""
    first: list[Boot] = []
    again: list[Boot] = []
    first_runs = min(runs, FIRST_RUNS_MAX)
    for number in range(first_runs):
        with fresh_node() as node:
            first.append(_boot(node))
            node.stop()
            if number == first_runs - 1:
                for _ in range(runs):
                    again.append(_boot(node))
                    node.stop()
    yield _figure("boot_first", first, FIRST_LIMIT_S)
    yield _figure("boot_ready", again, LIMIT_S)


def _boot(node: Node) -> Boot:
    begun_s = time.monotonic()
    start(node)
    outside_s = time.monotonic() - begun_s
    status = node.status()
    assert status.platform.boot_s is not None
    report = from_wire(BootReport, node.call("novacron", "boot"))
    note(f"  {status.verdict.value} in {status.platform.boot_s:.3f} s, outside {outside_s:.3f} s")
    return Boot(status.platform.boot_s, outside_s, report, status.verdict.value)


def _figure(name: str, boots: list[Boot], limit: float) -> Figure:
    median_s = statistics.median(boot.boot_s for boot in boots)
    # The boot nearest to the median shows where the time goes.
    typical = min(boots, key=lambda boot: abs(boot.boot_s - median_s))
    for line in _lines(typical):
        note(f"  {line}")
    return Figure(
        name=name,
        value=median_s,
        unit="s",
        limit=limit,
        median_of=len(boots),
        details={
            "boot_s": spread([boot.boot_s for boot in boots]),
            "outside_s": spread([boot.outside_s for boot in boots]),
            "verdicts": sorted({boot.verdict for boot in boots}),
            "phases": _table(typical.report.phases),
            "components": _table(typical.report.components),
        },
    )


def _table(timings: tuple[Timing, ...]) -> Plain:
    return {t.name: [round(t.start_s, 3), round(t.duration_s, 3), t.outcome] for t in timings}


def _lines(boot: Boot) -> Iterator[str]:
    for phase in boot.report.phases:
        yield f"phase {phase.phase} {phase.name:24} {phase.start_s:7.3f} +{phase.duration_s:.3f} s"
        for part in boot.report.components:
            if part.phase == phase.phase:
                name = f"{part.name:30}"
                yield f"  {name} {part.start_s:7.3f} +{part.duration_s:.3f} s {part.outcome}"


BENCHMARK = Benchmark(
    figures=("boot_first", "boot_ready"),
    summary="from exec to ready; first boots, then an initialised state directory",
    runs=7,
    measure=measure,
)
