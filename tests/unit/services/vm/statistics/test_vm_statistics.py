"""libvirt's bulk statistics become readings, rates and metrics; pure."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages.metrics import MetricKind
from protocol.records import from_wire, to_wire
from services.vm.model import DomainState
from services.vm.statistics import samples
from services.vm.statistics.model import (
    DOMAINS_LISTED_MAX,
    DomainStatistics,
    StatisticsReply,
    StatisticsRequest,
)
from services.vm.statistics.rates import Change, change_between, without_devices
from services.vm.statistics.readings import DEVICES_MAX, DomainReading, read_raw

# What libvirt 9.0 tells of a guest with a disk, an interface and a balloon's driver, shortened.
RAW: dict[str, object] = {
    "state.state": 1,
    "state.reason": 1,
    "cpu.time": 4_000_000_000,
    "cpu.user": 3_000_000_000,
    "balloon.current": 131072,
    "balloon.maximum": 262144,
    "balloon.unused": 20000,
    "balloon.available": 120000,
    "balloon.usable": 30000,
    "balloon.rss": 190000,
    "vcpu.current": 2,
    "vcpu.maximum": 4,
    "net.count": 1,
    "net.0.name": "vnet0",
    "net.0.rx.bytes": 1000,
    "net.0.rx.pkts": 10,
    "net.0.rx.errs": 1,
    "net.0.rx.drop": 2,
    "net.0.tx.bytes": 500,
    "net.0.tx.pkts": 5,
    "net.0.tx.errs": 0,
    "net.0.tx.drop": 1,
    "block.count": 1,
    "block.0.name": "vda",
    "block.0.path": "/images/a.qcow2",
    "block.0.rd.reqs": 100,
    "block.0.rd.bytes": 4096,
    "block.0.wr.reqs": 10,
    "block.0.wr.bytes": 8192,
    "block.0.allocation": 65536,
    "block.0.capacity": 1048576,
}


def reading(at_s: float = 0.0, **changes: object) -> DomainReading:
    """A reading with some of libvirt's fields changed; None takes one away."""
    raw = {**RAW, **{key.replace("__", "."): value for key, value in changes.items()}}
    raw = {key: value for key, value in raw.items() if value is not None}
    return read_raw("web1", "u-1", raw, at_s=at_s)


def without(*prefixes: str, at_s: float = 0.0) -> DomainReading:
    """A reading in which libvirt did not tell some groups."""
    raw = {key: value for key, value in RAW.items() if not key.startswith(prefixes)}
    return read_raw("web1", "u-1", raw, at_s=at_s)


def test_a_reading_holds_what_libvirt_tells() -> None:
    """Units are bytes and seconds, and drops and errors count both directions."""
    found = reading(at_s=7.0)

    assert (found.state, found.vcpus) == (DomainState.RUNNING, 2)
    assert found.cpu is not None
    assert (found.cpu.at_s, found.cpu.values["cpu_seconds"]) == (7.0, 4.0)
    assert found.memory is not None
    assert (found.memory.assigned, found.memory.maximum) == (128 << 20, 256 << 20)
    assert found.memory.used == 90000 << 10
    assert found.disks is not None
    assert found.disks["vda"].values["written_bytes"] == 8192
    assert found.sizes == {"vda": (1048576, 65536)}
    assert found.interfaces is not None
    assert found.interfaces["vnet0"].values["drops"] == 3


def test_without_the_caches_the_idle_memory_has_to_do() -> None:
    """An old balloon driver tells what lies idle alone; one that tells nothing leaves it open."""
    assert reading(balloon__usable=None).memory is not None
    assert reading(balloon__usable=None).memory.used == 100000 << 10  # type: ignore[union-attr] # asserted above
    assert reading(balloon__available=None).memory.used is None  # type: ignore[union-attr] # it is there


def test_a_driver_without_counters_leaves_all_open() -> None:
    """Of the test driver only the state is known, and nothing of it is stale."""
    only_state = read_raw("web1", "u-1", {"state.state": 1, "state.reason": 0}, at_s=0.0)

    change = change_between(
        change_between(None, only_state, is_first=True),
        dataclasses.replace(only_state),
    )

    assert change.statistics == DomainStatistics(name="web1", uuid="u-1", state=DomainState.RUNNING)


@given(
    st.dictionaries(
        st.sampled_from([*RAW, "block.1.name", "net.7.rx.bytes", "vcpu.0.time"]),
        st.one_of(st.none(), st.integers(-(2**63), 2**64), st.text(max_size=5), st.booleans()),
    )
)
def test_whatever_libvirt_tells_is_read(raw: dict[str, object]) -> None:
    """No field, of whatever type, stops a reading or what is made of it."""
    now = read_raw("web1", "u-1", raw, at_s=2.0)

    change = change_between(change_between(None, reading(at_s=1.0)), now)

    assert from_wire(DomainStatistics, to_wire(change.statistics)) == change.statistics


def test_devices_are_bounded() -> None:
    """A count beyond all reason is not believed."""
    found = reading(block__count=10**9, net__count=10**9)

    assert found.disks is not None
    assert len(found.disks) <= DEVICES_MAX


def test_rates_are_what_happened_in_between() -> None:
    """Per second, of one processor for the CPU, and summed over devices."""
    before = change_between(None, reading(at_s=10.0), is_first=True)

    now = change_between(
        before,
        reading(
            at_s=12.0,
            cpu__time=7_000_000_000,
            block__0__rd__bytes=4096 + 2048,
            block__0__wr__reqs=14,
            net__0__tx__bytes=700,
            net__0__rx__drop=4,
        ),
    )

    found = now.statistics
    assert before.statistics.cpu_percent is None
    assert found.cpu_percent == 150.0
    assert (found.read_bytes_s, found.writes_s) == (1024.0, 2.0)
    assert (found.sent_bytes_s, found.drops_s, found.received_bytes_s) == (100.0, 1.0, 0.0)
    assert found.disks[0].capacity_bytes == 1048576
    assert now.grown["cpu.cpu_seconds"] == 3.0
    assert now.grown["disks.read_bytes"] == 2048
    assert now.grown["interfaces.drops"] == 2


