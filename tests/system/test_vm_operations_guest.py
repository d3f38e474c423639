"""Orders to the VM service with a real QEMU guest, emulated by TCG, under a real libvirtd."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.health import HealthState
from services.vm.operations.model import OperationState
from tests.fixtures.fix_libvirt import PrivateLibvirtd, private_libvirtd
from tests.fixtures.vm_orders import disk_guest, order, raw
from tests.system.vm_running import running, wait_until

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[PrivateLibvirtd]:
    """One private libvirtd for the module."""
    with private_libvirtd() as daemon:
        yield daemon


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An empty qcow2 image."""
    path = tmp_path / "web1.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"], check=True)
    return path


@pytest.fixture
def guest(libvirtd: PrivateLibvirtd, disk: Path) -> Iterator[Any]:
    """A defined guest with that disk."""
    with disk_guest(libvirtd, disk) as domain:
        yield domain


def test_a_guest_that_ignores_acpi_is_stopped_by_force(
    libvirtd: PrivateLibvirtd, guest: Any
) -> None:
    """No agent: ACPI at once, in vain; then force, and the record tells by which step it ended."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            assert (await order(node, "vm.start", domain=guest.UUIDString())).error == ""
            kind = await order(node, "vm.stop", domain="web1", agent_s=5, acpi_s=0.5, force_s=0)
            assert kind.state is OperationState.FAILED
            assert "did not stop within 0.5 s" in kind.error
            assert (await node.domain("web1")).state.value == "running"

            forced = await order(node, "vm.stop", domain="web1", acpi_s=0.5)
            assert forced.note == "web1 is off after its hypervisor was told to end"
            assert (await node.domain("web1")).state.value == "shutoff"

    asyncio.run(scenario())


def test_a_guest_is_saved_restored_and_photographed(
    libvirtd: PrivateLibvirtd, guest: Any, tmp_path: Path
) -> None:
    """Managed save and save to a file keep the guest; a screenshot is a PNG."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="web1")
            shot = await raw(node, "vm.screenshot", domain="web1")
            assert shot["data"].startswith(b"\x89PNG")
            assert (await order(node, "vm.save", domain="web1")).note == "web1 is saved"
            assert not (await order(node, "vm.save", domain="web1")).changed
            await order(node, "vm.start", domain="web1")
            record = await node.domain("web1")
            assert (record.state.value, record.reason) == ("running", "restored")

            file = str(tmp_path / "web1.save")
            assert (await order(node, "vm.save", domain="web1", file=file)).error == ""
            assert (await order(node, "vm.restore", file=file, paused=True)).error == ""
            assert (await node.domain("web1")).state.value == "paused"

    asyncio.run(scenario())


def test_a_mute_libvirt_makes_an_order_unknown_and_the_component_degraded(
    libvirtd: PrivateLibvirtd, guest: Any
) -> None:
    """The deadline ends the wait, the loop goes on, further orders for the guest are not tried."""

    async def scenario() -> None:
        async with running(libvirtd.uri, call_timeout_s=1.0) as node:
            await order(node, "vm.autostart", domain="web1", enabled=False)
            libvirtd.signal_daemon(signal.SIGSTOP)
            try:
                with pytest.raises(Exception, match="has not answered to 'find web1' within 1 s"):
                    await order(node, "vm.start", domain="web1")
                assert node.context.health.state is HealthState.DEGRADED
                with pytest.raises(Exception, match="was not tried"):
                    await order(node, "vm.start", domain="web1")
            finally:
                libvirtd.signal_daemon(signal.SIGCONT)
            await wait_until(lambda: node.context.health.state is HealthState.HEALTHY, "recovery")
            assert (await order(node, "vm.start", domain="web1")).error == ""

    asyncio.run(scenario())


def test_a_libvirtd_killed_in_the_middle_leaves_an_unknown_operation(
    libvirtd: PrivateLibvirtd, guest: Any
) -> None:
    """What was asked may have happened: it is called unknown, and the next order works."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            await order(node, "vm.start", domain="web1")
            begun = await raw(node, "vm.stop", domain="web1", agent_s=0, acpi_s=20)
            await wait_until(lambda: bool(begun), "begin")
            await asyncio.sleep(0.5)
            libvirtd.signal_daemon(signal.SIGKILL)
            end = await order(node, "vm.operation", id=begun["id"])
            assert end.state in (OperationState.UNKNOWN, OperationState.FAILED), end
            assert end.error
            await asyncio.to_thread(libvirtd.start)
            again = await order(node, "vm.stop", domain="web1", agent_s=0, acpi_s=0)
            assert again.state is OperationState.DONE

    asyncio.run(scenario())
