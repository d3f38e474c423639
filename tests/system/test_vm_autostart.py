"""Machines start with the host, on libvirt's test driver and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from protocol.records import Plain, from_wire
from services.vm.autostart.model import AutostartRecord
from services.vm.documents.devices import Memory
from services.vm.documents.model import Placement, Power, VmDocument
from services.vm.libvirt_adapter import start_event_loop
from services.vm.model import VmStatus
from supervisor.child.service import Request
from tests.fixtures.fix_postgres import PostgresDatabase, PostgresServer
from tests.system.vm_documents_running import Node, running
from tests.system.vm_running import wait_until

pytestmark = [pytest.mark.libvirt, pytest.mark.postgres]

URI = "test:///default"
DEADLINE_S = 30.0


@pytest.fixture
def driver() -> Iterator[Any]:
    """A connection to the test driver; its domains are the process's, and taken away again."""
    start_event_loop()
    connection = libvirt.open(URI)
    before = {domain.UUIDString() for domain in connection.listAllDomains(0)}
    yield connection
    for domain in connection.listAllDomains(0):
        if domain.UUIDString() not in before:
            if domain.isActive():
                domain.destroy()
            domain.undefine()
    connection.close()


class Host:
    """A host that can be booted anew, and its platform, which can be run again and again."""

    def __init__(self, database: PostgresDatabase, directory: Path) -> None:
        self._database = database
        self._directory = directory
        self._has_schema = False
        self._boots = 0
        self.boot()

    def boot(self) -> None:
        """The kernel has another boot id from here on."""
        self._boots += 1
        (self._directory / "boot_id").write_text(f"boot-{self._boots}\n")

    def platform(self, **more: Plain) -> Any:
        """A VM service from init to terminate."""
        has_schema, self._has_schema = self._has_schema, True
        settings: dict[str, Plain] = {
            "boot_id_file": str(self._directory / "boot_id"),
            "autostart_delay_s": 0.0,
            "autostart_retry_s": 0.05,
            **more,
        }
        return running(URI, self._database, self._directory, has_schema=has_schema, **settings)

    @property
    def record_path(self) -> Path:
        """Where the platform remembers."""
        return self._directory / "state" / "vm" / "autostart.json"


@pytest.fixture
def host(driver: Any, postgres_database: PostgresDatabase, tmp_path: Path) -> Host:
    """A host that has booted once."""
    return Host(postgres_database, tmp_path)


def machine(name: str, priority: int = 500, **more: Any) -> VmDocument:
    """A document whose machine starts with the host."""
    return VmDocument(
        name=name, memory=Memory(size="64MiB"), autostart=True, priority=priority, **more
    )


async def record_of(node: Node) -> AutostartRecord | None:
    """What the platform tells of machines that start with the host."""
    request = Request("operator/anna", "vm.status", None, 5.0)
    status = from_wire(VmStatus, await node.service.calls()["vm.status"](request))
    return status.autostart


async def until_over(node: Node) -> AutostartRecord:
    """Wait until all machines of this boot are dealt with."""
    deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
    while (record := await record_of(node)) is None or not record.is_over:
        assert asyncio.get_running_loop().time() < deadline_s, record
        await asyncio.sleep(0.01)
    return record


def outcomes(record: AutostartRecord) -> dict[str, str]:
    """By machine."""
    return {item.name: item.outcome.value for item in record.machines}


def attempts(node: Node) -> list[tuple[str, str]]:
    """Machine and outcome of each attempt, in order."""
    return [
        (str(fields["vm"]), str(fields["outcome"]))
        for name, fields in node.context.events
        if name == "vm:autostart"
    ]


async def prepare(host: Host, *documents: VmDocument) -> None:
    """A first life of the platform, in which the machines are defined."""
    async with host.platform() as node:
        await until_over(node)
        reply = await node.apply(*documents)
        assert reply.is_done, reply
        assert attempts(node) == []


def test_a_boot_of_the_host_starts_machines_by_priority(host: Host, driver: Any) -> None:
    """The highest first; libvirt's own start with the host is off for all of them."""

    async def scenario() -> None:
        await prepare(
            host, machine("low", 1), machine("high", 900), machine("mid-b"), machine("mid-a")
        )
        assert not any(
            driver.lookupByName(name).autostart() for name in ("low", "high", "mid-a", "mid-b")
        )

        host.boot()
        async with host.platform() as node:
            record = await until_over(node)

            names = [name for name, _ in attempts(node)]
            assert (names[0], names[-1]) == ("high", "low")
            assert set(outcomes(record).values()) == {"started"}
            assert all(driver.lookupByName(item.name).isActive() for item in record.machines)
            assert (
                "vm:autostart-over",
                {"started": 4, "running": 0, "failed": 0, "skipped": 0},
            ) in (node.context.events)

    asyncio.run(scenario())


def test_what_an_operator_stopped_stays_stopped(host: Host, driver: Any) -> None:
    """A restart of the platform starts nothing; the next boot of the host does."""

    async def scenario() -> None:
        await prepare(host, machine("kept"))
        host.boot()
        async with host.platform() as node:
            await until_over(node)
        driver.lookupByName("kept").destroy()

        async with host.platform() as node:
            record = await until_over(node)
            assert attempts(node) == []
            assert not driver.lookupByName("kept").isActive()
            assert outcomes(record) == {"kept": "started"}

        host.boot()
        async with host.platform() as node:
            await until_over(node)
            assert driver.lookupByName("kept").isActive()

    asyncio.run(scenario())


