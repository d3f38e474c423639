"""A call between two services, beside the same exchange between two bare pyzmq sockets.

The bare exchange is a blocking DEALER and a blocking ROUTER in two processes, over ipc with CURVE
and frames as long as ours: what remains of a call when nothing of ours is in it. Rounds of both
take turns, so that whatever else the machine does meets them alike; the figure is the median over
the rounds of the ratio of the two medians of a round.
"""

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

import multiprocess
import zmq

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import NovacronError
from protocol.records import Plain
from protocol.transports.curve import load_operator_key
from protocol.transports.zeromq import SyncClient
from tests.bench.bench_services import CALLER
from tests.bench.figures import Benchmark, Figure, MeasurementError, note

CALLS = 3000
# The first calls after a pause open the connection and wake the CPUs.
WARM_UP_CALLS = 300
BODY = {"value": 1}
FIGURES = {"echo": "call_ratio", "echo_async": "call_async_ratio"}
LIMIT = 1.5
_START_S = 10.0
_STOP_S = 10.0
_ROUND_S = 60.0


def measure(runs: int) -> Iterator[Figure]:
    """Both kinds of method, interleaved with the bare exchange."""
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-", dir="/tmp"))
    try:
        with _tree(directory) as client, _raw(directory) as raw:
            yield from _compare(client, raw, runs)
    finally:
        shutil.rmtree(directory)


def _compare(client: SyncClient, raw: _Raw, runs: int) -> Iterator[Figure]:
    for method in FIGURES:
        _ours(client, method, WARM_UP_CALLS)
    raw.measure(WARM_UP_CALLS)
    bare_s: list[float] = []
    ours_s: dict[str, list[float]] = {method: [] for method in FIGURES}
    for number in range(runs):
        bare_s.append(statistics.median(raw.measure(CALLS)))
        for method, medians_s in ours_s.items():
            medians_s.append(statistics.median(_ours(client, method, CALLS)))
        row = ", ".join(f"{method} {medians[-1] * 1e6:.1f}" for method, medians in ours_s.items())
        note(f"  round {number + 1}: bare {bare_s[-1] * 1e6:.1f}, {row} µs")
    for method, medians_s in ours_s.items():
        ratios = [ours / bare for ours, bare in zip(medians_s, bare_s, strict=True)]
        yield Figure(
            name=FIGURES[method],
            value=statistics.median(ratios),
            unit="ratio",
            limit=LIMIT if method == "echo" else None,
            median_of=runs,
            details={
                "method": method,
                "calls_per_round": CALLS,
                "call_us": round(statistics.median(medians_s) * 1e6, 1),
                "bare_us": round(statistics.median(bare_s) * 1e6, 1),
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
            keys = load_operator_key(run)
            client = SyncClient(run, secret_key=keys.secret, public_key=keys.public)
            # The caller is the last to come up, and calls the other here for the first time.
            _ours(client, "echo", 1)
            return client
        if client is not None:
            client.close()
        time.sleep(0.05)
    raise MeasurementError("the tree of the benchmark did not come up")


class _Raw:
    """The client of the bare exchange."""

    def __init__(self, endpoint: str, server_public: bytes) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = int(_ROUND_S * 1000)
        self._socket.curve_serverkey = server_public
        self._socket.curve_publickey, self._socket.curve_secretkey = zmq.curve_keypair()
        self._socket.connect(endpoint)

    def measure(self, calls: int) -> list[float]:
        """Round trips in seconds."""
        frame = envelope.encode(Envelope(Kind.CALL, 1000, "echo", 5000, "", BODY))
        send, receive, clock = self._socket.send, self._socket.recv, time.perf_counter
        found = []
        for _ in range(calls):
            begun_s = clock()
            send(frame)
            receive()
            found.append(clock() - begun_s)
        return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._context.term()


@contextlib.contextmanager
def _raw(directory: Path) -> Iterator[_Raw]:
    endpoint = f"ipc://{directory}/bare.sock"
    public, secret = zmq.curve_keypair()
    server = multiprocess.get_context("spawn").Process(
        target=serve_bare, args=(endpoint, public, secret, os.getpid()), daemon=True
    )
    server.start()
    raw = _Raw(endpoint, public)
    try:
        yield raw
    finally:
        raw.close()
        server.terminate()
        server.join(_STOP_S)


def serve_bare(endpoint: str, public: bytes, secret: bytes, parent_pid: int) -> None:
    """Send back what arrives, in a process of its own, until terminated or left alone."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = public, secret
    socket.rcvtimeo = 1000
    socket.bind(endpoint)
    while os.getppid() == parent_pid:
        with contextlib.suppress(zmq.Again):
            while True:
                socket.send_multipart(socket.recv_multipart())


BENCHMARK = Benchmark(
    figures=tuple(FIGURES.values()),
    summary="a call between two services, beside bare pyzmq sockets",
    runs=7,
    measure=measure,
)
