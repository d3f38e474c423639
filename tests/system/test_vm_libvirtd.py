"""The VM service against a real libvirtd with a real QEMU guest, emulated by TCG."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from protocol.messages.health import HealthState
from services.vm.model import DomainState
from tests.fixtures.fix_libvirt import GUEST, PrivateLibvirtd, private_libvirtd
from tests.system.vm_running import Running, running, wait_until

pytestmark = pytest.mark.libvirt

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[PrivateLibvirtd]:
    """One private libvirtd for the module."""
    with private_libvirtd() as daemon:
        yield daemon


@pytest.fixture
def guest(libvirtd: PrivateLibvirtd) -> Iterator[Any]:
    """A defined guest that does not run, on a connection of the test's own."""
    connection = libvirtd.drive()
    domain = connection.defineXML(GUEST.format(name="g1"))
    yield domain
    connection.close()
    cleaner = libvirtd.drive()
    domain = cleaner.lookupByName("g1")
    if domain.isActive():
        domain.destroy()
    domain.undefine()
    cleaner.close()


def is_degraded(node: Running) -> bool:
    """The component's published health is degraded."""
    return node.context.health.state is HealthState.DEGRADED


def is_healthy(node: Running) -> bool:
    """The component's published health is healthy."""
    return node.context.health.state is HealthState.HEALTHY


def test_a_real_guest_s_life_is_followed(libvirtd: PrivateLibvirtd, guest: Any) -> None:
    """Start, pause, resume and destruction of a QEMU process arrive as events, in order."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            assert (await node.status()).hypervisor == "QEMU"
            for act in (guest.create, guest.suspend, guest.resume):
                await asyncio.to_thread(act)
            record = await node.domain("g1")
            assert (record.state, record.reason) == (DomainState.RUNNING, "unpaused")
            assert (record.vcpus, record.memory_bytes) == (1, 32 << 20)
            await asyncio.to_thread(guest.destroy)

            await wait_until(lambda: ("vm:stopped", "destroyed") in node.told("g1"), "stop")
            names = [name for name, _ in node.told("g1")]
            expected = ["vm:started", "vm:suspended", "vm:resumed", "vm:stopped"]
            assert [name for name in names if name in expected][-3:] == expected[-3:]
            assert "vm:started" in names

    asyncio.run(scenario())


def test_a_guest_whose_qemu_dies_is_called_crashed(libvirtd: PrivateLibvirtd, guest: Any) -> None:
    """Killing the hypervisor process is a crash and not an ordinary stop."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            await asyncio.to_thread(guest.create)
            (qemu,) = libvirtd.pids("qemu-system-x86_64")

            os.kill(qemu, signal.SIGKILL)

            await wait_until(
                lambda: any(name == "vm:crashed" for name, _ in node.told("g1")), "crash"
            )
            assert (await node.domain("g1")).state is DomainState.SHUTOFF

    asyncio.run(scenario())


