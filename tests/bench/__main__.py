"""``python -m tests.bench``: measure, and print one JSON line per figure."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from tests.bench import figures
from tests.bench.figures import Benchmark

MODULES = (
    "bench_boot",
    "bench_restart",
    "bench_call",
    "bench_idle",
    "bench_net_networks",
    "bench_net_segments",
    "bench_vm",
    "bench_data",
    "bench_data_health",
)
# Has a main of its own and prints its figures itself.
STANDALONE = "bench_dwcp"
EPILOG = """examples:
  python -m tests.bench                        everything; takes some minutes
  python -m tests.bench --only call            figures and benchmarks whose name holds "call"
  python -m tests.bench --only boot --runs 3   fewer rounds
  python -m tests.bench > figures.jsonl        the JSON lines alone

A figure over its limit does not change the exit code: 0 when all was measured, 1 when not, 2 for
a wrong argument."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; returns the exit code."""
    options = _parser().parse_args(arguments)
    failed, found = [], False
    for name, benchmark in _wanted(options.only):
        found = True
        summary = "" if benchmark is None else f": {benchmark.summary}"
        figures.note(f"{name}{summary}")
        if not _run(name, benchmark, options.only, options.runs):
            failed.append(name)
    if not found:
        figures.note(f"no figure is called {options.only!r}; there are:")
        for name, benchmark in _wanted(""):
            figures.note(f"  {name}: {', '.join(benchmark.figures if benchmark else ('dwcp_…',))}")
        return 2
    if failed:
        figures.note(f"could not be measured: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str, benchmark: Benchmark | None, only: str, runs: int | None) -> bool:
    # Whatever stops one benchmark must not keep the others from being run.
    try:
        if benchmark is None:
            importlib.import_module(f"tests.bench.{name}").main()
            return True
        for figure in benchmark.measure(runs or benchmark.runs):
            if only in name or only in figure.name:
                figures.show(figure)
    except Exception:  # noqa: BLE001 - as above
        traceback.print_exc()
        return False
    return True


def _wanted(only: str) -> list[tuple[str, Benchmark | None]]:
    """The benchmarks with a matching name or figure; None for the one that stands alone."""
    found: list[tuple[str, Benchmark | None]] = []
    for name in MODULES:
        benchmark: Benchmark = importlib.import_module(f"tests.bench.{name}").BENCHMARK
        if any(only in text for text in (name, *benchmark.figures)):
            found.append((name, benchmark))
    if only in STANDALONE or only.startswith("dwcp"):
        found.append((STANDALONE, None))
    return found


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure a node on this machine: one JSON line per figure on the standard "
        "output stream, notes for people on the standard error stream.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", metavar="NAME", help="part of a figure's name")
    parser.add_argument("--runs", type=_positive, metavar="N", help="rounds per figure")
    return parser


if __name__ == "__main__":
    sys.exit(main())
