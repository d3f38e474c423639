"""The network service's segments: calls, restoration, drift, and death at the worst moment."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import RemoteProtocolError
from protocol.messages.health import HealthState
from protocol.records import Plain
from services.network.segments.errors import (
    NftFailedError,
    NftMissingError,
    NftTimeoutError,
    SegmentsBusyError,
    SegmentsCheckFailedError,
    SegmentsNotWantedError,
    SegmentsRestoreFailedError,
    SegmentsStateError,
    SegmentsTargetSilentError,
    SegmentsTooLargeError,
)
from services.network.segments.nft import Nft, parse_listing
from services.network.segments.render import Command
from services.network.service import NetworkService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_guests import Guest, guests
from tests.fixtures.fix_netns import run_in_netns

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]
RULE: Plain = {"direction": "in", "peers": ["any"], "protocol": "tcp", "ports": ["80"]}


def interface(number: int = 1, *rules: Plain, **more: Plain) -> dict[str, Plain]:
    """An interface as it is on the wire."""
    return {
        "name": f"tap{number}",
        "mac": f"52:54:00:00:00:{number:02x}",
        "addresses": [f"10.20.0.{number}"],
        "rules": list(rules),
        **more,
    }


def document(*interfaces: Plain) -> Plain:
    """A document as it is on the wire."""
    return {"interfaces": list(interfaces)}


class Running:
    """A network service that came up, and its context."""

    def __init__(self, service: NetworkService, context: MemoryServiceContext) -> None:
        self.service = service
        self.context = context

    async def call(self, method: str, body: Plain = None) -> Any:
        """Call a method as an operator."""
        return await self.service.calls()[method](Request("operator", method, body, 30.0))

    async def apply(self, *interfaces: Plain, targets: tuple[str, ...] = ()) -> Any:
        """Put interfaces in force."""
        check: Plain = {"targets": list(targets), "timeout_s": 0.5}
        return await self.call(
            "segments.apply", {"document": document(*interfaces), "check": check}
        )

    def events(self) -> list[str]:
        """Names of the segments' events."""
        return [name for name, _ in self.context.events if name.startswith("segments:")]


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[Running]:
    """A service from init to terminate."""
    settings: dict[str, Plain] = {
        "node_id": "n1",
        "bridge": {"enabled": False},
        "state_dir": str(state),
    }
    context = MemoryServiceContext(path="core/network", settings=settings)
    service = NetworkService()
    await service.init(context)
    try:
        yield Running(service, context)
    finally:
        await service.terminate()
    assert context.failures == []


def in_netns(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous scenario in a fresh namespace."""

    async def run() -> None:
        await scenario()

    run_in_netns(lambda: asyncio.run(run()))


async def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 8.0) -> None:
    """Let the service work until the condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} within {timeout_s} s"
        await asyncio.sleep(0.01)