def test_libvirtd_killed_and_back(libvirtd: PrivateLibvirtd, guest: Any) -> None:
    """Degraded with the reason within two seconds, the guest lives, and all is found again."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            await asyncio.to_thread(guest.create)
            await wait_until(lambda: ("vm:started", "booted") in node.told("g1"), "start")
            (qemu,) = libvirtd.pids("qemu-system-x86_64")

            await asyncio.to_thread(libvirtd.signal_daemon, signal.SIGKILL)

            await wait_until(lambda: is_degraded(node), "degradation", 2.0)
            assert "libvirt is lost" in node.context.health.reason
            assert libvirtd.pids("qemu-system-x86_64") == [qemu]
            stale = await node.domains()
            assert stale.is_stale
            assert [(d.name, d.state) for d in stale.domains] == [("g1", DomainState.RUNNING)]

            await asyncio.to_thread(libvirtd.start)

            await wait_until(lambda: is_healthy(node), "reconnection", 10.0)
            status = await node.status()
            assert status.connections == 2
            assert (await node.domain("g1")).state is DomainState.RUNNING
            assert libvirtd.pids("qemu-system-x86_64") == [qemu]

            # The callbacks are those of the new connection.
            again = await asyncio.to_thread(libvirtd.drive)
            await asyncio.to_thread(again.lookupByName("g1").suspend)
            await wait_until(lambda: ("vm:suspended", "paused") in node.told("g1"), "event")
            again.close()

    asyncio.run(scenario())


def test_what_happened_while_libvirtd_was_away_is_found(
    libvirtd: PrivateLibvirtd, guest: Any
) -> None:
    """A guest that died in the gap is reported after the reconnection."""

    async def scenario() -> None:
        async with running(libvirtd.uri) as node:
            await asyncio.to_thread(guest.create)
            await wait_until(lambda: ("vm:started", "booted") in node.told("g1"), "start")
            (qemu,) = libvirtd.pids("qemu-system-x86_64")
            await asyncio.to_thread(libvirtd.signal_daemon, signal.SIGKILL)
            await wait_until(lambda: is_degraded(node), "degradation", 2.0)

            os.kill(qemu, signal.SIGKILL)
            await asyncio.to_thread(libvirtd.start)

            await wait_until(
                lambda: node.told("g1")[-1][0] in ("vm:stopped", "vm:crashed"), "end", 20.0
            )

    asyncio.run(scenario())


def test_a_hung_libvirtd_degrades_and_never_blocks(libvirtd: PrivateLibvirtd, guest: Any) -> None:
    """A stopped daemon costs a request its deadline and the loop nothing; awake, all is well."""

    async def scenario() -> None:
        async with running(libvirtd.uri, call_timeout_s=0.5) as node:
            libvirtd.signal_daemon(signal.SIGSTOP)
            began_s = time.monotonic()

            first, second = await asyncio.gather(node.domains(), _turns_of_the_loop(0.5))

            assert first.is_stale
            assert second > 20
            await wait_until(lambda: is_degraded(node), "degradation", 1.0)
            assert "did not answer for the domains within 0.5 s" in node.context.health.reason
            assert (await node.domains()).is_stale
            assert time.monotonic() - began_s < 3.0

            libvirtd.signal_daemon(signal.SIGCONT)

            await wait_until(lambda: is_healthy(node), "recovery", 5.0)
            assert not (await node.domains()).is_stale

    asyncio.run(scenario())


async def _turns_of_the_loop(duration_s: float) -> int:
    turns, end_s = 0, time.monotonic() + duration_s
    while time.monotonic() < end_s:
        await asyncio.sleep(0.01)
        turns += 1
    return turns


def test_a_silent_libvirtd_is_found_by_keepalive(libvirtd: PrivateLibvirtd) -> None:
    """With nobody asking anything, a stopped daemon is noticed, and reconnected to once awake."""

    async def scenario() -> None:
        keepalive = {"keepalive_interval_s": 1, "keepalive_count": 1}
        async with running(libvirtd.uri, connect_timeout_s=0.3, **keepalive) as node:
            libvirtd.signal_daemon(signal.SIGSTOP)

            await wait_until(lambda: is_degraded(node), "degradation", 6.0)
            # Opening to a stopped daemon hangs as well; the component says so and goes on.
            await wait_until(lambda: "has not answered" in node.context.health.reason, "reason")

            libvirtd.signal_daemon(signal.SIGCONT)

            await wait_until(lambda: is_healthy(node), "recovery", 8.0)

    asyncio.run(scenario())


IN_A_PROCESS = """
import asyncio, sys
from services.vm.service import VmService
from supervisor.testing.context import MemoryServiceContext

async def main():
    context = MemoryServiceContext(path="core/vm", settings={"libvirt_uri": sys.argv[1]})
    service = VmService()
    await service.init(context)
    print(context.health.state.value, flush=True)
    await asyncio.sleep(30)

asyncio.run(main())
"""


def test_killing_the_service_leaves_guests_alone(libvirtd: PrivateLibvirtd, guest: Any) -> None:
    """SIGKILL of the process that watches libvirt neither ends nor pauses a guest."""
    guest.create()
    (qemu,) = libvirtd.pids("qemu-system-x86_64")
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS, libvirtd.uri],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert next(line for line in lines if line in ("healthy\n", "degraded\n")) == "healthy\n"

        process.kill()
        process.wait(5.0)

    assert libvirtd.pids("qemu-system-x86_64") == [qemu]
    assert guest.state()[0] == libvirt.VIR_DOMAIN_RUNNING
