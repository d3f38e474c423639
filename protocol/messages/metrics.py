"""Measurements on their way to the telemetry component.

A process casts ``metrics`` with a MetricBatch to ``telemetry``. Counters travel as increments, so
that neither side's restart loses or repeats what was counted before.
"""

from __future__ import annotations

import enum

from protocol.dataclass import dataclass, field


class MetricKind(enum.Enum):
    """How a sample changes its series: add, replace, observe, or take away.

    FORGET takes away all series of its sender in a family that have the sample's labels, among
    others: what they were about, such as a machine, is gone. Its value means nothing.
    """

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One change of one series; ``name`` is the full Prometheus name, unit included."""

    kind: MetricKind
    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricBatch:
    """Samples in the order in which they were taken."""

    samples: tuple[MetricSample, ...]