def test_a_platform_that_is_new_on_a_running_host_starts_nothing(host: Host, driver: Any) -> None:
    """Without a record nobody knows what was stopped on purpose."""

    async def scenario() -> None:
        await prepare(host, machine("quiet"))
        for content in (None, "garbage"):
            host.record_path.unlink()
            if content is not None:
                host.record_path.write_text(content)
            async with host.platform() as node:
                record = await until_over(node)

                assert record.machines == ()
                assert attempts(node) == []
                assert not driver.lookupByName("quiet").isActive()

    asyncio.run(scenario())


def test_a_machine_that_fails_stops_no_other(host: Host, driver: Any) -> None:
    """It is tried again, told with its reason, and the others run."""

    async def scenario() -> None:
        await prepare(host, machine("broken", 900), machine("fine", 1))
        driver.lookupByName("broken").undefine()

        host.boot()
        async with host.platform() as node:
            record = await until_over(node)

            assert outcomes(record) == {"broken": "failed", "fine": "started"}
            broken = record.machines[0]
            assert broken.attempts == 3
            assert "broken" in broken.message
            assert attempts(node) == [
                ("broken", "failed"),
                ("fine", "started"),
                ("broken", "failed"),
                ("broken", "failed"),
            ]

    asyncio.run(scenario())


def test_a_machine_that_can_start_later_does(host: Host, driver: Any) -> None:
    """What was in its way is gone by the second attempt."""

    async def scenario() -> None:
        await prepare(host, machine("late"))
        xml = driver.lookupByName("late").XMLDesc(0)
        driver.lookupByName("late").undefine()

        host.boot()
        async with host.platform(autostart_retry_s=0.5) as node:
            await wait_until(lambda: bool(attempts(node)), "first attempt", DEADLINE_S)
            driver.defineXML(xml)
            record = await until_over(node)

            assert outcomes(record) == {"late": "started"}
            assert attempts(node) == [("late", "failed"), ("late", "started")]

    asyncio.run(scenario())


def test_a_platform_that_died_in_between_goes_on(host: Host, driver: Any) -> None:
    """What was started and stopped by then stays stopped; what had not come yet is started."""

    async def scenario() -> None:
        await prepare(host, machine("first", 900), machine("second", 1))

        host.boot()
        async with host.platform(autostart_delay_s=30.0) as node:
            seen = {"first": "started", "second": "waiting"}
            deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
            while (record := await record_of(node)) is None or outcomes(record) != seen:
                assert asyncio.get_running_loop().time() < deadline_s, record
                await asyncio.sleep(0.01)
        driver.lookupByName("first").destroy()

        async with host.platform() as node:
            record = await until_over(node)
            assert attempts(node) == [("second", "started")]
            assert not driver.lookupByName("first").isActive()

    asyncio.run(scenario())


def test_machines_that_are_not_to_run_are_left(host: Host, driver: Any) -> None:
    """``power: off`` is not started, a placement elsewhere is skipped with its reason."""

    async def scenario() -> None:
        await prepare(host, machine("off", power=Power.OFF), machine("here"), machine("foreign"))
        async with host.platform() as node:
            moved = machine("foreign", placement=Placement(nodes=("node-2",)))
            await node.apply(moved)

        host.boot()
        async with host.platform() as node:
            record = await until_over(node)

            assert outcomes(record) == {"here": "started", "foreign": "skipped"}
            foreign = next(item for item in record.machines if item.name == "foreign")
            assert "node-2" in foreign.message
            assert not driver.lookupByName("off").isActive()

    asyncio.run(scenario())


def test_nothing_starts_that_could_not_be_remembered(host: Host, driver: Any) -> None:
    """A directory that can't be written to holds the starts up, says so, and lets go again."""

    async def scenario() -> None:
        await prepare(host, machine("held"))
        blocker = host.record_path.with_suffix(".json.new")
        blocker.mkdir()

        host.boot()
        async with host.platform() as node:
            await wait_until(
                lambda: "machines wait" in node.context.health.reason, "a reason", DEADLINE_S
            )
            assert not driver.lookupByName("held").isActive()
            blocker.rmdir()
            await until_over(node)

            assert driver.lookupByName("held").isActive()
            await wait_until(lambda: not node.context.health.reason, "health", DEADLINE_S)

    asyncio.run(scenario())


def test_without_the_database_the_last_known_documents_count(
    host: Host, driver: Any, postgres_server: PostgresServer
) -> None:
    """Away, it keeps no machine from its start; where nothing is known, it is waited for."""

    async def scenario() -> None:
        await prepare(host, machine("known"))
        known = host.record_path.with_name("documents.json")
        kept = known.read_bytes()
        known.unlink()
        host.boot()
        postgres_server.stop()
        try:
            async with host.platform() as node:
                await wait_until(
                    lambda: "no document is known" in node.context.health.reason,
                    "a reason",
                    DEADLINE_S,
                )
                assert not driver.lookupByName("known").isActive()
                known.write_bytes(kept)
                record = await until_over(node)

                assert "known" in outcomes(record)
        finally:
            postgres_server.start()

    asyncio.run(scenario())
