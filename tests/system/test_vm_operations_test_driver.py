"""Orders to the VM service on libvirt's test driver."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.vm.errors import DomainNotFoundError
from services.vm.operations.errors import PlaceRefusedError
from services.vm.operations.model import OperationState
from tests.fixtures.vm_orders import order
from tests.system.vm_running import running

pytestmark = pytest.mark.libvirt
URI = "test:///default"


def test_a_guest_is_led_through_its_life() -> None:
    """Stop, start, pause, resume, reboot work, and doing one twice is success and says so."""

    async def scenario() -> None:
        async with running(URI) as node:
            told = []
            for verb in ("stop", "stop", "start", "start", "pause", "pause", "resume", "resume"):
                done = await order(node, f"vm.{verb}", domain="test")
                told.append((done.state, done.changed))
            assert told == [(OperationState.DONE, True), (OperationState.DONE, False)] * 4
            assert (await order(node, "vm.reboot", domain="test")).error == ""
            ends = [f for name, f in node.context.events if name == "vm:operation"]
            assert [end["state"] for end in ends] == ["done"] * 9
            assert ends[0]["vm"] == "test"

    asyncio.run(scenario())


def test_two_starts_at_once_start_once() -> None:
    """Both end well, and one of them found it running."""

    async def scenario() -> None:
        async with running(URI) as node:
            await order(node, "vm.stop", domain="test")
            ends = await asyncio.gather(*[order(node, "vm.start", domain="test") for _ in "ab"])
            assert [end.state for end in ends] == [OperationState.DONE] * 2
            assert sorted(end.changed for end in ends) == [False, True]

    asyncio.run(scenario())


def test_a_guest_that_is_not_there_is_named() -> None:
    """An order for an unknown guest fails at once, with its name."""

    async def scenario() -> None:
        async with running(URI) as node:
            with pytest.raises(DomainNotFoundError, match="nobody"):
                await order(node, "vm.start", domain="nobody")

    asyncio.run(scenario())


def test_what_does_not_run_can_t_be_paused() -> None:
    """The refusal says what to do."""

    async def scenario() -> None:
        async with running(URI) as node:
            await order(node, "vm.stop", domain="test")
            done = await order(node, "vm.pause", domain="test")
            assert done.state is OperationState.FAILED
            assert done.error == "test does not run; start it first"
            await order(node, "vm.start", domain="test")

    asyncio.run(scenario())


def test_a_guest_is_saved_to_a_file_and_restored(tmp_path: Path) -> None:
    """The file is never overwritten, and a path outside the image directories is refused."""

    async def scenario() -> None:
        file = str(tmp_path / "test.save")
        async with running(URI, image_dirs=[str(tmp_path)]) as node:
            with pytest.raises(PlaceRefusedError, match="outside"):
                await order(node, "vm.save", domain="test", file="/etc/test.save")
            assert (await order(node, "vm.save", domain="test", file=file)).error == ""
            assert (await node.domain("test")).state.value == "shutoff"
            assert (await order(node, "vm.restore", file=file)).error == ""
            assert (await node.domain("test")).state.value == "running"
            again = await order(node, "vm.restore", file=file)
            assert "runs: its disks have gone on" in again.error
            second = await order(node, "vm.save", domain="test", file=file)
            assert "nothing is overwritten" in second.error

    asyncio.run(scenario())


def test_autostart_is_set_once() -> None:
    """On, on again, off: what is so already is said."""

    async def scenario() -> None:
        async with running(URI) as node:
            changes = []
            for enabled in (True, True, False):
                done = await order(node, "vm.autostart", domain="test", enabled=enabled)
                changes.append(done.changed)
            assert changes == [True, False, True]

    asyncio.run(scenario())