def test_a_counter_that_began_anew_counts_from_zero() -> None:
    """A machine that was started again did since what its counters show."""
    before = change_between(None, reading(at_s=10.0), is_first=True)

    now = change_between(before, reading(at_s=11.0, cpu__time=500_000_000))

    assert now.statistics.cpu_percent == 50.0
    assert now.grown["cpu.cpu_seconds"] == 0.5


def test_what_was_before_the_first_reading_is_not_counted() -> None:
    """Machines that ran before the platform have no past; a later one counts from its start."""
    assert change_between(None, reading(), is_first=True).grown == {}
    assert change_between(None, reading()).grown["cpu.cpu_seconds"] == 4.0


def test_a_busy_hypervisor_keeps_its_last_figures() -> None:
    """Groups that were not told are as before and stale; the next rate spans the gap."""
    first = change_between(None, reading(at_s=0.0), is_first=True)
    second = change_between(first, reading(at_s=1.0, block__0__rd__bytes=4096 + 100))

    busy = change_between(second, without("block.", at_s=2.0))
    after = change_between(busy, reading(at_s=3.0, block__0__rd__bytes=4096 + 500))

    assert busy.statistics.is_stale
    assert busy.statistics.read_bytes_s == 100.0
    assert busy.grown.get("disks.read_bytes", 0.0) == 0.0
    assert not after.statistics.is_stale
    assert after.statistics.read_bytes_s == 200.0
    assert after.grown["disks.read_bytes"] == 400


def test_a_device_that_came_has_no_rate_yet_and_counts() -> None:
    """A hot-plugged interface does not spoil the sums of the others."""
    before = change_between(None, reading(at_s=0.0), is_first=True)
    extra = {"net.count": 2, "net.1.name": "vnet9", "net.1.rx.bytes": 50}

    now = change_between(before, read_raw("web1", "u-1", {**RAW, **extra}, at_s=1.0))

    assert [item.received_bytes_s for item in now.statistics.interfaces] == [0.0, None]
    assert now.statistics.received_bytes_s == 0.0
    assert now.grown["interfaces.received_bytes"] == 50


def changes(*names: str) -> list[Change]:
    """Machines of those names, as first read."""
    return [
        change_between(None, dataclasses.replace(reading(), name=name, uuid=name), is_first=True)
        for name in names
    ]


def test_a_new_machine_gets_all_its_series_and_an_idle_one_sends_little() -> None:
    """Counters that did not grow are sent once, so that their series are there."""
    (change,) = changes("web1")

    first = list(samples.samples_of(change, is_new=True))
    again = list(samples.samples_of(change, is_new=False))

    assert len(first) == 14
    assert {item.labels["vm"] for item in first} == {"web1"}
    assert {item.kind for item in again} == {MetricKind.GAUGE}


def test_counters_that_a_machine_has_not_get_no_series() -> None:
    """A machine without disks and interfaces shows none of theirs."""
    change = change_between(None, without("block.", "net."), is_first=True)

    names = {item.name for item in samples.samples_of(change, is_new=True)}

    assert not any("disk" in name or "network" in name for name in names)
    assert "novacron_vm_cpu_seconds_total" in names


def test_a_machine_that_is_gone_takes_its_series_along() -> None:
    """One sample for each family that it may have had."""
    (change,) = changes("web1")

    gone = list(samples.samples_gone("web1"))

    had = {item.name for item in samples.samples_of(change, is_new=True)}
    assert {item.name for item in gone} == had
    assert {(item.kind, item.labels["vm"]) for item in gone} == {(MetricKind.FORGET, "web1")}


def test_series_are_bounded_and_stay_with_who_has_them() -> None:
    """Beyond the limit machines are counted; those that are measured already go on."""
    limit = samples.MACHINES_MEASURED_MAX
    found = changes(*(f"vm{number:04}" for number in range(limit + 5)), "x" * 129)

    chosen, left_out = samples.measured(found)
    later, _ = samples.measured(found, already=frozenset({f"vm{limit + 4:04}"}))

    assert (len(chosen), left_out) == (limit, 6)
    assert later[0].reading.name == f"vm{limit + 4:04}"
    assert len(later) == limit


def test_all_samples_of_an_interval_fit_into_a_batch() -> None:
    """A process may send 2,000 samples in one go."""
    per_machine = len(list(samples.samples_of(changes("a")[0], is_new=True)))

    assert samples.MACHINES_MEASURED_MAX * per_machine < 2000


def test_a_list_of_many_machines_fits_into_a_message() -> None:
    """As many as are listed, with long names and large numbers, stay below 1 MiB."""
    import msgpack

    (change,) = changes("n" * 63)
    item = dataclasses.replace(
        without_devices(change_between(change, reading(at_s=1.0)).statistics),
        uuid="u" * 36,
        received_bytes_s=1234567.125,
    )

    data = msgpack.packb(to_wire(StatisticsReply(domains=(item,) * DOMAINS_LISTED_MAX)))

    assert len(data) < 1 << 20


@pytest.mark.parametrize("age_max_s", [-0.1, 3601.0, float("nan")])
def test_a_request_of_any_age_is_refused(age_max_s: float) -> None:
    """Ages are bounded."""
    with pytest.raises(ValueError, match="age_max_s"):
        StatisticsRequest(age_max_s=age_max_s)
