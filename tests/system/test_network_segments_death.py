"""Segments when a change is cut off: callers, disks, rights, and death at the worst moment."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from services.network.segments.errors import (
    SegmentsBusyError,
    SegmentsCheckFailedError,
    SegmentsRestoreFailedError,
    SegmentsStateError,
    SegmentsTooLargeError,
)
from tests.fixtures.fix_guests import Guest
from tests.system.network_running import in_netns, wait_until
from tests.system.segments_running import (
    RULE,
    Running,
    document,
    interface,
    running,
    table,
    text,
    with_guest,
)

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]


def test_two_changes_at_a_time_are_refused(tmp_path: Path) -> None:
    """The second one is told to come back; the first one goes on."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        async with running(tmp_path) as node:
            first = asyncio.create_task(node.apply(interface(1), targets=(f"{guest.address}:80",)))
            await wait_until(lambda: table() != "", "first change")
            with pytest.raises(SegmentsBusyError):
                await node.apply(interface(1, RULE))
            with pytest.raises(SegmentsCheckFailedError):
                await first

    with_guest(scenario)


def test_a_change_whose_caller_goes_away_is_taken_back(tmp_path: Path) -> None:
    """Cancelled during the check, nothing of it is in force."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        async with running(tmp_path) as node:
            change = asyncio.create_task(node.apply(interface(1), targets=(f"{guest.address}:80",)))
            await wait_until(lambda: table() != "", "change")
            change.cancel()
            with pytest.raises(asyncio.CancelledError):
                await change
            assert table() == ""

    with_guest(scenario)


@pytest.mark.parametrize("write", [1, 3])
def test_a_full_disk_takes_the_change_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """What can't be noted ahead is not tried, and what can't be confirmed is not kept."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            before = table()
            real = os.fsync
            calls = []

            def full(descriptor: int) -> None:
                calls.append(descriptor)
                if len(calls) == write:  # journal, its directory, then the confirmation
                    raise OSError(28, "No space left on device")
                real(descriptor)

            monkeypatch.setattr("os.fsync", full)
            with pytest.raises(SegmentsStateError, match="No space left"):
                await node.apply(interface(1))
            monkeypatch.setattr("os.fsync", real)
            assert table() == before
            shown = await node.call("segments.show", {})
            assert shown["status"]["revision"] == 1

    in_netns(scenario)


def test_what_can_not_be_restored_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both faults, the journal stays, and the next start mends it."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            before = table()

            async def lose_nft() -> None:
                await wait_until(lambda: table() != before, "change")
                monkeypatch.setattr("services.network.segments.nft.PATH", str(tmp_path))

            losing = asyncio.create_task(lose_nft())
            with pytest.raises(SegmentsRestoreFailedError, match="did not answer"):
                await node.apply(interface(1), targets=(f"{guest.address}:80",))
            await losing
            assert node.context.health.state is HealthState.DEGRADED
            assert (tmp_path / "network" / "segments.journal").exists()
        monkeypatch.undo()
        async with running(tmp_path) as node:
            assert table() == before
            assert node.events() == ["segments:restored"]
            assert node.context.health.state is HealthState.HEALTHY

    with_guest(scenario)


_DOOMED = """
import asyncio, json, sys
from pathlib import Path
from protocol.records import from_wire
from services.network.segments.apply import Segments
from services.network.segments.model import SegmentDocument
from services.network.segments.nft import Nft, parse_listing
from services.network.segments.store import SegmentStore

async def main():
    async def content():
        pass
    async def hang():
        print("changed", flush=True)
        await asyncio.sleep(60)
    segments = Segments(Nft(), SegmentStore(Path(sys.argv[1]) / "network"))
    await segments.open()
    for text, probe in ((sys.argv[2], content), (sys.argv[3], hang)):
        if text:
            await segments.apply(from_wire(SegmentDocument, json.loads(text)), probe)

asyncio.run(main())
"""


