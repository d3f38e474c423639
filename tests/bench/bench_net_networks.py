"""A hundred bridges with ten ports each, beside the ``ip`` program doing the same.

Ours is what an operator waits for: from the document's text to the confirmation on disk, with what
the host has read before, the plan, the journal, the steps, everything read and planned again to
see that nothing is missing, and the confirmation. ``ip`` is what one would write down instead: a
shell script that makes each bridge, marks it, raises it, and attaches its ports; it looks at
nothing and can't be taken back. ``ip -batch`` is the same lines in one process.

All of a round happens in one network namespace, with the same thousand veth links as ports;
which of the two comes first changes from round to round.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.network.networks.apply import Networks
from services.network.networks.kernel import Kernel
from services.network.networks.model import NetworksDocument
from services.network.networks.observed import Marks
from services.network.networks.parse import parse_networks
from services.network.networks.store import NetworkStore
from tests.bench.figures import Benchmark, Figure, MeasurementError, note, spread
from tests.fixtures import fix_netns
from tests.fixtures.fix_netns import run_in_netns

BRIDGES = 100
PORTS = 10
# At least five times as fast as ip.
LIMIT = 0.2


@dataclass(slots=True)
class Seconds:
    """What everything took, a value per round."""

    ours: list[float] = field(default_factory=list)
    ip: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    planned: list[float] = field(default_factory=list)
    kernel: list[float] = field(default_factory=list)
    removed: list[float] = field(default_factory=list)


def measure(runs: int) -> Iterator[Figure]:
    """All rounds in one network namespace."""
    if os.geteuid() != 0:
        raise MeasurementError("network namespaces need root")
    if shutil.which("ip") is None:
        raise MeasurementError("there is no ip")
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-", dir="/tmp"))
    fix_netns.JOIN_TIMEOUT_S = 120.0 + 60.0 * runs
    try:
        found = run_in_netns(lambda: _rounds(directory, runs))
    finally:
        shutil.rmtree(directory)
    shares = [ours / ip for ours, ip in zip(found.ours, found.ip, strict=True)]
    yield Figure(
        name="net_networks_of_ip",
        value=statistics.median(shares),
        unit="of ip's time",
        limit=LIMIT,
        median_of=runs,
        details={
            "times_faster": round(1 / statistics.median(shares), 2),
            "bridges": BRIDGES,
            "ports_each": PORTS,
            "spread": spread(shares),
            "ours_s": spread(found.ours),
            "of_it_plan_s": spread(found.planned),
            "of_it_kernel_s": spread(found.kernel),
            "ip_s": spread(found.ip),
            "ip_batch_s": spread(found.batch),
        },
    )
    yield Figure(
        name="net_networks_removed_s",
        value=statistics.median(found.removed),
        unit="s",
        limit=None,
        median_of=runs,
        details={"bridges": BRIDGES},
    )


def _rounds(directory: Path, runs: int) -> Seconds:
    # Their other ends stay down: two ends on one bridge would send one frame round for ever.
    pairs = [f"link add p{n} type veth peer name q{n}" for n in range(BRIDGES * PORTS)]
    fix_netns.ip("-batch", "-", stdin="\n".join(pairs) + "\n")
    found = Seconds()
    for number in range(runs):
        place = directory / str(number)
        turns: list[Callable[[], None]] = [
            lambda place=place: asyncio.run(_ours(place, found)),  # type: ignore[misc]
            lambda: _theirs(found),
        ]
        for turn in turns if number % 2 == 0 else reversed(turns):
            turn()
        note(
            f"  round {number + 1}: ours {found.ours[-1]:.3f} s, ip {found.ip[-1]:.3f} s, "
            f"ip -batch {found.batch[-1]:.3f} s, removed in {found.removed[-1]:.3f} s"
        )
    return found


async def _ours(directory: Path, found: Seconds) -> None:
    networks = Networks(Kernel(), NetworkStore(directory), Marks("bench"))

    async def content() -> tuple[str, ...]:
        """Nothing has to stay reachable."""
        return ()

    text = _text()
    began_s = time.perf_counter()
    document = parse_networks(text, "bench.yaml")
    applied = await networks.apply(document, content)
    found.ours.append(time.perf_counter() - began_s)
    found.kernel.append(applied.change_s)
    assert applied.steps == BRIDGES * (2 + PORTS)
    began_s = time.perf_counter()
    assert (await networks.plan(document)).steps == ()
    found.planned.append(time.perf_counter() - began_s)
    began_s = time.perf_counter()
    await networks.apply(NetworksDocument(), content)
    found.removed.append(time.perf_counter() - began_s)


def _theirs(found: Seconds) -> None:
    lines = []
    for bridge in range(BRIDGES):
        mac = f"02:00:00:00:00:{bridge:02x}"
        lines.append(f"link add name nb{bridge} address {mac} type bridge")
        lines.append(f"link set nb{bridge} alias novacron:bench/n{bridge} up")
        lines += [f"link set p{bridge * PORTS + n} master nb{bridge} up" for n in range(PORTS)]
    script = "set -e\n" + "\n".join(f"ip {line}" for line in lines) + "\n"
    gone = "".join(f"link del nb{bridge}\n" for bridge in range(BRIDGES))
    for times, command, given in (
        (found.ip, ["sh"], script),
        (found.batch, ["ip", "-batch", "-"], "\n".join(lines) + "\n"),
    ):
        began_s = time.perf_counter()
        subprocess.run(command, input=given, text=True, check=True, timeout=120)
        times.append(time.perf_counter() - began_s)
        fix_netns.ip("-batch", "-", stdin=gone)


def _text() -> str:
    lines = ["networks:"]
    for bridge in range(BRIDGES):
        ports = ", ".join(f"p{bridge * PORTS + n}" for n in range(PORTS))
        lines.append(f"- name: n{bridge}\n  bridge: nb{bridge}\n  ports: [{ports}]")
    return "\n".join(lines) + "\n"


BENCHMARK = Benchmark(
    figures=("net_networks_of_ip", "net_networks_removed_s"),
    summary="a hundred bridges with ten ports each, beside the ip program",
    runs=5,
    measure=measure,
)
