"""What is measured of the work in the database, with labels from a fixed set.

    novacron_database_statement_seconds{statement}             histogram
    novacron_database_statement_errors_total{statement,class}  counter; class as in failures.py
    novacron_database_retries_total{statement,class}           counter

A statement has a name of ours, such as ``checkpoint.save``; its text never becomes a label.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from protocol.messages.metrics import MetricKind, MetricSample
from services.data.failures import FailureClass

SECONDS = "novacron_database_statement_seconds"
ERRORS = "novacron_database_statement_errors_total"
RETRIES = "novacron_database_retries_total"
# A process has a dozen statements; what goes beyond this is counted together.
NAMES_MAX = 64
OTHER = "other"

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Observation:
    """One piece of work with a connection.

    Attributes:
        statement: its name.
        duration_s: with the wait for the connection.
        failure: None when it succeeded.
        is_retried: it failed, and is tried again.
    """

    statement: str
    duration_s: float
    failure: FailureClass | None = None
    is_retried: bool = False


Observe = Callable[[Observation], None]


class StatementMeter:
    """Turns observations into samples of a bounded number of series.

    Args:
        measure: takes a sample, as ServiceContext.measure does.
        names_max: different statement names; further ones count as ``other``.
    """

    def __init__(
        self, measure: Callable[[MetricSample], None], *, names_max: int = NAMES_MAX
    ) -> None:
        self._measure = measure
        self._names_max = names_max
        self._names: dict[str, str] = {}

    def observe(self, seen: Observation) -> None:
        """Count one piece of work."""
        name = self._names.get(seen.statement) or self._admit(seen.statement)
        labels = {"statement": name}
        self._measure(MetricSample(MetricKind.HISTOGRAM, SECONDS, seen.duration_s, labels))
        if seen.failure is None:
            return
        labels = {"statement": name, "class": seen.failure.value}
        self._measure(MetricSample(MetricKind.COUNTER, ERRORS, 1, labels))
        if seen.is_retried:
            self._measure(MetricSample(MetricKind.COUNTER, RETRIES, 1, labels))

    def _admit(self, name: str) -> str:
        if len(self._names) >= self._names_max or not _NAME.fullmatch(name):
            return OTHER
        self._names[name] = name
        return name


def ignore(_seen: Observation) -> None:
    """For those who measure nothing."""
