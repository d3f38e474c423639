"""Families and series within their bounds."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from protocol.messages.metrics import MetricKind, MetricSample
from services.telemetry.series import LABEL_LENGTH_MAX, LABELS_MAX, Declared, Series


def make(**limits: int) -> tuple[CollectorRegistry, Series]:
    """An empty registry and its series."""
    registry = CollectorRegistry()
    return registry, Series(registry, **limits)


def gauge(name: str, value: float = 1.0, **labels: str) -> MetricSample:
    """A gauge's sample."""
    return MetricSample(MetricKind.GAUGE, name, value, labels)


def test_counter_adds_and_gauge_replaces() -> None:
    """Increments add up, gauges show the last value."""
    registry, series = make()

    for value in (1.0, 2.0):
        series.apply(MetricSample(MetricKind.COUNTER, "novacron_x_total", value))
        series.apply(gauge("novacron_y", value))

    assert registry.get_sample_value("novacron_x_total") == 3.0
    assert registry.get_sample_value("novacron_y") == 2.0


def test_histogram_observes() -> None:
    """A histogram counts its observations."""
    registry, series = make()

    series.apply(MetricSample(MetricKind.HISTOGRAM, "novacron_z_seconds", 0.003))

    assert registry.get_sample_value("novacron_z_seconds_count") == 1.0
    assert registry.get_sample_value("novacron_z_seconds_bucket", {"le": "0.005"}) == 1.0


def test_undeclared_family_carries_its_component() -> None:
    """Two processes that measure the same thing have a series each."""
    registry, series = make()

    series.apply(gauge("novacron_queue", 1.0), component="a")
    series.apply(gauge("novacron_queue", 2.0), component="b")

    assert registry.get_sample_value("novacron_queue", {"component": "a"}) == 1.0
    assert registry.get_sample_value("novacron_queue", {"component": "b"}) == 2.0


def test_declared_family_keeps_its_labels() -> None:
    """A family that was declared without labels takes samples of any component."""
    registry, series = make()
    series.declare(Declared(name="novacron_ratio", kind=MetricKind.GAUGE, text="Ratio."))

    assert series.apply(gauge("novacron_ratio", 4.0), component="core/dwcp/manager")
    assert registry.get_sample_value("novacron_ratio") == 4.0


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (gauge("Bad-Name"), "name"),
        (gauge("x" * 101), "name"),
        (gauge("novacron_a", 1.0, Bad="x"), "labels"),
        (gauge("novacron_a", 1.0, le="1"), "labels"),
        (gauge("novacron_a", 1.0, a="x" * (LABEL_LENGTH_MAX + 1)), "labels"),
        (gauge("novacron_a", 1.0, **{f"l{n}": "" for n in range(LABELS_MAX + 1)}), "labels"),
        (gauge("novacron_a", math.nan), "value"),
        (MetricSample(MetricKind.COUNTER, "novacron_c_total", -1.0), "value"),
        (MetricSample(MetricKind.COUNTER, "novacron_c_total", math.inf), "value"),
        (MetricSample(MetricKind.COUNTER, "novacron_known", 1.0), "mismatch"),
        (gauge("novacron_known", 1.0, extra="x"), "mismatch"),
    ],
)
def test_unfit_sample_is_dropped_and_counted(sample: MetricSample, reason: str) -> None:
    """What does not fit is dropped under its reason and disturbs nothing."""
    registry, series = make()
    series.apply(gauge("novacron_known"))

    assert not series.apply(sample)
    assert series.dropped == {reason: 1}
    assert registry.get_sample_value("novacron_known") == 1.0


def test_just_below_the_label_limits() -> None:
    """The longest value and the most labels that are allowed pass."""
    _, series = make()

    labels = {f"l{n}": "x" * LABEL_LENGTH_MAX for n in range(LABELS_MAX)}

    assert series.apply(gauge("novacron_a", 1.0, **labels))


def test_name_of_another_family_s_series_is_refused() -> None:
    """A family may not take the name of a histogram's own series."""
    _, series = make()
    series.apply(MetricSample(MetricKind.HISTOGRAM, "novacron_h_seconds", 1.0))

    assert not series.apply(gauge("novacron_h_seconds_count"))
    assert series.dropped == {"name": 1}


