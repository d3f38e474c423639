"""What the guard costs: a decision of the shipped policy, and recording a call."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import NovacronError
from protocol.transports import identities
from protocol.transports.curve import client_pair, raw_key
from protocol.transports.identities import Identity, boottime_s
from protocol.transports.person import PersonKeys
from protocol.transports.zeromq import SyncClient
from services.policy import host
from supervisor.guard.guard import Guard
from supervisor.guard.policy import decide
from tests.bench.figures import Benchmark, Figure, MeasurementError
from tests.bench.security.guard_tree import ECHO

CALLS = 300
DECISIONS = 2000
# From the first rules, from the last ones, and what none of them allows.
QUESTIONS = (
    ("core/vm", (), "metrics", "telemetry"),
    ("core/dwcp/manager", (), "transfer.send", "core/dwcp/transport.0"),
    ("operator/anna", ("viewer", "operator", "admin"), "keys.rotate", "security"),
    ("core/vm", (), "restart", "core"),
)
_START_S = 10.0


def measure(runs: int) -> Iterator[Figure]:
    """Decisions first, then calls on a tree of one service."""
    yield from _decisions(runs)
    # On a disk: in memory nothing has to be waited for.
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-", dir="/var/tmp"))
    try:
        (directory / "spool").mkdir(mode=0o700)
        (directory / "run").mkdir()
        with _tree(directory) as client:
            yield _extra_of_recording(client, runs, directory)
    finally:
        shutil.rmtree(directory)


def _decisions(runs: int) -> Iterator[Figure]:
    root = Path(__file__).parents[3]
    file = root / "etc/novacron/policy.yaml"
    policy = host.load(file, group="root", is_enforced=True, is_audited=True).policy
    worst_us = []
    for _ in range(runs):
        found = []
        for question in QUESTIONS:
            begun_s = time.perf_counter()
            for _ in range(DECISIONS):
                decide(policy, *question)
            found.append((time.perf_counter() - begun_s) / DECISIONS * 1e6)
        worst_us.append(max(found))
    yield Figure(
        name="policy_decision",
        value=round(statistics.median(worst_us), 2),
        unit="us",
        limit=50.0,
        median_of=runs,
        details={"rules": len(policy.rules), "questions": len(QUESTIONS)},
    )
    yield Figure(
        name="policy_decision_again",
        value=round(statistics.median(_again_us() for _ in range(runs)), 3),
        unit="us",
        limit=None,
        median_of=runs,
        details={"decisions": DECISIONS},
    )


def _again_us() -> float:
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory)
        identities.prepare(run)
        pair = client_pair(os.urandom(32), 0)
        identities.issue(run, pair.public, Identity(name="a", expires_s=boottime_s() + 60.0))
        guard = Guard(run, "b", has_policy=False, is_supervisor=False)
        user_id = raw_key(pair.public).hex()
        guard.judge(user_id, "m")
        begun_s = time.perf_counter()
        for _ in range(DECISIONS):
            guard.judge(user_id, "m")
        return (time.perf_counter() - begun_s) / DECISIONS * 1e6


def _extra_of_recording(client: SyncClient, runs: int, directory: Path) -> Figure:
    extra_ms, plain_ms, disk_ms = [], [], []
    for _ in range(runs):
        disk_ms.append(_disk_ms(directory))
        medians = {method: _median_ms(client, method) for method in ("plain", "audited")}
        plain_ms.append(medians["plain"])
        extra_ms.append(medians["audited"] - medians["plain"])
    return Figure(
        name="audited_call_extra",
        value=round(statistics.median(extra_ms), 3),
        unit="ms",
        limit=2.0,
        median_of=runs,
        details={
            "calls": CALLS,
            "plain_ms": round(statistics.median(plain_ms), 3),
            # What the disk itself takes for such a record; the rest is ours.
            "disk_ms": round(statistics.median(disk_ms), 3),
        },
    )


def _disk_ms(directory: Path) -> float:
    """Append and make durable, as the spool's writer does."""
    found = []
    with (directory / "raw").open("wb", buffering=0) as file:
        for _ in range(CALLS // 3):
            begun_s = time.perf_counter()
            file.write(bytes(300))
            os.fdatasync(file.fileno())
            found.append((time.perf_counter() - begun_s) * 1e3)
    return statistics.median(found)


def _median_ms(client: SyncClient, method: str) -> float:
    found = []
    for _ in range(CALLS):
        begun_s = time.perf_counter()
        client.call(ECHO, method, {"id": 1})
        found.append((time.perf_counter() - begun_s) * 1e3)
    return statistics.median(found)


@contextlib.contextmanager
def _tree(directory: Path) -> Iterator[SyncClient]:
    command = [sys.executable, "-m", "tests.bench.security.guard_tree", str(directory)]
    process = subprocess.Popen(command)
    client = None
    try:
        client = _connect(directory / "run", process)
        yield client
    finally:
        if client is not None:
            client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(10.0)


def _connect(run: Path, process: subprocess.Popen[bytes]) -> SyncClient:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(NovacronError):
            client = SyncClient(run, keys=PersonKeys(run))
            try:
                client.call(ECHO, "plain")
            except NovacronError:
                client.close()
                raise
            return client
        time.sleep(0.05)
    raise MeasurementError("the tree of the benchmark did not come up")


BENCHMARK = Benchmark(
    figures=("policy_decision", "policy_decision_again", "audited_call_extra"),
    summary="the guard: a decision, and a recorded call beside a plain one",
    runs=5,
    measure=measure,
)
