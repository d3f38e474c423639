"""What a benchmark reports: figures, one JSON line each on the standard output stream.

Notes for people go to the standard error stream. A figure over its limit is still a figure: other
work on the machine moves them all, so a benchmark fails only when it could not measure.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from protocol.records import Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        name: stable, for those who compare runs.
        value: in ``unit``; a median of ``median_of`` where that is more than one.
        limit: what it should be at most; None where nothing was promised.
        details: what explains the value.
    """

    name: str
    value: float
    unit: str
    limit: float | None
    median_of: int = 1
    details: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A way to measure one or more figures.

    Attributes:
        figures: the names that it prints.
        summary: what it does, in a line.
        runs: how many rounds it takes unless told otherwise.
        measure: takes the number of rounds, yields the figures.
    """

    figures: tuple[str, ...]
    summary: str
    runs: int
    measure: Callable[[int], Iterator[Figure]]


class MeasurementError(Exception):
    """Something could not be measured."""


def show(figure: Figure) -> None:
    """Print a figure, and say to people how it compares with its limit."""
    line = {
        "figure": figure.name,
        "value": round(figure.value, 6),
        "unit": figure.unit,
        "median_of": figure.median_of,
        "limit": figure.limit,
        "details": {**figure.details, "load": [round(load, 2) for load in os.getloadavg()]},
    }
    print(json.dumps(line), flush=True)
    verdict = ""
    if figure.limit is not None:
        is_over = figure.value > figure.limit
        verdict = f", {'OVER' if is_over else 'within'} {figure.limit:g} {figure.unit}"
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    remark = " (the machine has more to do than CPUs)" if busy else ""
    note(f"{figure.name}: {figure.value:.4g} {figure.unit}{verdict}{remark}")


def note(text: str) -> None:
    """Say something to people."""
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> dict[str, Plain]:
    """Smallest, median, 90th percentile and largest of some values, rounded."""
    ordered = sorted(values)
    return {
        "min": round(ordered[0], 6),
        "p50": round(statistics.median(ordered), 6),
        "p90": round(ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)], 6),
        "max": round(ordered[-1], 6),
    }
