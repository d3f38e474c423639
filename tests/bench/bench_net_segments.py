"""A thousand segment rules in one change, beside ``nft -f`` with the text of the same table.

A change is what an operator waits for: validated document to confirmed set, with compiling, the
journal on disk, one transaction, and the confirmation on disk. Half of the rules name a label,
half a network; every one has a port of its own, so that no two interfaces share a chain.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.network.segments.apply import Segments
from services.network.segments.changes import TableChanges
from services.network.segments.model import (
    Direction,
    IpProtocol,
    SegmentDocument,
    SegmentInterface,
    SegmentRule,
)
from services.network.segments.nft import Nft
from services.network.segments.ruleset import FAMILY, TABLE
from services.network.segments.store import SegmentStore
from tests.bench.figures import Benchmark, Figure, MeasurementError, note, spread
from tests.fixtures.fix_netns import run_in_netns

RULES = 1000
LIMIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one round: from nothing, all rules at once into 1,000 interfaces, one rule."""

    first_s: float
    rules_s: float
    commit_s: float
    one_s: float
    plain_s: float


def measure(runs: int) -> Iterator[Figure]:
    """Each round in a network namespace of its own."""
    if os.geteuid() != 0:
        raise MeasurementError("network namespaces need root")
    if shutil.which("nft") is None:
        raise MeasurementError("there is no nft")
    rounds = []
    for number in range(runs):
        directory = Path(tempfile.mkdtemp(prefix="novacron-bench-", dir="/tmp"))
        try:
            rounds.append(run_in_netns(lambda place=directory: asyncio.run(_round(place))))
        finally:
            shutil.rmtree(directory)
        note(f"  round {number + 1}: {rounds[-1]}")
    details = {
        "rules": RULES,
        "transaction_s": spread([item.commit_s for item in rounds]),
        "from_nothing_s": spread([item.first_s for item in rounds]),
        "nft_f_of_the_same_text_s": spread([item.plain_s for item in rounds]),
    }
    yield Figure(
        name="net_segments_1000_rules_s",
        value=statistics.median(item.rules_s for item in rounds),
        unit="s",
        limit=LIMIT_S,
        median_of=runs,
        details={**details, "spread": spread([item.rules_s for item in rounds])},
    )
    yield Figure(
        name="net_segments_1000_interfaces_s",
        value=statistics.median(item.first_s for item in rounds),
        unit="s",
        limit=None,
        median_of=runs,
    )
    yield Figure(
        name="net_segments_one_rule_s",
        value=statistics.median(item.one_s for item in rounds),
        unit="s",
        limit=None,
        median_of=runs,
        details={"interfaces": RULES},
    )


async def _round(directory: Path) -> Round:
    changes = TableChanges()
    segments = Segments(Nft(), SegmentStore(directory / "network"), changes=changes)

    async def content() -> None:
        """Nothing has to stay reachable."""

    async def change(rules: int, port: int) -> tuple[float, float]:
        document = _document(rules, port)
        applied = await segments.apply(document, content)
        seconds = applied.total_s, applied.commit_s
        await segments.verify()  # as the service does afterwards
        return seconds

    try:
        first_s, _ = await change(RULES, 1000)
        await change(0, 1000)
        rules_s, commit_s = await change(RULES, 1000)
        one_s, _ = await change(RULES - 1, 1000)
        return Round(first_s, rules_s, commit_s, one_s, _plain())
    finally:
        changes.close()


def _plain() -> float:
    """Seconds of ``nft -f`` with the table's text, where no table is."""
    listed = subprocess.run(
        ["nft", "list", "table", FAMILY, TABLE], check=True, capture_output=True, timeout=60
    )
    subprocess.run(["nft", "delete", "table", FAMILY, TABLE], check=True, timeout=60)
    began_s = time.perf_counter()
    subprocess.run(["nft", "-f", "-"], input=listed.stdout, check=True, timeout=60)
    return time.perf_counter() - began_s


def _document(rules: int, port: int) -> SegmentDocument:
    """A thousand interfaces, the first of them with a rule each."""
    return SegmentDocument(
        guarded=("vnet*",),
        interfaces=tuple(
            SegmentInterface(
                name=f"vnet{number}",
                mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
                addresses=(f"10.20.{number >> 8}.{number & 255}",),
                labels=("web" if number % 2 else "app",),
                rules=(_rule(number, port + number),) if number <= rules else (),
            )
            for number in range(1, RULES + 1)
        ),
    )


def _rule(number: int, port: int) -> SegmentRule:
    return SegmentRule(
        direction=Direction.IN,
        peers=("label:app",) if number % 2 else (f"10.{number & 127}.0.0/16",),
        protocol=IpProtocol.TCP,
        ports=(str(port),),
    )


BENCHMARK = Benchmark(
    figures=(
        "net_segments_1000_rules_s",
        "net_segments_1000_interfaces_s",
        "net_segments_one_rule_s",
    ),
    summary="a thousand segment rules in one change, beside nft -f of the same text",
    runs=7,
    measure=measure,
)
