"""kill -9 of the security process and of PostgreSQL under audit load, and a disk that is full."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from tests.fixtures.audit_kills import KillBench
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import migrate, node, postgres_settings, run, until

pytestmark = [pytest.mark.postgres, pytest.mark.process]
KILLS = 12


def test_no_kill_loses_what_was_acknowledged(
    postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """After any number of kills every safe record is in the chain, once, and there is no gap."""
    bench = KillBench(postgres_database, tmp_path, seed=1)

    found = bench.run(lambda kills: kills < KILLS)

    assert found.report is not None
    assert found.report.first_bad is None
    assert found.report.records == found.report.seq == found.report.head
    assert (found.lost, found.doubled) == ([], [])
    assert found.acknowledged > KILLS
    assert found.spooled > KILLS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "state"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_costs_the_copy_and_no_record(
    postgres_database: PostgresDatabase, small_disk: Path
) -> None:
    """The chain goes on, the health says so, and the file is whole again once there is room."""
    asyncio.run(migrate(postgres_settings(postgres_database)))

    async def scenario() -> None:
        async with node(small_disk, postgres_settings(postgres_database)) as found:
            body = {"action": "vm:started", "subject": "x", "fields": {"text": "y" * 8000}}
            for _ in range(60):
                assert (await found.call("audit.append", body))["seq"] is not None
            degraded = found.context.health
            full = await found.call("audit.verify")
            await asyncio.to_thread(
                subprocess.run, ["mount", "-o", "remount,size=8m", str(small_disk)], check=True
            )
            await found.call("audit.append", body)
            await until(lambda: _is_healthy(found.context.health.state))
            report = await found.call("audit.verify")

        assert degraded.state is HealthState.DEGRADED
        assert "No space left" in degraded.reason
        assert full["first_bad"] is report["first_bad"] is None
        lines = (small_disk / "security/audit.jsonl").read_bytes()
        assert lines.count(b"\n") >= report["records"]
        assert lines.endswith(b"}\n")

    run(scenario())


async def _is_healthy(state: HealthState) -> bool:
    return state is HealthState.HEALTHY
