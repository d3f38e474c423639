"""Networks when a change fails or is cut off: the host is as it was before."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from services.network.errors import MissingCapabilityError
from services.network.networks import apply as applying
from services.network.networks.errors import (
    NetworksBusyError,
    NetworksCheckFailedError,
    NetworksRestoreFailedError,
    NetworksStateError,
    NetworksStepFailedError,
    NetworksTargetSilentError,
)
from services.network.networks.kernel import Kernel
from services.network.networks.observed import Marks, Observed
from services.network.networks.steps import Step
from tests.fixtures.fix_guests import Guest
from tests.fixtures.fix_netns import ip, run_in_netns
from tests.system.network_running import in_netns
from tests.system.networks_running import (
    GUESTS,
    NOTHING,
    addresses,
    links,
    picture,
    running,
    veth,
    wire,
)

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]
WIDER = """
networks:
- name: guests
  bridge: br-guests
  addresses: [10.30.0.1/24]
  ports: [up1]
- name: more
  bridge: br-more
  addresses: [10.20.0.254/24]
"""


def journal_of(state: Path) -> Path:
    """The file that is there while a change is under way."""
    return state / "network" / "networks.journal"


def test_an_interface_that_vanishes_between_plan_and_apply_takes_the_change_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses the step, it is named, and what was done by then is undone."""

    async def scenario() -> None:
        veth("up0", "up1")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            before = picture()
            real = applying.read_host

            async def read_and_lose(marks: Marks, **values: frozenset[str] | None) -> Observed:
                found = await real(marks, **values)
                if "up1" in found.by_name:
                    ip("link", "del", "up1")
                return found

            monkeypatch.setattr(applying, "read_host", read_and_lose)
            with pytest.raises(NetworksStepFailedError, match=r"up1: port of br-gu.*ENODEV"):
                await node.apply(WIDER)

            before = {name: facts for name, facts in before.items() if not name.startswith("up1")}
            assert picture() == before
            assert not journal_of(tmp_path).exists()
            assert node.events() == ["networks:applied", "networks:refused"]
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_a_link_of_that_name_that_appears_meanwhile_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the change nor by taking it back."""

    async def scenario() -> None:
        veth("up0")
        real = applying.read_host
        made: list[bool] = []

        async def read_and_make(marks: Marks, **values: frozenset[str] | None) -> Observed:
            found = await real(marks, **values)
            if not made:
                ip("link", "add", "br-guests", "type", "bridge")
                made.append(True)
            return found

        async with running(tmp_path) as node:
            monkeypatch.setattr(applying, "read_host", read_and_make)
            with pytest.raises(NetworksStepFailedError, match=r"bridge br-guests: .*EEXIST"):
                await node.apply(GUESTS)

            found = links()["br-guests"]
            assert "ifalias" not in found
            assert "UP" not in found["flags"]
            assert "master" not in links()["up0"]

    in_netns(scenario)


@pytest.mark.parametrize("write", [1, 3, 4])
def test_a_full_disk_takes_the_change_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """What can't be noted ahead is not tried, and what can't be confirmed is not kept."""

    async def scenario() -> None:
        veth("up0", "up1")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            before = picture()
            real = os.fsync
            calls = []

            def full(descriptor: int) -> None:
                calls.append(descriptor)
                if len(calls) == write:  # journal, its directory, then the confirmation and its
                    raise OSError(28, "No space left on device")
                real(descriptor)

            monkeypatch.setattr("os.fsync", full)
            with pytest.raises(NetworksStateError, match="No space left"):
                await node.apply(WIDER)
            monkeypatch.setattr("os.fsync", real)

            now = picture()
            assert {name: facts[:4] + facts[5:] for name, facts in now.items()} == {
                name: facts[:4] + facts[5:] for name, facts in before.items()
            }
            assert (await node.show())["status"]["revision"] == 1
            assert not journal_of(tmp_path).exists()
        async with running(tmp_path) as node:
            assert picture() == now
            assert node.events() == []

    in_netns(scenario)


def with_gateway(tmp_path: Path, change: str, expected: str) -> None:
    """Apply a change to a host whose default gateway is a guest on the network's port up0."""

    def work() -> None:
        ip("link", "add", "br0", "type", "bridge")
        gateway = Guest(1, "up0")
        ip("link", "set", "up0", "nomaster")

        async def scenario() -> None:
            async with running(tmp_path) as node:
                await node.apply(GUESTS)
                ip("route", "add", "default", "via", gateway.address)
                before = picture()
                with pytest.raises(NetworksCheckFailedError, match=expected):
                    await node.apply(change, within_s=1.0)

                assert picture() == before
                assert "10.20.0.1" in ip("route", "show", "default")
                again = await node.apply(
                    GUESTS.replace("[10.20", "[10.40.0.1/24, 10.20"), within_s=10
                )
                assert again["checked"] == [f"gateway {gateway.address}"]
                gateway.close()

        asyncio.run(scenario())

    run_in_netns(work)