def nft(*arguments: str, stdin: str = "") -> str:
    """Run nft as somebody else would."""
    done = subprocess.run(
        ["nft", *arguments], input=stdin, check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout


def table() -> str:
    """Digest of our table without counts; "" where there is none."""
    done = subprocess.run(
        ["nft", "-j", "list", "table", "bridge", "novacron-segments"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    return parse_listing(done.stdout).fingerprint if done.returncode == 0 else ""


def text() -> str:
    """Our table as nft writes it."""
    return nft("list", "table", "bridge", "novacron-segments")


def test_a_service_that_never_had_segments_leaves_nftables_alone(tmp_path: Path) -> None:
    """Without a document there is no table, no file, and the component is healthy."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.HEALTHY
            shown = await node.call("segments.show", {})
            assert shown["status"]["state"] == "none"
            with pytest.raises(SegmentsNotWantedError):
                await node.call("segments.apply", {})
            question = {"source": "tap1", "destination": "host"}
            with pytest.raises(SegmentsNotWantedError):
                await node.call("segments.trace", {"question": question})
        assert nft("list", "ruleset") == ""
        assert not (tmp_path / "network" / "segments.journal").exists()

    in_netns(scenario)


def test_plan_apply_show_and_trace_tell_the_same_story(tmp_path: Path) -> None:
    """A plan changes nothing; what it says is applied, shown, and asked about."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            plan = await node.call("segments.plan", {"document": document(interface(1, RULE))})
            assert table() == ""
            assert [step["subject"] for step in plan["steps"]] == ["interface tap1"]
            assert plan["warnings"] == ["tap1: the host has no such link now"]

            applied = await node.apply(interface(1, RULE))
            assert applied["revision"] == 1
            assert "tap1" in text()
            shown = await node.call("segments.show", {})
            assert shown["status"]["state"] == "in_force"
            assert shown["document"]["interfaces"][0]["name"] == "tap1"
            question = {
                "source": "eth9",
                "destination": "tap1",
                "source_address": "192.0.2.1",
                "port": 80,
            }
            answer = await node.call("segments.trace", {"question": question})
            assert answer["accepted"] is True
            assert "tap1: in 1" in json.dumps(answer)
            answer = await node.call("segments.trace", {"question": {**question, "port": 81}})
            assert answer["accepted"] is False
            assert answer["steps"][-1]["does"] == "drop"
            again = await node.call("segments.plan", {"document": document(interface(1, RULE))})
            assert again.get("steps", []) == []
            assert node.events() == ["segments:applied"]

    in_netns(scenario)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"mac": "52-54-00-00-00-01"}, "tap1: mac is"),
        ({"mac": "01:54:00:00:00:01"}, "multicast"),
        ({"addresses": ["10.20.0.300"]}, "which is no address"),
        ({"name": "../tap"}, "a link name has"),
        ({"rules": [{"direction": "in", "peers": []}]}, "peers has 0 entries"),
        ({"rules": [{"direction": "in", "peers": ["label:nobody"]}]}, "which nobody carries"),
        ({"rules": [{**RULE, "ports": ["0"]}]}, "within 1 to 65535"),
        ({"colour": "red"}, "unknown field"),
    ],
)
def test_a_bad_document_changes_nothing(
    tmp_path: Path, bad: dict[str, Plain], message: str
) -> None:
    """It is refused with its fault named, and the set in force stays as it is."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(2, RULE))
            before = table()
            with pytest.raises(RemoteProtocolError, match=message):
                await node.apply(interface(2, RULE), {**interface(1), **bad})
            assert table() == before
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_what_nft_refuses_names_the_document_and_changes_nothing(tmp_path: Path) -> None:
    """The first command that fails belongs to an interface, and the message says which."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            before = table()
            commands = [
                Command({"add": {"chain": {**_PLACE, "name": "extra"}}}, "tap1"),
                Command({"add": {"rule": {**_PLACE, "chain": "missing", "expr": []}}}, "tap7"),
                Command({"add": {"chain": {**_PLACE, "name": "last"}}}, "tap9"),
            ]
            with pytest.raises(NftFailedError, match=r"^tap7: nft refused") as caught:
                await Nft().commit(commands)
            assert caught.value.fields["interface"] == "tap7"
            assert table() == before

    in_netns(scenario)


_PLACE: dict[str, Plain] = {"family": "bridge", "table": "novacron-segments"}


def _with_guest(scenario: Callable[[Guest], Awaitable[None]]) -> None:
    def work() -> None:
        with guests("tap1") as (guest,):

            async def run() -> None:
                await scenario(guest)

            asyncio.run(run())

    run_in_netns(work)


def test_the_previous_set_is_restored_when_the_check_fails(tmp_path: Path) -> None:
    """A change that cuts off what must stay reachable is taken back, and said so."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        target = f"{guest.address}:80"
        async with running(tmp_path) as node:
            good = await node.apply(interface(1, RULE), targets=(target,))
            before = table()
            with pytest.raises(SegmentsCheckFailedError, match=r"10\.20\.0\.1:80 did not answer"):
                await node.apply(interface(1), targets=(target,))

            assert table() == before
            assert node.events() == ["segments:applied", "segments:refused"]
            shown = await node.call("segments.show", {})
            assert shown["status"]["revision"] == good["revision"]
            assert not (tmp_path / "network" / "segments.journal").exists()
            assert (await node.service.check()).state is HealthState.HEALTHY
            await node.apply(interface(1, RULE, {**RULE, "ports": ["81"]}), targets=(target,))

    _with_guest(scenario)


def test_the_first_set_is_taken_away_when_its_check_fails(tmp_path: Path) -> None:
    """Where nothing was in force before, nothing is afterwards."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        async with running(tmp_path) as node:
            with pytest.raises(SegmentsCheckFailedError):
                await node.apply(interface(1), targets=(f"{guest.address}:80",))
            assert table() == ""

    _with_guest(scenario)


