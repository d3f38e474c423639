"""The VM service is killed in the middle of an apply; libvirtd is away for long, or in a flood."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.health import HealthState
from protocol.records import Plain, to_wire
from services.vm.documents.devices import Memory
from services.vm.documents.model import Power, VmDocument
from services.vm.model import DomainState
from tests.fixtures.fix_libvirt import GUEST, PrivateLibvirtd, private_libvirtd
from tests.fixtures.fix_node import wait_until as wait_outside
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system import vm_documents_running
from tests.system.security_node import migrate, postgres_settings
from tests.system.vm_running import running, wait_until

pytestmark = [pytest.mark.libvirt, pytest.mark.postgres]

ROOT = Path(__file__).parents[2]
DEADLINE_S = 40.0
MACHINES = ("m1", "m2", "m3")
# Applies what its settings say, and may be killed at any moment.
APPLYING = """
import asyncio, json, sys
from services.vm.service import VmService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

async def main():
    given = json.load(sys.stdin)
    context = MemoryServiceContext(path="core/vm", settings=given["settings"])
    service = VmService()
    await service.init(context)
    request = Request("operator/anna", "vm.apply", given["body"], 60.0)
    await service.calls()["vm.apply"](request)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[PrivateLibvirtd]:
    """One private libvirtd for the module."""
    with private_libvirtd() as daemon:
        yield daemon


@pytest.fixture
def driver(libvirtd: PrivateLibvirtd) -> Iterator[Any]:
    """A connection of the test's own; what is there afterwards is taken away."""
    connection = libvirtd.drive()
    yield connection
    connection.close()
    cleaner = libvirtd.drive()
    for domain in cleaner.listAllDomains(0):
        is_persistent = domain.isPersistent()
        if domain.isActive():
            domain.destroy()
        if is_persistent:
            domain.undefine()
    cleaner.close()


def machine(name: str) -> VmDocument:
    """A document whose machine is to run; its firmware finds nothing to boot."""
    return VmDocument(
        name=name, memory=Memory(size="32MiB"), machine="pc", power=Power.ON, guest_agent=False
    )


@pytest.mark.parametrize("moment", ["stored", "started"])
def test_an_apply_that_was_killed_is_taken_up_by_the_next(
    libvirtd: PrivateLibvirtd,
    driver: Any,
    postgres_database: PostgresDatabase,
    tmp_path: Path,
    moment: str,
) -> None:
    """Kill -9 of the service at some step: documents are kept whole, and applying again ends it."""
    settings = postgres_settings(postgres_database)
    asyncio.run(migrate(settings))
    wanted = tuple(machine(name) for name in MACHINES)
    given: dict[str, Plain] = {
        "settings": {
            "libvirt_uri": libvirtd.uri,
            "node_id": vm_documents_running.NODE,
            "state_dir": str(tmp_path / "state"),
            "postgres": to_wire(settings),
            "image_dirs": [str(tmp_path)],
        },
        "body": {"documents": to_wire(wanted)},
    }

    def has_come() -> bool:
        if moment == "started":
            return any(domain.isActive() for domain in driver.listAllDomains(0))
        return bool(_count(postgres_database))

    with subprocess.Popen(
        [sys.executable, "-c", APPLYING], cwd=ROOT, stdin=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(given))
        process.stdin.close()
        wait_outside(has_come, moment, DEADLINE_S)
        process.kill()
        process.wait(10.0)

    assert _count(postgres_database) in (0, len(MACHINES))

    async def scenario() -> None:
        async with vm_documents_running.running(
            libvirtd.uri, postgres_database, tmp_path, has_schema=True
        ) as node:
            reply = await node.apply(*wanted)
            again = await node.plan()

            assert reply.is_done, reply
            assert again == []
            assert reply.versions == dict.fromkeys(MACHINES, 1)
            names = sorted(domain.name() for domain in driver.listAllDomains(0))
            assert names == sorted(MACHINES)
            for name in MACHINES:
                assert driver.lookupByName(name).isActive()

    asyncio.run(scenario())


def _count(database: PostgresDatabase) -> int:
    connection = database.connect()
    try:
        found = connection.execute("SELECT count(*) FROM vm_documents").fetchone()
    finally:
        connection.close()
    assert found is not None
    return int(found[0])


def test_a_libvirtd_that_is_away_for_long_is_found_again(
    libvirtd: PrivateLibvirtd, driver: Any
) -> None:
    """Degraded all the while; tried at bounded pauses; back, what changed meanwhile is told."""

    async def scenario() -> None:
        for name in ("stays", "dies"):
            driver.createXML(GUEST.format(name=name), 0)
        async with running(libvirtd.uri, retry_max_s=0.4) as node:
            pids = libvirtd.pids("qemu-system-x86_64")
            await asyncio.to_thread(libvirtd.signal_daemon, signal.SIGKILL)
            await wait_until(
                lambda: node.context.health.state is HealthState.DEGRADED, "alarm", DEADLINE_S
            )

            # As long as a minute is to the pauses of real life, and as much happens in it.
            began_s, states = time.monotonic(), set()
            while time.monotonic() - began_s < 3.0:
                states.add(node.context.health.state)
                assert (await node.domains()).is_stale
                await asyncio.sleep(0.1)
            victim = _pid_of(libvirtd, "dies")
            os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(libvirtd.start)

            await wait_until(
                lambda: node.context.health.state is HealthState.HEALTHY, "health", DEADLINE_S
            )
            await wait_until(
                lambda: any(name in ("vm:crashed", "vm:stopped") for name, _ in node.told("dies")),
                "the end that nobody saw",
                DEADLINE_S,
            )
            assert states == {HealthState.DEGRADED}
            assert (await node.domain("stays")).state is DomainState.RUNNING
            assert set(libvirtd.pids("qemu-system-x86_64")) == set(pids) - {victim}
            assert (await node.status()).connections == 2

    asyncio.run(scenario())


def test_a_flood_of_events_is_told_in_order_and_read_once(
    libvirtd: PrivateLibvirtd, driver: Any
) -> None:
    """None is lost or believed twice, and what is known at the end is what is."""
    rounds = 40

    async def scenario() -> None:
        domain = driver.createXML(GUEST.format(name="flood"), 0)
        async with running(libvirtd.uri) as node:

            def flood() -> None:
                for _ in range(rounds):
                    domain.suspend()
                    domain.resume()
                domain.suspend()

            await asyncio.to_thread(flood)
            told: list[str] = []

            def is_told() -> bool:
                kinds = ("vm:suspended", "vm:resumed")
                told[:] = [name for name, _ in node.told("flood") if name in kinds]
                return len(told) >= 2 * rounds + 1

            await wait_until(is_told, "all events", DEADLINE_S)
            assert told == ["vm:suspended", "vm:resumed"] * rounds + ["vm:suspended"]
            assert (await node.domain("flood")).state is DomainState.PAUSED

    asyncio.run(scenario())


def _pid_of(libvirtd: PrivateLibvirtd, name: str) -> int:
    for pid in libvirtd.pids("qemu-system-x86_64"):
        if f"guest={name},".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError(f"no QEMU of {name}")