def test_a_change_that_loses_the_default_gateway_is_taken_back(tmp_path: Path) -> None:
    """It answered before, on a port that the document names no more; a harmless change stays."""
    with_gateway(
        tmp_path,
        GUESTS.replace("[up0]", "[]"),
        r"the default gateway 10.20.0.1 answered before the change and did not within 1 s",
    )


def test_a_gateway_that_was_silent_before_proves_nothing(tmp_path: Path) -> None:
    """The change is kept."""

    async def scenario() -> None:
        veth("up0", "under0")
        ip("addr", "add", "192.0.2.10/24", "dev", "under0")
        ip("link", "set", "under0", "up")
        ip("link", "set", "under0p", "up")
        ip("route", "add", "default", "via", "192.0.2.1")
        async with running(tmp_path) as node:
            applied = await node.apply(GUESTS)
            assert "checked" not in applied
            assert addresses("br-guests") == ["10.20.0.254/24"]

    in_netns(scenario)


def test_targets_take_the_place_of_gateways(tmp_path: Path) -> None:
    """One that is silent before is told at once; one that is lost takes the change back."""

    def work() -> None:
        ip("link", "add", "br0", "type", "bridge")
        guest = Guest(1, "up0")
        ip("link", "set", "up0", "nomaster")
        guest.listen(80)

        async def scenario() -> None:
            async with running(tmp_path) as node:
                with pytest.raises(NetworksTargetSilentError, match=r"even before it 10.20.0.1:80"):
                    await node.apply(GUESTS, "10.20.0.1:80")
                assert "br-guests" not in links()
                await node.apply(GUESTS)
                before = picture()
                with pytest.raises(NetworksCheckFailedError, match=r"10.20.0.1:80 did not answer"):
                    await node.apply(GUESTS.replace("[up0]", "[]"), "10.20.0.1:80")
                assert picture() == before
                assert node.events() == [
                    "networks:refused",
                    "networks:applied",
                    "networks:refused",
                ]

        asyncio.run(scenario())
        guest.close()

    run_in_netns(work)


def test_two_changes_at_a_time_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is told to come back; a caller that goes away takes its change along."""

    async def scenario() -> None:
        veth("up0")
        begun = asyncio.Event()

        async def hang(*_arguments: object) -> tuple[str, ...]:
            begun.set()
            await asyncio.sleep(60)
            return ()

        async with running(tmp_path) as node:
            await node.apply(NOTHING)  # opens the part
            before = picture()
            part = node.service._networks
            monkeypatch.setattr(part, "_after", hang)
            first = asyncio.create_task(node.apply(GUESTS))
            await begun.wait()
            assert "br-guests" in links()
            with pytest.raises(NetworksBusyError):
                await node.apply(NOTHING)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first

            assert picture() == before
            assert not journal_of(tmp_path).exists()

    in_netns(scenario)


def test_what_can_not_be_restored_is_said_and_mended_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both faults are named, the journal stays, the component is degraded until it is done."""

    async def scenario() -> None:
        veth("up0", "up1")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            before = picture()
            real = Kernel.carry_out
            calls: list[int] = []

            async def refuse(self: Kernel, steps: Sequence[Step]) -> None:
                calls.append(len(steps))
                if len(calls) == 1:
                    await real(self, steps[:6])
                raise NetworksStepFailedError("the kernel is against it")

            monkeypatch.setattr(Kernel, "carry_out", refuse)
            with pytest.raises(NetworksRestoreFailedError, match="so did restoring"):
                await node.apply(WIDER)
            assert "br-more" in links()
            assert journal_of(tmp_path).exists()
            assert node.context.health.state is HealthState.DEGRADED
        monkeypatch.undo()
        async with running(tmp_path) as node:
            assert picture() == before
            assert node.events() == ["networks:restored"]
            assert node.context.health.state is HealthState.HEALTHY
            assert not journal_of(tmp_path).exists()

    in_netns(scenario)


