"""What machines use, from a real libvirtd with real QEMU guests that hang, die and come back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.health import HealthState
from protocol.records import from_wire
from services.vm.errors import DomainNotFoundError
from services.vm.libvirt_adapter import read_record
from services.vm.model import DomainState
from services.vm.statistics.model import StatisticsReply
from supervisor.child.service import Request
from tests.fixtures.fix_libvirt import GUEST, PrivateLibvirtd, private_libvirtd
from tests.system.vm_running import Running, running, wait_until

pytestmark = pytest.mark.libvirt

DEADLINE_S = 30.0
DISK = """
<disk type='file'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda'/></disk>
</devices>"""


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[PrivateLibvirtd]:
    """One private libvirtd for the module."""
    with private_libvirtd() as daemon:
        yield daemon


@pytest.fixture
def guests(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[list[Any]]:
    """Two guests that run, the first with a disk, and end with the test."""
    connection = libvirtd.drive()
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    with_disk = GUEST.format(name="g1").replace("</devices>", DISK.format(disk))
    yield [connection.createXML(xml, 0) for xml in (with_disk, GUEST.format(name="g2"))]
    connection.close()
    cleaner = libvirtd.drive()
    for domain in cleaner.listAllDomains(0):
        if domain.isActive():
            domain.destroy()
        if domain.name() == "kept":
            domain.undefine()
    cleaner.close()


async def figures(node: Running, domain: str = "", *, age_max_s: float = 0.0) -> StatisticsReply:
    """Ask the service."""
    body = {"domain": domain, "age_max_s": age_max_s}
    request = Request("operator", "vm.statistics", body, 10.0)
    return from_wire(StatisticsReply, await node.service.calls()["vm.statistics"](request))


async def fresh(node: Running) -> StatisticsReply:
    """Figures with rates."""
    deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
    while True:
        await asyncio.sleep(0.3)
        reply = await figures(node)
        if not reply.is_stale and all(item.cpu_percent is not None for item in reply.domains):
            return reply
        assert asyncio.get_running_loop().time() < deadline_s, reply


def qemu_of(libvirtd: PrivateLibvirtd, name: str) -> int:
    """The process id of a guest's QEMU."""
    for pid in libvirtd.pids("qemu-system-x86_64"):
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            if f"guest={name},".encode() in stream.read():
                return pid
    raise AssertionError(f"no QEMU of {name}")


def test_a_list_tells_what_single_questions_tell(
    libvirtd: PrivateLibvirtd, guests: list[Any]
) -> None:
    """Asked for all at once, and for each alone: state, reason, memory, autostart, persistence."""

    async def scenario() -> None:
        connection = libvirtd.drive()
        kept = connection.defineXML(GUEST.format(name="kept"))
        kept.setAutostart(1)
        guests[0].suspend()
        async with running(libvirtd.uri) as node:
            expected = sorted(
                (read_record(domain) for domain in connection.listAllDomains(0)),
                key=lambda record: record.name,
            )

            first = await node.domains()
            kept.setAutostart(0)  # no event tells of it
            second = await node.domains()

        assert list(first.domains) == expected
        assert [(d.name, d.is_persistent, d.autostart) for d in first.domains] == [
            ("g1", False, False),
            ("g2", False, False),
            ("kept", True, True),
        ]
        assert not second.domains[2].autostart
        connection.close()

    asyncio.run(scenario())


