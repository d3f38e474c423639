"""The VM service against libvirt's own test driver, which lives in this process."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from protocol.messages.health import HealthState
from services.vm.libvirt_adapter import start_event_loop
from services.vm.model import DomainState
from tests.system.vm_running import running, wait_until

pytestmark = pytest.mark.libvirt

URI = "test:///default"
ROOT = Path(__file__).parents[2]
DOMAIN = """
<domain type='test'>
  <name>{}</name>
  <memory>2048</memory>
  <vcpu>3</vcpu>
  <os><type>hvm</type></os>
</domain>
"""


@pytest.fixture
def driver() -> Iterator[Any]:
    """A connection that may change domains; they are the same for the whole process."""
    start_event_loop()
    connection = libvirt.open(URI)
    yield connection
    connection.close()


def test_domains_are_listed_with_their_properties(driver: Any) -> None:
    """A defined domain appears with name, state, processors, memory and autostart."""

    async def scenario() -> None:
        domain = driver.defineXML(DOMAIN.format("listed"))
        domain.setAutostart(1)
        async with running(URI) as node:
            record = await node.domain("listed")
            assert record.uuid == domain.UUIDString()
            assert record.state is DomainState.SHUTOFF
            assert (record.vcpus, record.memory_bytes) == (3, 2048 * 1024)
            assert record.autostart
            assert record.is_persistent
            status = await node.status()
            assert status.is_connected
            assert (status.hypervisor, status.reason) == ("TEST", "")
            assert status.domains["shutoff"] == 1
            assert status.libvirt_version.count(".") == 2
            assert node.context.health.state is HealthState.HEALTHY
            assert (await node.service.check()).state is HealthState.HEALTHY
        domain.undefine()

    asyncio.run(scenario())


def test_a_domain_s_life_is_followed_in_order(driver: Any) -> None:
    """Each thing that happens to a domain is emitted once, with how it came about."""

    async def scenario() -> None:
        async with running(URI) as node:
            domain = driver.defineXML(DOMAIN.format("followed"))
            domain.create()
            domain.suspend()
            domain.resume()
            domain.destroy()
            domain.undefine()

            await wait_until(lambda: len(node.told("followed")) == 6, "events")
            assert node.told("followed") == [
                ("vm:defined", "added"),
                ("vm:started", "booted"),
                ("vm:suspended", "paused"),
                ("vm:resumed", "unpaused"),
                ("vm:stopped", "destroyed"),
                ("vm:undefined", "removed"),
            ]
            assert "followed" not in [d.name for d in (await node.domains()).domains]

    asyncio.run(scenario())


def test_the_known_state_follows_the_events(driver: Any) -> None:
    """The counts by state, which need no request, change with what happens."""

    async def scenario() -> None:
        async with running(URI) as node:
            domain = driver.createXML(DOMAIN.format("transient"), 0)
            await wait_until(lambda: _counted(node, "running") == 2, "start")
            domain.suspend()
            await wait_until(lambda: _counted(node, "paused") == 1, "pause")
            domain.destroy()
            await wait_until(lambda: _counted(node, "paused") == 0, "end")
            assert _counted(node, "shutoff") == 0

    asyncio.run(scenario())


def _counted(node: Any, state: str) -> float:
    samples = [s for s in node.context.samples if s.labels == {"state": state}]
    return samples[-1].value if samples else 0


def test_two_services_in_turn_do_not_disturb_each_other(driver: Any) -> None:
    """After the end of one, the next still hears everything, once."""

    async def scenario() -> None:
        async with running(URI):
            pass
        async with running(URI) as node:
            domain = driver.createXML(DOMAIN.format("again"), 0)
            domain.destroy()
            await wait_until(lambda: len(node.told("again")) >= 2, "events")
            assert [name for name, _ in node.told("again")] == ["vm:started", "vm:stopped"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("qemu+unix:///system?socket=/nonexistent/libvirt-sock", "No such file or directory"),
        ("test:///nonexistent.xml", "not available"),
        ("nosuchdriver:///system", "nosuchdriver:///system is not available"),
    ],
)
def test_without_libvirt_the_component_comes_up_degraded(uri: str, reason: str) -> None:
    """Init returns at once, the reason names what is missing, and calls are still answered."""

    async def scenario() -> None:
        began_s = time.monotonic()
        async with running(uri) as node:
            assert time.monotonic() - began_s < 1.0
            assert node.context.health.state is HealthState.DEGRADED
            assert reason in node.context.health.reason
            status = await node.status()
            assert not status.is_connected
            assert status.reason == node.context.health.reason
            domains = await node.domains()
            assert domains.domains == ()
            assert domains.is_stale
            assert (await node.service.check()).state is HealthState.DEGRADED

    asyncio.run(scenario())


def test_a_socket_that_never_answers_does_not_hold_the_start(tmp_path: Path) -> None:
    """A peer that accepts and stays silent makes the component degraded after the timeout."""

    async def scenario() -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(path))
            silent.listen()  # the kernel takes connections, and nobody ever reads them
            began_s = time.monotonic()
            uri = f"qemu+unix:///system?socket={path}"
            async with running(uri, connect_timeout_s=0.2) as node:
                assert time.monotonic() - began_s < 1.0
                assert node.context.health.state is HealthState.DEGRADED
                assert "has not answered for 0.2 s" in node.context.health.reason

    asyncio.run(scenario())


WITHOUT_LIBRARY = """
import asyncio, json, sys
sys.modules["libvirt"] = None
from services.vm.service import VmService
from supervisor.testing.context import MemoryServiceContext

async def main():
    context = MemoryServiceContext(path="core/vm", settings={"libvirt_uri": "test:///default"})
    service = VmService()
    await service.init(context)
    health = context.health
    await service.terminate()
    print(json.dumps([health.state.value, health.reason]))

asyncio.run(main())
"""


def test_without_the_client_library_the_component_comes_up_degraded() -> None:
    """A host without libvirt's library still gets its node, and reads why it has no VMs."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    state, reason = json.loads(done.stdout.splitlines()[-1])
    assert state == "degraded"
    assert "client library can't be loaded" in reason