def test_a_damaged_file_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    """The message says which, and what to do about it."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
        before = picture()
        journal_of(tmp_path).write_text('{"format": 1, "revision": 2, "undo": [{"kind": "burn"}]}')
        async with running(tmp_path) as node:
            with pytest.raises(NetworksStateError, match=r"networks.journal is not understood"):
                await node.apply(NOTHING)
            assert picture() == before
            assert node.context.health.state is HealthState.DEGRADED
            assert "move it away" in node.context.health.reason

    in_netns(scenario)


_DOOMED = """
import asyncio, json, sys
from pathlib import Path
from protocol.records import from_wire
from services.network.networks.apply import Networks
from services.network.networks.kernel import Kernel
from services.network.networks.model import NetworksDocument
from services.network.networks.observed import Marks
from services.network.networks.store import NetworkStore

class Dying(Kernel):
    async def carry_out(self, steps):
        count = int(sys.argv[3])
        await super().carry_out(steps if count < 0 else steps[:count])
        if 0 <= count < len(steps):
            await hang()

async def hang():
    print("changed", flush=True)
    await asyncio.sleep(60)
    return ()

async def main():
    networks = Networks(Dying(), NetworkStore(Path(sys.argv[1]) / "network"), Marks("n1"))
    await networks.open()
    await networks.apply(from_wire(NetworksDocument, json.loads(sys.argv[2])), hang)

asyncio.run(main())
"""


@pytest.mark.process
@pytest.mark.parametrize("steps", [0, 1, 3, 6, 9, -1])
def test_a_kill_in_the_middle_is_taken_back_at_the_next_start(tmp_path: Path, steps: int) -> None:
    """Kill -9 after any step leaves a journal, by which the next service restores what was."""

    async def scenario() -> None:
        veth("up0", "up1")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
        before = picture()
        process = subprocess.Popen(  # noqa: ASYNC220 - it is to die, and nothing else runs
            [sys.executable, "-c", _DOOMED, str(tmp_path), json.dumps(wire(WIDER)), str(steps)],
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
        assert (picture() == before) is (steps == 0)

        async with running(tmp_path) as node:
            assert picture() == before
            assert node.events() == ["networks:restored"]
            assert (await node.show())["status"]["restored"].startswith(
                "change 2 was not confirmed"
            )
            assert node.context.health.state is HealthState.HEALTHY
            assert not journal_of(tmp_path).exists()

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
    body = {"document": json.loads(sys.argv[2])}
    try:
        await service.calls()["networks.apply"](Request("operator", "", body, 5.0))
        code = "applied"
    except Exception as exc:
        code = exc.code
    await service.terminate()
    print(json.dumps([context.health.state.value, code]))

asyncio.run(main())
"""


@pytest.mark.process
def test_without_the_capability_nothing_is_changed(tmp_path: Path) -> None:
    """The error says which one the process lacks."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    done = subprocess.run(
        ["unshare", "--net", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin",
         sys.executable, "-W", "error", "-c", _WITHOUT_CAPABILITY, str(tmp_path),
         json.dumps(wire(GUESTS.replace("[up0]", "[]")))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    state, code = json.loads(done.stdout.splitlines()[-1])
    assert (state, code) == ("healthy", MissingCapabilityError.code)