def test_figures_of_real_guests(libvirtd: PrivateLibvirtd, guests: list[Any]) -> None:
    """Memory is told at once, rates from the second reading on; what is not there is not made."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            first = await figures(node)
            later = await fresh(node)
            one = await figures(node, "g2", age_max_s=60.0)
            disks = await figures(node, "g1", age_max_s=60.0)
            with pytest.raises(DomainNotFoundError, match="nobody"):
                await figures(node, "nobody")

        assert [item.name for item in first.domains] == ["g1", "g2"]
        assert first.domains[0].state is DomainState.RUNNING
        assert first.domains[0].memory_assigned_bytes == 32 << 20
        assert (first.domains[0].memory_resident_bytes or 0) > 1 << 20
        assert first.domains[0].cpu_percent is None
        assert sum(item.cpu_percent or 0.0 for item in later.domains) > 0.0
        assert later.interval_s is not None
        assert later.domains[0].read_bytes_s is not None
        assert later.domains[0].received_bytes_s is None
        assert [(disk.target, disk.capacity_bytes) for disk in disks.domains[0].disks] == [
            ("vda", 1 << 20)
        ]
        assert [item.name for item in one.domains] == ["g2"]
        names = {sample.name for sample in node.context.samples}
        assert {"novacron_vm_cpu_seconds_total", "novacron_vm_memory_assigned_bytes"} <= names

    asyncio.run(scenario())


def test_a_hypervisor_that_hangs_holds_up_no_other(
    libvirtd: PrivateLibvirtd, guests: list[Any]
) -> None:
    """Its machine keeps its last figures and is stale, the other's are fresh; events go on."""

    async def scenario() -> None:
        async with running(libvirtd.uri, call_timeout_s=1.0) as node:
            before = await fresh(node)
            pid = qemu_of(libvirtd, "g1")
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(0.3)
                hung = await figures(node)
                await asyncio.sleep(0.3)
                around = await figures(node)
                await asyncio.to_thread(guests[1].suspend)
                await wait_until(
                    lambda: ("vm:suspended", "paused") in node.told("g2"), "event", DEADLINE_S
                )

                assert hung.is_stale
                assert "has not told within 1 s" in hung.reason
                assert [item.name for item in hung.domains] == ["g1", "g2"]
                assert not around.is_stale
                stale, other = around.domains
                assert (stale.is_stale, other.is_stale) == (True, False)
                assert stale.memory_assigned_bytes == before.domains[0].memory_assigned_bytes
            finally:
                os.kill(pid, signal.SIGCONT)
            await wait_until(
                lambda: node.context.health.state is HealthState.HEALTHY, "health", DEADLINE_S
            )
            await fresh(node)

    asyncio.run(scenario())


def test_a_libvirtd_that_hangs_leaves_the_last_figures(
    libvirtd: PrivateLibvirtd, guests: list[Any]
) -> None:
    """Stale, with the reason, and never more than two questions under way."""

    async def scenario() -> None:
        async with running(libvirtd.uri, call_timeout_s=0.4) as node:
            await fresh(node)
            libvirtd.signal_daemon(signal.SIGSTOP)
            await asyncio.sleep(0.3)  # the last figures are too old by now
            try:
                replies = [await figures(node) for _ in range(5)]
                began_s = asyncio.get_running_loop().time()
                replies.append(await figures(node))

                assert asyncio.get_running_loop().time() - began_s < 0.4
                assert all(reply.is_stale and len(reply.domains) == 2 for reply in replies)
                await wait_until(
                    lambda: node.context.health.state is HealthState.DEGRADED, "alarm", DEADLINE_S
                )
            finally:
                libvirtd.signal_daemon(signal.SIGCONT)
            await fresh(node)
            await wait_until(
                lambda: node.context.health.state is HealthState.HEALTHY, "health", DEADLINE_S
            )

    asyncio.run(scenario())


def test_a_libvirtd_that_is_gone_and_back_is_asked_again(
    libvirtd: PrivateLibvirtd, guests: list[Any]
) -> None:
    """Killed: the last figures, stale. Back: fresh ones, over a connection that it makes anew."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            await fresh(node)
            await asyncio.to_thread(libvirtd.signal_daemon, signal.SIGKILL)
            await asyncio.sleep(0.3)  # the last figures are too old by now

            gone = await figures(node)
            await asyncio.to_thread(libvirtd.start)
            back = await fresh(node)

        assert gone.is_stale
        assert [item.name for item in gone.domains] == ["g1", "g2"]
        assert [item.name for item in back.domains] == ["g1", "g2"]

    asyncio.run(scenario())
