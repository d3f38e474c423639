"""Traffic of the bridges that are ours and of the guests' taps, as metrics.

The kernel's table of counters is one short file for all links, so that lists of links, which every
change asks for, can go without counters. A link that is gone takes its series along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from protocol.messages.metrics import MetricKind, MetricSample
from services.network.model import ALIAS_PREFIX, Link
from supervisor.child.service import ServiceContext

INTERVAL_S = 10.0
# Of the 4,096 series that a node shows; a host with more guests is seen by its bridges.
LINKS_MEASURED_MAX = 128
# Of the thread, which may be in another network namespace than the process in tests.
COUNTERS = Path("/proc/thread-self/net/dev")
# In the order of the file's columns: 8 of what is received, 8 of what is sent.
_COLUMNS = {
    "novacron_network_link_received_bytes_total": (0,),
    "novacron_network_link_received_packets_total": (1,),
    "novacron_network_link_sent_bytes_total": (8,),
    "novacron_network_link_sent_packets_total": (9,),
    "novacron_network_link_dropped_packets_total": (3, 11),
    "novacron_network_link_errors_total": (2, 10),
}
_HEADER_LINES = 2

Counters = Mapping[str, int]


def parse_counters(text: str) -> dict[str, Counters]:
    """The counters of all links by name, each by the name of its metric.

    Source: dev_seq_show in the kernel's net/core/net-procfs.c.
    """
    found: dict[str, Counters] = {}
    for line in text.splitlines()[_HEADER_LINES:]:
        name, colon, rest = line.rpartition(":")
        numbers = rest.split()
        if colon and len(numbers) > 11 and all(number.isdecimal() for number in numbers):
            values = [int(number) for number in numbers]
            found[name.strip()] = {
                metric: sum(values[column] for column in columns)
                for metric, columns in _COLUMNS.items()
            }
    return found


def links_of_interest(links: Iterable[Link]) -> frozenset[str]:
    """Bridges with our mark, what hangs on them, and taps on any bridge; bridges first."""
    links = tuple(links)
    ours = {link.index for link in links if link.alias.startswith(ALIAS_PREFIX)}
    marked = [link.name for link in links if link.index in ours]
    ports = [
        link.name
        for link in links
        if link.index not in ours
        and (link.bridge_index in ours or (link.kind == "tun" and link.bridge_index is not None))
    ]
    return frozenset([*sorted(marked), *sorted(ports)][:LINKS_MEASURED_MAX])


class LinkMeter:
    """Turns readings into increments; remembers the reading before."""

    def __init__(self) -> None:
        self._before: dict[str, Counters] = {}
        self._has_read = False

    def take(
        self, counters: Mapping[str, Counters], names: frozenset[str]
    ) -> Iterator[MetricSample]:
        """The samples of one reading.

        Of a link that came since the reading before all counts that it shows; of one that was
        there already at the first reading, only what comes from then on.

        Args:
            counters: of all links, by name.
            names: of those that are measured.
        """
        now = {name: counters[name] for name in sorted(names & counters.keys())}
        for gone in sorted(self._before.keys() - now.keys()):
            for metric in _COLUMNS:
                yield MetricSample(MetricKind.FORGET, metric, 0.0, {"link": gone})
        for name, values in now.items():
            before = self._before.get(name)
            for metric, value in values.items():
                known = 0 if before is None else before[metric]
                grown = value - known if value >= known else value
                if before is None and not self._has_read:
                    grown = 0
                if grown or before is None:
                    yield MetricSample(MetricKind.COUNTER, metric, float(grown), {"link": name})
        self._before, self._has_read = now, True


async def measure_links(
    context: ServiceContext,
    links: Callable[[], Iterable[Link]],
    *,
    interval_s: float = INTERVAL_S,
    source: Path = COUNTERS,
) -> None:
    """Measure at the interval, for ever.

    Args:
        context: for the samples.
        links: the links as last read.
        interval_s: between two readings.
        source: the kernel's table.
    """
    meter, was_readable = LinkMeter(), True
    while True:
        names = links_of_interest(links())
        try:
            counters = _read(source) if names else {}
        except OSError as exc:
            if was_readable:
                context.log.warning("link_counters_unreadable", reason=str(exc))
            was_readable = False
        else:
            was_readable = True
            for sample in meter.take(counters, names):
                context.measure(sample)
        await asyncio.sleep(interval_s)


def _read(source: Path) -> dict[str, Counters]:
    """In the loop's own thread: the kernel writes the file from memory, in microseconds a link."""
    return parse_counters(source.read_text())
