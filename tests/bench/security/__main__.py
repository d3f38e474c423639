"""``python -m tests.bench.security``: the security level's figures, one JSON line each.

Every ``bench_*.py`` beside this file has a ``BENCHMARK`` and is found by its name.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from tests.bench import figures
from tests.bench.figures import Benchmark


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; returns the exit code: 0 when all was measured, else 1 or 2."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.security", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME", help="part of a figure's name")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds per figure")
    options = parser.parse_args(arguments)
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    wanted = [name for name in names if options.only in name or _has(name, options.only)]
    failed = [name for name in wanted if not _run(name, options.runs)]
    if failed:
        figures.note(f"could not be measured: {', '.join(failed)}")
    return 1 if failed else 0 if wanted else 2


def _benchmark(name: str) -> Benchmark:
    found: Benchmark = importlib.import_module(f"tests.bench.security.{name}").BENCHMARK
    return found


def _has(name: str, only: str) -> bool:
    return any(only in figure for figure in _benchmark(name).figures)


def _run(name: str, runs: int | None) -> bool:
    # Whatever stops one benchmark must not keep the others from being run.
    try:
        benchmark = _benchmark(name)
        figures.note(f"{name}: {benchmark.summary}")
        for figure in benchmark.measure(runs or benchmark.runs):
            figures.show(figure)
    except Exception:  # noqa: BLE001 - as above
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
