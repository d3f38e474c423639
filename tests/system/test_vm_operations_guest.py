"""Orders to the VM service with a real QEMU guest, emulated by TCG, under a real libvirtd."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from protocol.messages.health import HealthState
from services.vm.errors import LibvirtRefusedError
from services.vm.operations.errors import OperationRefusedError
from services.vm.operations.model import OperationState
from supervisor.child.service import Request
from tests.fixtures.fix_libvirt import PrivateLibvirtd, private_libvirtd
from tests.fixtures.vm_orders import (
    OBEDIENT,
    SECTORS_WRITTEN,
    WRITING,
    boot_disk,
    disk_guest,
    order,
    raw,
    sectors_in_order,
)
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


def test_a_guest_that_obeys_is_stopped_by_its_power_button(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """It is still in its firmware and deaf when it is asked first; it hears the second time."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            await order(node, "vm.start", domain="good")
            stopped = await order(node, "vm.stop", domain="good", acpi_s=30, force_s=0)
            assert stopped.note == "good is off after its power button was pressed (ACPI)"
            await wait_until(lambda: ("vm:stopped", "shutdown") in node.told("good"), "event")

    with disk_guest(libvirtd, boot_disk(tmp_path / "good.qcow2", OBEDIENT), "good"):
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


def test_a_save_can_be_cancelled(libvirtd: PrivateLibvirtd, guest: Any, tmp_path: Path) -> None:
    """However early or late: the guest runs on, or the record says that it was saved."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            ends = set()
            for number, pause_s in enumerate((0.0, 0.02, 0.1)):
                await order(node, "vm.start", domain="web1", fresh=True)
                file = str(tmp_path / f"{number}.save")
                begun = await raw(node, "vm.save", domain="web1", file=file)
                await asyncio.sleep(pause_s)
                ended = await order(node, "vm.operation.cancel", id=begun["id"])
                record = await node.domain("web1")
                assert (ended.state, record.state.value) in {
                    (OperationState.CANCELLED, "running"),
                    (OperationState.DONE, "shutoff"),
                }, ended
                ends.add(ended.state)
            assert OperationState.CANCELLED in ends

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


def test_a_libvirtd_that_restarts_in_the_middle_of_a_stop_is_waited_for(
    libvirtd: PrivateLibvirtd, guest: Any
) -> None:
    """The guest is not forced before its time, and then it is."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            await order(node, "vm.start", domain="web1")
            begun = await raw(node, "vm.stop", domain="web1", agent_s=0, acpi_s=4)
            await asyncio.sleep(0.5)
            libvirtd.signal_daemon(signal.SIGKILL)
            await asyncio.sleep(0.3)
            assert (await order(node, "vm.operation", id=begun["id"], wait_s=0.0)).error == ""
            await asyncio.to_thread(libvirtd.start)
            end = await order(node, "vm.operation", id=begun["id"])
            assert end.note == "web1 is off after its hypervisor was told to end", end
            assert (end.ended_s or 0) - end.began_s >= 4

    asyncio.run(scenario())


def test_a_removal_that_was_interrupted_is_gone_on_with(
    libvirtd: PrivateLibvirtd, guest: Any, disk: Path, tmp_path: Path
) -> None:
    """The block job of somebody who went before the end is taken over."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="web1")
            await order(node, "vm.snapshot.create", domain="web1", snapshot="one")
            overlay = str(tmp_path / "web1.one.qcow2")
            begin = guest.blockCommit
            await asyncio.to_thread(
                begin, "vda", str(disk), overlay, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
            )
            removed = await order(node, "vm.snapshot.delete", domain="web1", snapshot="one")
            assert removed.error == "", removed
            assert files(tmp_path) == ["web1.qcow2"]

    asyncio.run(scenario())


def test_a_missing_image_is_named_and_stops_the_start(
    libvirtd: PrivateLibvirtd, guest: Any, disk: Path
) -> None:
    """The guest stays off, and starts once the image is back."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            away = await asyncio.to_thread(disk.rename, disk.with_suffix(".away"))
            failed = await order(node, "vm.start", domain="web1")
            assert (failed.state, failed.error_code) == (
                OperationState.FAILED,
                "vm.libvirt_refused",
            )
            assert str(disk) in failed.error
            assert (await node.domain("web1")).state.value == "shutoff"
            await asyncio.to_thread(away.rename, disk)
            assert (await order(node, "vm.start", domain="web1")).error == ""

    asyncio.run(scenario())


