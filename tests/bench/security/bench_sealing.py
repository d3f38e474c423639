"""Sealing beside bare AESGCM, the making of keys, and re-encryption over a real PostgreSQL.

Rounds of both kinds of sealing take turns, so that whatever else the machine does meets them
alike. ``seal`` returns a bytes object like ``encrypt`` does; ``seal_into`` writes into the caller's
buffer like ``encrypt_into`` does. Both count the use, draw a nonce and bind the header.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.records import Plain
from services.security.cipher import NONCE_BYTES, OVERHEAD_BYTES, TAG_BYTES, bind
from services.security.keyring import Keyring, load_keyring
from supervisor.child.service import Request
from tests.bench.figures import Benchmark, Figure, MeasurementError, spread
from tests.fixtures.fix_postgres import PostgresDatabase, PostgresServer, postgres_programs
from tests.system.security_node import Node, migrate, postgres_settings

SIZE_BYTES = 1 << 20
SEALS = 60
ROTATIONS = 40
VALUES = 900
VALUE_BYTES = 256
# At least 0.9 of the bare speed.
TIME_RATIO_MAX = 1 / 0.9
_CONTEXT = bind("benchmark", "value")


def measure(runs: int) -> Iterator[Figure]:
    """Everything, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-", dir="/tmp"))
    try:
        keyring = load_keyring(directory / "security", node_id="node", now_s=time.time())
        try:
            yield from _sealing(keyring, runs)
            yield _rotation(keyring)
            yield _master_rotation(keyring)
        finally:
            keyring.close()
        yield _reencryption(directory / "state")
    finally:
        shutil.rmtree(directory)


def _sealing(keyring: Keyring, runs: int) -> Iterator[Figure]:
    value, nonce = os.urandom(SIZE_BYTES), os.urandom(NONCE_BYTES)
    gcm = AESGCM(os.urandom(32))
    ours, bare = bytearray(SIZE_BYTES + OVERHEAD_BYTES), bytearray(SIZE_BYTES + TAG_BYTES)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "seal_1mib_time_ratio": (
            lambda: keyring.seal(value, context=_CONTEXT),
            lambda: gcm.encrypt(nonce, value, _CONTEXT),
        ),
        "seal_into_1mib_time_ratio": (
            lambda: keyring.seal_into(ours, value, context=_CONTEXT),
            lambda: gcm.encrypt_into(nonce, value, _CONTEXT, bare),
        ),
    }
    for name, (work, raw) in pairs.items():
        rounds = [(_median_s(work), _median_s(raw)) for _ in range(runs)]
        yield Figure(
            name=name,
            value=statistics.median(ours_s / raw_s for ours_s, raw_s in rounds),
            unit="ratio",
            limit=TIME_RATIO_MAX,
            median_of=runs,
            details={
                "ours_us": round(1e6 * statistics.median(it[0] for it in rounds), 1),
                "bare_us": round(1e6 * statistics.median(it[1] for it in rounds), 1),
            },
        )


def _median_s(work: Callable[[], object]) -> float:
    times_s = []
    for _ in range(SEALS):
        began_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s)


def _rotation(keyring: Keyring) -> Figure:
    times_s = []
    for _ in range(ROTATIONS):
        began_s = time.perf_counter()
        keyring.rotate(now_s=time.time())
        times_s.append(time.perf_counter() - began_s)
    return _duration("key_rotation_s", times_s)


def _master_rotation(keyring: Keyring) -> Figure:
    times_s = []
    for _ in range(ROTATIONS):
        began_s = time.perf_counter()
        keyring.rotate_master()
        times_s.append(time.perf_counter() - began_s)
        keyring.drop_old_master()
    return _duration("master_rotation_s", times_s, keys=len(keyring.keyset.entries))


def _duration(name: str, times_s: list[float], **details: Plain) -> Figure:
    return Figure(
        name=name,
        value=statistics.median(times_s),
        unit="s",
        limit=None,
        median_of=len(times_s),
        details={**spread(times_s), **details},
    )


def _reencryption(state: Path) -> Figure:
    programs = postgres_programs()
    if programs is None:
        raise MeasurementError("PostgreSQL's programs are not installed")
    state.mkdir()
    server = PostgresServer(programs)
    try:
        server.start()
        return asyncio.run(_reencrypt(state, PostgresDatabase(server, "postgres")))
    finally:
        server.remove()


async def _reencrypt(state: Path, database: PostgresDatabase) -> Figure:
    postgres = postgres_settings(database)
    await migrate(postgres)
    node = Node(state, postgres)
    await node.service.init(node.context)
    try:
        for number in range(VALUES):
            body = {"name": f"v{number}", "value": os.urandom(VALUE_BYTES)}
            await node.call("sealed.put", body)
        began_s = time.perf_counter()
        calls = node.service.calls()
        await calls["keys.rotate"](Request("operator", "keys.rotate", None, 60.0))
        while True:
            status = await calls["keys.status"](Request("operator", "keys.status", None, 60.0))
            if not status["job"].get("left"):
                break
            await asyncio.sleep(0.02)
        rate = VALUES / (time.perf_counter() - began_s)
    finally:
        await node.service.terminate()
    return Figure(
        name="reencryption_values_per_s",
        value=rate,
        unit="1/s",
        limit=None,
        details={
            "values": VALUES,
            "value_bytes": VALUE_BYTES,
            "pause_share": 0.5,
        },
    )


BENCHMARK = Benchmark(
    figures=(
        "seal_1mib_time_ratio",
        "seal_into_1mib_time_ratio",
        "key_rotation_s",
        "master_rotation_s",
        "reencryption_values_per_s",
    ),
    summary="sealing 1 MiB beside bare AESGCM; making keys; re-encryption",
    runs=11,
    measure=measure,
)
