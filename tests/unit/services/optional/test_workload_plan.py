"""From counters to samples, without a kernel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire
from services.optional.workload import plan
from services.optional.workload.host import cards_that_count
from services.optional.workload.model import HostReading, WorkloadSettings

BEFORE = HostReading(
    at_s=10.0,
    cpu_busy_s=100.0,
    cpu_total_s=1000.0,
    load1=0.5,
    load5=0.4,
    load15=0.3,
    memory_total_bytes=1000,
    memory_available_bytes=400,
    disk_read_bytes=5000,
    disk_written_bytes=0,
    network_received_bytes=100,
    network_sent_bytes=200,
)
AFTER = dataclasses.replace(
    BEFORE,
    at_s=20.0,
    cpu_busy_s=105.0,
    cpu_total_s=1020.0,
    disk_read_bytes=6000,
    network_received_bytes=50,
    network_sent_bytes=200,
)


def test_sample_is_the_difference() -> None:
    """Shares and rates come from two readings, levels from the second."""
    sample = plan.sample_of(BEFORE, AFTER)

    assert sample.cpu_percent == 25.0
    assert sample.memory_used_bytes == 600
    assert sample.disk_read_rate == 100.0
    assert (sample.load1, sample.load5, sample.load15) == (0.5, 0.4, 0.3)


def test_counter_that_was_reset_counts_nothing() -> None:
    """A card that went away takes its counter with it, and is no negative rate."""
    sample = plan.sample_of(BEFORE, AFTER)

    assert sample.network_received_rate == 0.0


def test_no_time_passed() -> None:
    """Two readings at the same moment give no rates and no fault."""
    sample = plan.sample_of(BEFORE, BEFORE)

    assert (sample.cpu_percent, sample.disk_read_rate) == (0.0, 0.0)


@given(busy=st.floats(-1e6, 1e6), total=st.floats(-1e6, 1e6))
def test_cpu_is_a_percentage(busy: float, total: float) -> None:
    """Whatever the kernel's counters do, the share stays within 0 and 100."""
    after = dataclasses.replace(AFTER, cpu_busy_s=100.0 + busy, cpu_total_s=1000.0 + total)

    assert 0.0 <= plan.sample_of(BEFORE, after).cpu_percent <= 100.0


def test_gauges_have_base_units() -> None:
    """A sample becomes gauges in ratios, bytes and bytes per second."""
    gauges = {item.name: item.value for item in plan.gauges_of(plan.sample_of(BEFORE, AFTER))}

    assert gauges["novacron_host_cpu_ratio"] == 0.25
    assert gauges["novacron_host_disk_read_bytes_per_second"] == 100.0


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [(100.0, 110.0), (109.9, 110.0), (110.0, 110.0), (110.1, 120.0), (145.0, 150.0)],
)
def test_samples_keep_the_beat(now_s: float, expected: float) -> None:
    """A late sample does not shift the next ones, and missed beats are left out."""
    assert plan.next_tick_s(100.0, 10.0, now_s) == pytest.approx(expected)


def test_retention_is_in_days() -> None:
    """Seven days are 604,800 seconds."""
    assert plan.oldest_kept_s(1_000_000.0, 7) == 1_000_000.0 - 604_800.0


def test_only_hardware_counts(tmp_path: Path) -> None:
    """Bridges and taps carry the same bytes again and are left out."""
    (tmp_path / "eth0" / "device").mkdir(parents=True)
    (tmp_path / "br0").mkdir()

    assert cards_that_count(["lo", "br0", "eth0", "tap0"], tmp_path) == ["eth0"]


def test_without_hardware_all_but_loopback_count(tmp_path: Path) -> None:
    """A container's only card has no hardware behind it."""
    assert cards_that_count(["lo", "eth0"], tmp_path) == ["eth0"]


@pytest.mark.parametrize(
    "wrong", [{"sample_interval_s": 0.0}, {"retention_days": 0}, {"pending_max": 0}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    """Values without a meaning are refused."""
    settings = {"node_id": "n", "postgres": {"host": "/s"}, **wrong}

    with pytest.raises(RemoteProtocolError, match="at least 1"):
        from_wire(WorkloadSettings, settings)
