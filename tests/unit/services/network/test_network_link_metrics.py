"""Counters of links become increments for the links that are measured; pure."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from protocol.messages.metrics import MetricKind
from services.network.link_metrics import (
    LINKS_MEASURED_MAX,
    LinkMeter,
    links_of_interest,
    parse_counters,
)
from services.network.model import Link

TABLE = """\
Inter-|   Receive           |  Transmit
 face |bytes packets errs …|bytes …
    lo:  100  1 0 0 0 0 0 0   100  1 0 0 0 0 0 0
 vnet0: {rx} 20 1 2 0 0 0 0  4000 30 3 4 0 0 0 0
eth0:1:    7  7 7 7 7 7 7 7     7  7 7 7 7 7 7 7
"""
RX = "novacron_network_link_received_bytes_total"
DROPS = "novacron_network_link_dropped_packets_total"


def table(rx: int = 1000) -> str:
    """The kernel's table."""
    return TABLE.replace("{rx}", f"{rx:>5}")


def test_the_kernel_s_table_is_read() -> None:
    """Drops and errors count both directions; names may hold a colon."""
    found = parse_counters(table())

    assert set(found) == {"lo", "vnet0", "eth0:1"}
    assert found["vnet0"][RX] == 1000
    assert found["vnet0"][DROPS] == 6
    assert found["vnet0"]["novacron_network_link_sent_packets_total"] == 30
    assert found["vnet0"]["novacron_network_link_errors_total"] == 4


def test_this_host_s_table_is_read() -> None:
    """The real file has the loopback."""
    assert "lo" in parse_counters(Path("/proc/thread-self/net/dev").read_text())


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """What is no line of counters counts for nothing."""
    parse_counters(text)
    parse_counters("\n\n" + text)


def test_our_bridges_their_ports_and_taps_are_measured() -> None:
    """A foreign bridge is not, nor its ports; a guest's tap on it is."""
    links = (
        Link(name="br0", index=1, kind="bridge"),
        Link(name="novacron0", index=2, kind="bridge", alias="novacron:node-001"),
        Link(name="vnet0", index=3, kind="tun", bridge_index=2),
        Link(name="vnet1", index=4, kind="tun", bridge_index=1),
        Link(name="veth0", index=5, kind="veth", bridge_index=1),
        Link(name="tun0", index=6, kind="tun"),
        Link(name="eth1", index=7, bridge_index=2),
    )

    assert links_of_interest(links) == {"novacron0", "vnet0", "vnet1", "eth1"}


def test_links_are_bounded_and_bridges_come_first() -> None:
    """A host with more taps than series shows its bridges."""
    taps = [
        Link(name=f"a{number}", index=number, kind="tun", bridge_index=9999)
        for number in range(1, 300)
    ]
    bridge = Link(name="zz", index=9999, kind="bridge", alias="novacron:n")

    found = links_of_interest([*taps, bridge])

    assert len(found) == LINKS_MEASURED_MAX
    assert "zz" in found


def test_what_was_before_the_first_reading_is_not_counted() -> None:
    """Series are there at once, and only what comes from then on is added."""
    meter, names = LinkMeter(), frozenset({"vnet0"})

    first = {item.name: item.value for item in meter.take(parse_counters(table(1000)), names)}
    second = {item.name: item.value for item in meter.take(parse_counters(table(1500)), names)}

    assert first[RX] == 0.0
    assert len(first) == 6
    assert second == {RX: 500.0}


def test_a_link_of_the_same_name_begins_anew() -> None:
    """A tap that was made again shows what it carried since; one that came later, all."""
    meter, names = LinkMeter(), frozenset({"vnet0"})
    list(meter.take({}, names))

    came = {item.name: item.value for item in meter.take(parse_counters(table(1000)), names)}
    again = {item.name: item.value for item in meter.take(parse_counters(table(40)), names)}

    assert came[RX] == 1000.0
    assert again[RX] == 40.0


def test_a_link_that_is_gone_takes_its_series_along() -> None:
    """Once."""
    meter = LinkMeter()
    list(meter.take(parse_counters(table()), frozenset({"vnet0"})))

    gone = list(meter.take(parse_counters(table()), frozenset()))

    assert {(item.kind, item.labels["link"]) for item in gone} == {(MetricKind.FORGET, "vnet0")}
    assert len(gone) == 6
    assert list(meter.take(parse_counters(table()), frozenset())) == []