@pytest.mark.process
@pytest.mark.parametrize("had_one", [True, False])
def test_a_kill_between_change_and_confirmation_is_taken_back_at_the_next_start(
    tmp_path: Path, *, had_one: bool
) -> None:
    """Kill -9 leaves the change in force until the service starts, which restores the old set."""

    async def scenario() -> None:
        old = json.dumps(document(interface(1, RULE))) if had_one else ""
        new = json.dumps(document(interface(2)))
        before = ""
        if had_one:
            async with running(tmp_path) as node:
                await node.apply(interface(1, RULE))
            before = table()
        process = subprocess.Popen(  # noqa: ASYNC220 - it is to die, and nothing else runs
            [sys.executable, "-c", _DOOMED, str(tmp_path), old, new],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"changed\n"
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.wait(10)
            process.stdout.close()
        assert "tap2" in text()

        async with running(tmp_path) as node:
            assert table() == before
            assert node.events() == ["segments:restored"]
            assert node.context.health.state is HealthState.HEALTHY
            assert not (tmp_path / "network" / "segments.journal").exists()

    in_netns(scenario)


_WITHOUT_CAPABILITY = """
import asyncio, json, sys
from services.network.service import NetworkService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

async def main():
    settings = {"node_id": "n1", "bridge": {"enabled": False}, "state_dir": sys.argv[1]}
    context = MemoryServiceContext(path="core/network", settings=settings)
    service = NetworkService()
    await service.init(context)
    try:
        await service.calls()["segments.show"](Request("operator", "", {}, 5.0))
    except Exception as exc:
        code = exc.code
    await service.terminate()
    print(json.dumps([context.health.state.value, context.health.reason, code]))

asyncio.run(main())
"""


def test_without_the_capability_wanted_segments_are_skipped_with_a_reason(tmp_path: Path) -> None:
    """The component comes up degraded, and a call says the same."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))

    in_netns(scenario)
    prefix = ("unshare", "--net", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", _WITHOUT_CAPABILITY, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    state, reason, code = json.loads(done.stdout.splitlines()[-1])
    assert state == "degraded"
    assert reason.startswith("segments skipped: can't follow changes of nftables")
    assert "CAP_NET_ADMIN" in reason
    assert code == "network.netlink_failed"


@pytest.fixture
def others_state() -> Iterator[Path]:
    """A state directory of an account without rights, where it can reach it."""
    place = Path(tempfile.mkdtemp(prefix="novacron-", dir="/tmp"))
    os.chown(place, 65534, 65534)
    yield place
    shutil.rmtree(place)


def test_the_capability_alone_is_enough(others_state: Path) -> None:
    """An account without rights, but with CAP_NET_ADMIN, applies and reads segments."""
    prefix = ("unshare", "--net", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
              "--inh-caps=-all,+net_admin", "--ambient-caps=+net_admin",
              "--bounding-set=-all,+net_admin")  # fmt: skip
    wanted = {"document": document(interface(1, RULE))}
    program = _WITHOUT_CAPABILITY.replace(
        '"segments.show"](Request("operator", "", {}, 5.0))',
        f'"segments.apply"](Request("operator", "", {wanted!r}, 20.0)); code = "applied"',
    )

    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", program, str(others_state)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["healthy", "", "applied"]


def test_a_document_that_no_reply_could_hold_is_refused(tmp_path: Path) -> None:
    """What can be applied can be shown."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            peers = [f"fd00:1234:5678:9abc:def0:1234:5678:{number:04x}" for number in range(1, 65)]
            big = {"direction": "in", "peers": peers}
            many = [interface(n, *([big] * 6), addresses=[]) for n in range(1, 61)]
            with pytest.raises(SegmentsTooLargeError, match="900 KiB"):
                await node.apply(*many)

    in_netns(scenario)


def test_dropped_packets_are_counted_per_interface(tmp_path: Path) -> None:
    """Metrics are increments; a change of the document keeps the counts."""

    async def scenario(guest: Guest) -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1))
            assert not guest.reaches("10.20.0.254", 80)
            part = node.service._segments
            assert part is not None
            await part.count_once()
            first = _counted(node)
            assert first["out"] >= 1
            await node.service.check()
            await node.apply(interface(1, RULE))
            await part.count_once()
            assert _counted(node) == first
            shown = await node.call("segments.show", {})
            assert shown["drops"][0]["sent"] == first["out"]

    with_guest(scenario)


def _counted(node: Running) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in node.context.samples:
        if sample.name == "novacron_network_segment_dropped_packets_total":
            assert sample.labels["interface"] == "tap1"
            reason = sample.labels["reason"]
            found[reason] = found.get(reason, 0) + sample.value
    return found