def test_families_are_bounded() -> None:
    """One family beyond the limit is dropped; known ones go on."""
    _, series = make(families_max=2)

    applied = [series.apply(gauge(f"novacron_{n}x")) for n in ("a", "b", "c", "a")]

    assert applied == [True, True, False, True]
    assert series.dropped == {"families": 1}


def test_series_are_bounded() -> None:
    """One series beyond the limit is dropped; known ones go on."""
    _, series = make(series_max=2)

    applied = [series.apply(gauge("novacron_a", 1.0, k=k)) for k in ("1", "2", "3", "1")]

    assert applied == [True, True, False, True]
    assert series.dropped == {"series": 1}


def test_gauges_of_an_ended_component_go_and_its_counters_stay() -> None:
    """A gauge of a dead process is nobody's value; a counter is history. Room is given back."""
    registry, series = make(series_max=2)
    series.apply(gauge("novacron_a"), component="core/vm")
    series.apply(MetricSample(MetricKind.COUNTER, "novacron_b_total", 1.0), component="core/vm")

    series.forget_ended("core/vm")

    assert b'novacron_a{component="core/vm"}' not in generate_latest(registry)
    assert registry.get_sample_value("novacron_b_total", {"component": "core/vm"}) == 1.0
    assert series.apply(gauge("novacron_a"), component="other")


def subject(kind: MetricKind, name: str, vm: str, value: float = 1.0) -> MetricSample:
    """A sample about a machine."""
    return MetricSample(kind, name, value, {"vm": vm})


def test_what_a_component_forgets_is_gone_and_leaves_room() -> None:
    """The series with those labels go, of that component and family alone."""
    registry, series = make(series_max=4)
    name = "novacron_vm_cpu_seconds_total"
    for component, vm in (("core/vm", "a"), ("core/vm", "b"), ("other", "a")):
        series.apply(subject(MetricKind.COUNTER, name, vm), component=component)
    series.apply(subject(MetricKind.GAUGE, "novacron_vm_memory_bytes", "a"), component="core/vm")

    is_taken = series.apply(subject(MetricKind.FORGET, name, "a"), component="core/vm")

    shown = generate_latest(registry).decode()
    assert is_taken
    assert f'{name}{{component="core/vm",vm="a"}}' not in shown
    assert f'{name}{{component="core/vm",vm="b"}}' in shown
    assert f'{name}{{component="other",vm="a"}}' in shown
    assert 'novacron_vm_memory_bytes{component="core/vm",vm="a"}' in shown
    assert series.size()[1] == 3


@pytest.mark.parametrize(
    "labels", [{}, {"disk": "vda"}, {"vm": "nobody"}, {"vm": "a", "disk": "vda"}]
)
def test_what_was_never_there_is_forgotten_easily(labels: dict[str, str]) -> None:
    """No series goes that has not all the labels, and none is dropped or made for it."""
    _, series = make()
    series.apply(subject(MetricKind.COUNTER, "novacron_a_total", "a"), component="core/vm")

    for name in ("novacron_a_total", "novacron_unknown_total"):
        sample = MetricSample(MetricKind.FORGET, name, 0.0, labels)
        if labels:
            assert series.apply(sample, component="core/vm")

    assert series.size() == (1, 1)
    assert not series.dropped


def test_a_component_s_restart_begins_without_what_it_forgot() -> None:
    """Counters of machines that only it knew go with it; its own counters are history."""
    registry, series = make()
    series.apply(subject(MetricKind.COUNTER, "novacron_a_total", "a"), component="core/vm")
    series.apply(subject(MetricKind.COUNTER, "novacron_a_total", "a"), component="other")
    series.apply(MetricSample(MetricKind.COUNTER, "novacron_b_total", 1.0), component="core/vm")

    series.forget_ended("core/vm")

    shown = generate_latest(registry).decode()
    assert 'novacron_a_total{component="core/vm"' not in shown
    assert 'novacron_a_total{component="other"' in shown
    assert 'novacron_b_total{component="core/vm"' in shown