def test_a_table_of_unknown_origin_is_put_back_as_it_was(tmp_path: Path) -> None:
    """A lost state directory does not open the guests when a change fails."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        async with running(tmp_path / "old") as node:
            await node.apply(interface(1, RULE))
            before = table()
        async with running(tmp_path / "new") as node:
            with pytest.raises(SegmentsCheckFailedError):
                await node.apply(interface(1), targets=(f"{guest.address}:80",))
            assert table() == before

    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    _with_guest(scenario)


def test_a_target_that_was_silent_before_refuses_the_change(tmp_path: Path) -> None:
    """Nothing is tried where the check could not hold even without the change."""

    async def scenario(_guest: Guest) -> None:
        async with running(tmp_path) as node:
            with pytest.raises(SegmentsTargetSilentError, match="even before"):
                await node.apply(interface(1), targets=("10.20.0.77:80",))
            assert table() == ""

    _with_guest(scenario)


def test_a_refused_connection_counts_as_an_answer(tmp_path: Path) -> None:
    """A host that says no is reachable."""

    async def scenario(guest: Guest) -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE), targets=(f"{guest.address}:80",))

    _with_guest(scenario)


def test_the_wanted_set_is_put_back_at_a_start(tmp_path: Path) -> None:
    """After the table was removed while no service ran, the next one restores it."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
        before = table()
        nft("delete", "table", "bridge", "novacron-segments")
        async with running(tmp_path) as node:
            assert table() == before
            assert node.events() == ["segments:restored"]
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_a_restart_does_not_touch_a_set_that_is_in_force(tmp_path: Path) -> None:
    """Counts and flows live on, because nothing is written."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            await node.service.check()  # the fingerprint is known from here on
        before = nft("-a", "list", "table", "bridge", "novacron-segments")
        async with running(tmp_path) as node:
            assert nft("-a", "list", "table", "bridge", "novacron-segments") == before
            assert node.events() == []

    in_netns(scenario)


@pytest.mark.parametrize(
    "damage",
    [
        ("delete", "table", "bridge", "novacron-segments"),
        ("flush", "chain", "bridge", "novacron-segments", "checked"),
        ("add", "element", "bridge", "novacron-segments", "dhcp", "{ tap1 }"),
        ("insert", "rule", "bridge", "novacron-segments", "forward", "accept"),
    ],
)
def test_drift_degrades_and_apply_without_a_document_mends_it(
    tmp_path: Path, damage: tuple[str, ...]
) -> None:
    """Whatever somebody changes in the table is noticed without being asked."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            before = table()
            await node.service.check()
            nft(*damage)

            await wait_until(
                lambda: node.context.health.state is HealthState.DEGRADED, "notice of drift"
            )
            assert "segments apply" in node.context.health.reason
            assert node.events() == ["segments:applied", "segments:drifted"]
            await node.call("segments.apply", {})
            assert table() == before
            await wait_until(lambda: node.context.health.state is HealthState.HEALTHY, "recovery")

    in_netns(scenario)


def test_changes_of_other_tables_are_no_drift(tmp_path: Path) -> None:
    """Somebody else's tables may come and go."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            await node.service.check()
            nft("add", "table", "bridge", "other")
            nft("delete", "table", "bridge", "other")
            assert (await node.service.check()).state is HealthState.HEALTHY
            assert node.events() == ["segments:applied"]

    in_netns(scenario)


def test_without_nft_a_node_with_segments_is_degraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names the package, and the service comes up all the same."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
        monkeypatch.setattr("services.network.segments.nft.PATH", str(tmp_path))
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.DEGRADED
            assert "install the package nftables" in node.context.health.reason
            with pytest.raises(NftMissingError):
                await node.apply(interface(1))

    in_netns(scenario)


def test_a_hanging_nft_is_killed_and_named(tmp_path: Path) -> None:
    """A run past its deadline ends in an error, and no process is left behind."""
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)

    async def scenario() -> None:
        with pytest.raises(NftTimeoutError, match="killed"):
            await Nft(program=str(program), deadline_s=0.2).read()

    in_netns(scenario)


@pytest.mark.parametrize("file", ["segments.json", "segments.journal"])
def test_a_damaged_file_is_named_and_nothing_is_touched(tmp_path: Path, file: str) -> None:
    """What is in force stays, the component is degraded, and the file is still there."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
        before = table()
        (tmp_path / "network" / file).write_text('{"format": 1, "rev')
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.DEGRADED
            assert file in node.context.health.reason
            assert table() == before
            with pytest.raises(SegmentsStateError):
                await node.call("segments.show", {})
        assert (tmp_path / "network" / file).read_text() == '{"format": 1, "rev'

    in_netns(scenario)


@pytest.mark.parametrize("kind", ["journal", "json"])
def test_a_file_that_can_not_be_read_degrades_and_changes_nothing(
    tmp_path: Path, kind: str
) -> None:
    """Whatever is in the way, here a directory, is named; the component comes up."""
    (tmp_path / "network" / f"segments.{kind}").mkdir(parents=True)

    async def scenario() -> None:
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.DEGRADED
            assert f"can't read {tmp_path}/network/segments.{kind}" in node.context.health.reason
            with pytest.raises(SegmentsStateError):
                await node.apply(interface(1, RULE))
            assert table() == ""

    in_netns(scenario)


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

    _with_guest(scenario)


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

    _with_guest(scenario)


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

    _with_guest(scenario)


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

    _with_guest(scenario)


def _counted(node: Running) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in node.context.samples:
        if sample.name == "novacron_network_segment_dropped_packets_total":
            assert sample.labels["interface"] == "tap1"
            reason = sample.labels["reason"]
            found[reason] = found.get(reason, 0) + sample.value
    return found
