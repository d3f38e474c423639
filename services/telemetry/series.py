"""Metric families that come into being as samples arrive, within bounds.

A sample names its family, kind and labels. The families that the platform promises are declared
at the start, with their help texts; any other is made from its first sample. What does not fit
(a name that is none, another kind or other labels than the family has, too many families or
series) is dropped and counted, and never an error of the sender: measuring must not break work.
"""

from __future__ import annotations

import math
import re
from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from protocol.messages.metrics import MetricKind, MetricSample

# The whole node has some thirty kinds of component; a scrape of 4,000 series takes some 20 ms.
FAMILIES_MAX = 256
SERIES_MAX = 4096
LABELS_MAX = 8
LABEL_LENGTH_MAX = 128
COMPONENT = "component"
# What these name comes and goes while a component lives, and it says when one is gone. A component
# that ended can't say it any more, so its counters of them go as well.
SUBJECTS = frozenset({"vm", "link"})

_NAME = re.compile(r"[a-z][a-z0-9_]{2,99}")
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BYTES = tuple(float(1024 * 4**power) for power in range(12))
_CLASSES: dict[MetricKind, type[Counter | Gauge | Histogram]] = {
    MetricKind.COUNTER: Counter,
    MetricKind.GAUGE: Gauge,
    MetricKind.HISTOGRAM: Histogram,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A family that is there before its first sample.

    Attributes:
        name: full name, with ``_total`` for a counter.
        kind: see MetricKind.
        text: the help text.
        labels: label names, sorted.
        buckets: upper bounds of a histogram's buckets.
    """

    name: str
    kind: MetricKind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _SECONDS


@dataclass(slots=True)
class _Family:
    kind: MetricKind
    labels: tuple[str, ...]
    metric: Counter | Gauge | Histogram
    seen: set[tuple[str, ...]]


class Series:
    """The families and their series in one registry.

    Args:
        registry: of prometheus_client.
        families_max, series_max: the bounds; see the module.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        families_max: int = FAMILIES_MAX,
        series_max: int = SERIES_MAX,
    ) -> None:
        self._registry = registry
        self._families: dict[str, _Family] = {}
        self._families_max = families_max
        self._series_max = series_max
        self._count = 0
        self.dropped: Tally[str] = Tally()

    def declare(self, declared: Declared) -> None:
        """Add a family ahead of its samples."""
        self._add(declared)

    def apply(self, sample: MetricSample, *, component: str = "") -> bool:
        """Change one series; False when the sample was dropped.

        Args:
            sample: the change.
            component: who measured it; becomes the label ``component`` of a family that was not
                declared, unless the sample carries one, so that several processes that measure
                the same thing do not overwrite each other.
        """
        reason = self._apply(sample, component)
        if reason:
            self.dropped[reason] += 1
        return not reason

    def forget_ended(self, component: str) -> None:
        """Remove what has nobody behind it when a component has ended.

        Its gauges, whose values are nobody's any more, and the counters of what it alone knew to
        be there.
        """
        for family in self._families.values():
            if family.kind is MetricKind.GAUGE or SUBJECTS & set(family.labels):
                self._forget(family, {COMPONENT: component})

    def size(self) -> tuple[int, int]:
        """Families and series at the moment."""
        return len(self._families), self._count

    def _apply(self, sample: MetricSample, component: str) -> str:
        family = self._families.get(sample.name)
        labels = dict(sample.labels)
        if component and (family is None or COMPONENT in family.labels):
            labels.setdefault(COMPONENT, component)
        if reason := _problem(sample, labels):
            return reason
        if sample.kind is MetricKind.FORGET:
            if family is not None:
                self._forget(family, labels)
            return ""
        names = tuple(sorted(labels))
        values = tuple(labels[name] for name in names)
        if family is None:
            if len(self._families) >= self._families_max:
                return "families"
            family = self._add(_undeclared(sample, names))
            if family is None:
                return "name"
        if family.kind is not sample.kind or family.labels != names:
            return "mismatch"
        if values not in family.seen:
            if self._count >= self._series_max:
                return "series"
            family.seen.add(values)
            self._count += 1
        _change(family, values, sample.value)
        return ""

    def _forget(self, family: _Family, labels: Mapping[str, str]) -> None:
        """Remove the series that have these labels, among others."""
        if not labels or not set(labels) <= set(family.labels):
            return
        wanted = [(family.labels.index(name), value) for name, value in labels.items()]
        gone = [
            values
            for values in family.seen
            if all(values[index] == value for index, value in wanted)
        ]
        for values in gone:
            family.metric.remove(*values)
            family.seen.discard(values)
            self._count -= 1

    def _add(self, declared: Declared) -> _Family | None:
        arguments: dict[str, object] = {"registry": self._registry}
        if declared.kind is MetricKind.HISTOGRAM:
            arguments["buckets"] = declared.buckets
        cls = _CLASSES[declared.kind]
        try:
            metric = cls(declared.name, declared.text, declared.labels, **arguments)  # type: ignore[arg-type]  # by kind
        except ValueError:  # another family already exposes a series of this name
            return None
        family = _Family(declared.kind, declared.labels, metric, set())
        self._families[declared.name] = family
        return family


def _undeclared(sample: MetricSample, names: tuple[str, ...]) -> Declared:
    buckets = _BYTES if sample.name.endswith("_bytes") else _SECONDS
    text = f"Measured by the component: {sample.name.replace('_', ' ')}."
    return Declared(name=sample.name, kind=sample.kind, text=text, labels=names, buckets=buckets)


def _problem(sample: MetricSample, labels: Mapping[str, str]) -> str:
    """Why a sample is not acceptable whatever its family; "" when it is."""
    if not _NAME.fullmatch(sample.name):
        return "name"
    if len(labels) > LABELS_MAX or not all(_LABEL.fullmatch(name) for name in labels):
        return "labels"
    if any(len(value) > LABEL_LENGTH_MAX for value in labels.values()) or "le" in labels:
        return "labels"
    is_counter = sample.kind is MetricKind.COUNTER
    if math.isnan(sample.value) or (is_counter and not 0 <= sample.value < math.inf):
        return "value"
    return ""


def _change(family: _Family, values: tuple[str, ...], value: float) -> None:
    child: MetricWrapperBase = family.metric.labels(*values) if values else family.metric
    if isinstance(child, Counter):
        child.inc(value)
    elif isinstance(child, Gauge):
        child.set(value)
    elif isinstance(child, Histogram):
        child.observe(value)
