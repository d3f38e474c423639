"""A call between two services, beside the same exchange between two bare pyzmq sockets.

Rounds of both take turns, so that whatever else the machine does meets them alike; the figure is
the median over the rounds of the ratio of the two medians of a round. A third kind of round, bare
sockets on asyncio loops, tells how much of the ratio is the loop's.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from protocol.errors import NovacronError
from protocol.records import Plain
from protocol.transports.person import PersonKeys
from protocol.transports.zeromq import SyncClient
from tests.bench.bare import bare, serve_blocking, serve_on_loop
from tests.bench.bench_services import CALLER
from tests.bench.figures import Benchmark, Figure, MeasurementError, note

CALLS = 2000
# The first calls after a pause open the connection and wake the CPUs.
WARM_UP_CALLS = 300
BODY = {"value": 1}
BARE = "bare"
LIMIT = 1.5
# Figure and limit of each kind of round; the bare one is what the others are divided by.
FIGURES = {
    "echo": ("call_ratio", LIMIT),
    "echo_async": ("call_async_ratio", None),
    "bare_loop": ("call_bare_loop_ratio", None),
}
_START_S = 10.0
_STOP_S = 10.0
_ROUND_S = 60.0

Round = Callable[[int], list[float]]


def measure(runs: int) -> Iterator[Figure]:
    """Both kinds of method and both bare exchanges, in turns."""
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-", dir="/tmp"))
    try:
        with (
            _tree(directory) as client,
            bare(serve_blocking, directory / "bare.sock", BODY) as blocking,
            bare(serve_on_loop, directory / "loop.sock", BODY) as on_loop,
        ):
            yield from _compare(
                {
                    BARE: blocking.measure_blocking,
                    "echo": functools.partial(_ours, client, "echo"),
                    "echo_async": functools.partial(_ours, client, "echo_async"),
                    "bare_loop": on_loop.measure_on_loop,
                },
                runs,
            )
    finally:
        shutil.rmtree(directory)


def _compare(rounds: dict[str, Round], runs: int) -> Iterator[Figure]:
    medians_s: dict[str, list[float]] = {kind: [] for kind in rounds}
    for take in rounds.values():
        take(WARM_UP_CALLS)
    for number in range(runs):
        for kind, take in rounds.items():
            medians_s[kind].append(statistics.median(take(CALLS)))
        row = ", ".join(f"{kind} {found[-1] * 1e6:.1f}" for kind, found in medians_s.items())
        note(f"  round {number + 1}: {row} µs")
    for kind, (name, limit) in FIGURES.items():
        pairs = zip(medians_s[kind], medians_s[BARE], strict=True)
        ratios = [ours_s / bare_s for ours_s, bare_s in pairs]
        yield Figure(
            name=name,
            value=statistics.median(ratios),
            unit="ratio",
            limit=limit,
            median_of=runs,
            details={
                "calls_per_round": CALLS,
                "call_us": round(statistics.median(medians_s[kind]) * 1e6, 1),
                "bare_us": round(statistics.median(medians_s[BARE]) * 1e6, 1),
                "ratios": [round(ratio, 3) for ratio in ratios],
            },
        )


def _ours(client: SyncClient, method: str, calls: int) -> list[float]:
    body: Plain = {"method": method, "calls": calls, "body": BODY}
    found: list[float] = client.call(CALLER, "measure", body, timeout_s=_ROUND_S)
    return found


@contextlib.contextmanager
def _tree(directory: Path) -> Iterator[SyncClient]:
    run = directory / "run"
    run.mkdir()
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.bench_services", str(run)])
    client = None
    try:
        client = _connect(run, process)
        yield client
    finally:
        if client is not None:
            client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)


def _connect(run: Path, process: subprocess.Popen[bytes]) -> SyncClient:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        client = None
        with contextlib.suppress(NovacronError):
            client = SyncClient(run, keys=PersonKeys(run))
            # The caller is the last to come up, and calls the other here for the first time.
            _ours(client, "echo", 1)
            return client
        if client is not None:
            client.close()
        time.sleep(0.05)
    raise MeasurementError("the tree of the benchmark did not come up")


BENCHMARK = Benchmark(
    figures=tuple(name for name, _limit in FIGURES.values()),
    summary="a call between two services, beside bare pyzmq sockets",
    runs=11,
    measure=measure,
)