def test_a_running_guest_is_resized_and_gets_devices(
    libvirtd: PrivateLibvirtd, guest: Any, disk: Path, tmp_path: Path
) -> None:
    """Within its maximum; a disk grows and never shrinks; what does not let go is said."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="web1")
            grown = await order(
                node, "vm.resize", domain="web1", memory_bytes=56 << 20, disk="vda",
                disk_bytes=32 << 20,
            )  # fmt: skip
            assert grown.note == "web1 has 56 MiB of memory, 32 MiB on vda"
            too_much = await order(node, "vm.resize", domain="web1", memory_bytes=1 << 40)
            assert "can have from 16 to 64 MiB" in too_much.error
            smaller = await order(node, "vm.resize", domain="web1", disk="vda", disk_bytes=16 << 20)
            assert "never shrinks" in smaller.error

            more = str(tmp_path / "more.raw")
            await order(node, "image.create", path=more, size_bytes=1 << 20, format="raw")
            attached = await order(node, "vm.disk.attach", domain="web1", file=more)
            assert attached.result == {"target": "vdb"}, attached
            twice = await order(node, "vm.disk.attach", domain="web1", file=more)
            assert twice.error_code == "vm.operation_refused"
            running_one = await order(
                node, "image.copy", source=str(disk), target=str(tmp_path / "c.raw")
            )
            assert running_one.error_code == "vm.image_in_use", running_one

            kept = await order(node, "vm.detach", domain="web1", device="vdb", within_s=0.5)
            assert "has not within 0.5 s" in kept.error
            await order(node, "vm.stop", domain="web1", agent_s=0, acpi_s=0)
            gone = await order(node, "vm.detach", domain="web1", device="vdb")
            assert (gone.error, gone.changed) == ("", True)
            again = await order(node, "vm.detach", domain="web1", device="vdb")
            assert (again.error, again.changed) == ("", False)

    asyncio.run(scenario())


def test_snapshots_are_taken_and_written_back(
    libvirtd: PrivateLibvirtd, guest: Any, disk: Path, tmp_path: Path
) -> None:
    """The older overlay goes first, then the one that the guest writes to, and their files too."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="web1")
            for name, kind in (("one", "disk"), ("two", "memory")):
                taken = await order(
                    node, "vm.snapshot.create", domain="web1", snapshot=name, kind=kind
                )
                assert taken.error == "", taken
            listed = (await raw(node, "vm.snapshot.list", domain="web1"))["snapshots"]
            assert [(item["name"], item["kind"]) for item in listed] == [
                ("one", "disk"),
                ("two", "memory"),
            ]
            assert files(tmp_path) == ["web1.one.qcow2", "web1.qcow2", "web1.two.memory",
                                       "web1.two.qcow2"]  # fmt: skip
            back = await order(node, "vm.snapshot.revert", domain="web1", snapshot="one")
            assert "can't go back" in back.error
            for name in ("one", "two"):
                removed = await order(node, "vm.snapshot.delete", domain="web1", snapshot=name)
                assert removed.error == "", removed
            assert files(tmp_path) == ["web1.qcow2"]
            assert (await node.domain("web1")).state.value == "running"
            assert (await raw(node, "vm.snapshot.list", domain="web1")) == {}

    asyncio.run(scenario())


def test_no_write_is_lost_while_snapshots_come_and_go(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """A guest writes sector after sector while overlays are made and written back."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="busy")
            for number in range(4):
                await asyncio.sleep(0.3)
                name = f"s{number}"
                taken = await order(node, "vm.snapshot.create", domain="busy", snapshot=name)
                assert taken.error == "", taken
                if number:
                    older = f"s{number - 1}"
                    gone = await order(node, "vm.snapshot.delete", domain="busy", snapshot=older)
                    assert gone.error == "", gone
            last = await order(node, "vm.snapshot.delete", domain="busy", snapshot="s3")
            assert last.error == "", last
            await order(node, "vm.stop", domain="busy", agent_s=0, acpi_s=0)
            assert files(tmp_path) == ["busy.qcow2"]

    disk = boot_disk(tmp_path / "busy.qcow2", WRITING)
    with disk_guest(libvirtd, disk, "busy"):
        asyncio.run(scenario())
        in_order, in_all = sectors_in_order(disk)
        assert in_order == in_all
        assert in_all > 20, f"the guest wrote {in_all} of {SECTORS_WRITTEN} sectors"


def test_an_internal_snapshot_can_be_gone_back_to(
    libvirtd: PrivateLibvirtd, guest: Any, tmp_path: Path
) -> None:
    """Disk and memory, inside the image."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="web1")
            for verb in ("create", "revert", "delete"):
                extra = {"kind": "internal"} if verb == "create" else {}
                done = await order(
                    node, f"vm.snapshot.{verb}", domain="web1", snapshot="safe", **extra
                )
                assert done.error == "", done

    asyncio.run(scenario())


def test_a_snapshot_takes_no_file_that_is_there(
    libvirtd: PrivateLibvirtd, guest: Any, disk: Path, tmp_path: Path
) -> None:
    """The file stays, and the guest runs on its own."""

    async def scenario() -> None:
        async with running(libvirtd.uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="web1")
            path = disk.with_name("web1.one.qcow2")
            await asyncio.to_thread(path.write_bytes, b"other")
            taken = await order(node, "vm.snapshot.create", domain="web1", snapshot="one")
            assert "is there already" in taken.error
            assert (await asyncio.to_thread(path.read_bytes)) == b"other"
            assert (await node.domain("web1")).state.value == "running"

    asyncio.run(scenario())


def test_a_console_shows_what_the_guest_prints(libvirtd: PrivateLibvirtd, guest: Any) -> None:
    """Firmware prints to the serial line; what is typed is taken; it is its opener's alone."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            with pytest.raises(OperationRefusedError, match="does not run"):
                await raw(node, "vm.console.open", domain="web1")
            await order(node, "vm.start", domain="web1", paused=True)
            opened = await raw(node, "vm.console.open", domain="web1")
            with pytest.raises(LibvirtRefusedError, match="console"):
                await raw(node, "vm.console.open", domain="web1")
            await order(node, "vm.resume", domain="web1")
            printed = b""
            while b"SeaBIOS" not in printed:
                turn = await raw(node, "vm.console.read", id=opened["id"], wait_s=20.0)
                assert turn.get("data"), turn
                printed += turn["data"]
            await raw(node, "vm.console.write", id=opened["id"], data=b"hello\r")

            other = Request("operator/eve", "vm.console.read", {"id": opened["id"]}, 5.0)
            with pytest.raises(OperationRefusedError, match="no open console"):
                await node.service.calls()["vm.console.read"](other)
            await order(node, "vm.stop", domain="web1", agent_s=0, acpi_s=0)
            ended = ""
            while not ended:
                turn = await raw(node, "vm.console.read", id=opened["id"], wait_s=20.0)
                ended = turn.get("ended", "")
            with pytest.raises(OperationRefusedError, match="no open console"):
                await raw(node, "vm.console.close", id=opened["id"])

    asyncio.run(scenario())


def files(directory: Path) -> list[str]:
    """The images in a directory."""
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".vnc")


def test_what_finds_no_room_leaves_the_guest_running(tmp_path: Path) -> None:
    """A save and a snapshot with memory on a full disk fail by name and leave no file."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting needs root")

    async def scenario(uri: str) -> None:
        async with running(uri, image_dirs=[str(tmp_path)]) as node:
            await order(node, "vm.start", domain="web1")
            before = files(tmp_path)
            taken = await order(
                node, "vm.snapshot.create", domain="web1", snapshot="one", kind="memory"
            )
            saved = await order(node, "vm.save", domain="web1", file=str(tmp_path / "web1.save"))
            assert {taken.error_code, saved.error_code} == {"vm.no_space"}, (taken, saved)
            assert (await node.domain("web1")).state.value == "running"
            assert files(tmp_path) == before

    try:
        small = tmp_path / "web1.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", small, "16M"], check=True)
        with private_libvirtd() as daemon, disk_guest(daemon, small):
            asyncio.run(scenario(daemon.uri))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
