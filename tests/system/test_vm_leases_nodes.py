"""Two nodes with a libvirtd each, one database, and real guests, emulated by TCG."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from protocol.messages.health import HealthState
from protocol.records import to_wire
from services.vm.leases.driver import read_epoch
from services.vm.leases.model import LeaseList, LeaseState
from services.vm.operations.model import OperationRecord, OperationState
from tests.fixtures.fix_libvirt import PrivateLibvirtd, private_libvirtd
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import migrate, postgres_settings
from tests.system.vm_documents_running import Node, running

pytestmark = [pytest.mark.libvirt, pytest.mark.postgres]

DEADLINE_S = 30.0
GUEST = """
<domain type='qemu'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}</devices>
</domain>
"""
DISK = """
<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{path}'/>
<target dev='vd{letter}' bus='virtio'/>{more}</disk>
"""


@dataclass(frozen=True)
class Hosts:
    """Two hosts; what is below ``shared`` both reach."""

    daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]
    connections: tuple[Any, Any]
    shared: Path

    def define(self, name: str, *disks: str, where: tuple[int, ...] = (0,)) -> str:
        """A domain on some hosts, the same everywhere; its UUID."""
        number = str(uuid.uuid4())
        for index in where:
            text = GUEST.format(name=name, uuid=number, disks="".join(disks))
            self.connections[index].defineXML(text)
        return number

    def domain(self, name: str, where: int = 0) -> Any:
        """A domain."""
        return self.connections[where].lookupByName(name)


@pytest.fixture(scope="module")
def daemons() -> Iterator[tuple[PrivateLibvirtd, PrivateLibvirtd]]:
    """Two libvirtds for the module."""
    with private_libvirtd() as first, private_libvirtd() as second:
        yield first, second


@pytest.fixture
def hosts(daemons: tuple[PrivateLibvirtd, PrivateLibvirtd], tmp_path: Path) -> Iterator[Hosts]:
    """Both, without a domain before and after."""
    first, second = (daemon.drive() for daemon in daemons)
    yield Hosts(daemons, (first, second), tmp_path)
    for connection in (first, second):
        for domain in connection.listAllDomains(0):
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefineFlags(2)  # with what libvirt knows of its snapshots
        connection.close()


def disk(path: Path, *, letter: str = "a", more: str = "", image_format: str = "qcow2") -> str:
    """A disk's XML."""
    return DISK.format(path=path, letter=letter, more=more, format=image_format)


def image(path: Path, backing: Path | None = None) -> Path:
    """A qcow2 image."""
    below = ["-b", str(backing), "-F", "qcow2"] if backing else []
    size = [] if backing else ["1M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *below, path, *size], check=True)
    return path


class Pair:
    """The database, and the nodes that were started on it."""

    def __init__(self, database: PostgresDatabase, hosts: Hosts) -> None:
        self.database = database
        self.hosts = hosts

    @asynccontextmanager
    async def node(self, where: int, name: str = "", **more: Any) -> AsyncIterator[Node]:
        """A node on a host."""
        name = name or "ab"[where]
        async with running(
            self.hosts.daemons[where].uri,
            self.database,
            self.hosts.shared / name,
            has_schema=True,
            node_id=name,
            image_dirs=[str(self.hosts.shared)],
            **more,
        ) as node:
            yield node

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Change or read a table."""
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def lease(self, number: str) -> tuple[str, int, bool]:
        """Node, epoch, and whether it is held."""
        query = "SELECT node_id, epoch, is_held FROM vm_leases WHERE uuid = %s"
        found = self.run(query, number)
        return found[0] if found else ("", 0, False)

    def age(self, number: str, seconds: int) -> None:
        """As if nothing had been heard of its holder for so long."""
        self.run(
            "UPDATE vm_leases SET acquired_at = acquired_at - %s * interval '1 s', "
            "renewed_at = renewed_at - %s * interval '1 s', "
            "expires_at = expires_at - %s * interval '1 s' WHERE uuid = %s",
            *(seconds,) * 3,
            number,
        )


def scenario(
    database: PostgresDatabase, hosts: Hosts, work: Callable[[Pair], Coroutine[Any, Any, None]]
) -> None:
    """Run one, on a database with the schema."""

    async def run() -> None:
        await migrate(postgres_settings(database))
        await work(Pair(database, hosts))

    asyncio.run(run())


async def order(node: Node, method: str, **body: Any) -> OperationRecord:
    """Give an order and wait for its end."""
    return await node.ask(method, OperationRecord, wait_s=30.0, **body)


async def start(node: Node, name: str, **more: Any) -> str:
    """Start a machine; "" or the error's code."""
    record = await order(node, "vm.start", domain=name, **more)
    assert record.state in (OperationState.DONE, OperationState.FAILED), record
    return record.error_code


async def until(condition: Callable[[], bool], what: str) -> None:
    """Let the nodes work until it holds."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what}"
        await asyncio.sleep(0.05)


def events(node: Node, name: str) -> list[dict[str, Any]]:
    """What was told under a name."""
    return [dict(fields) for told, fields in node.context.events if told == name]


def test_a_machine_runs_on_one_node_at_a_time(
    postgres_database: PostgresDatabase, hosts: Hosts
) -> None:
    """The other is refused and told who has it, gets it once it is free, by a higher epoch."""
    number = hosts.define("web", where=(0, 1))

    async def work(pair: Pair) -> None:
        async with pair.node(0) as first, pair.node(1) as second:
            assert await start(first, "web") == ""
            assert pair.lease(number) == ("a", 1, True)
            assert read_epoch(hosts.domain("web").XMLDesc(0)) == 1
            assert read_epoch(hosts.domain("web").XMLDesc(2)) == 0
            refused = await order(second, "vm.start", domain="web")
            assert refused.error_code == "vm.leased_elsewhere"
            assert "belongs to node a since" in refused.error
            assert not hosts.domain("web", 1).isActive()
            assert events(second, "vm:lease-refused")[0]["code"] == "vm.leased_elsewhere"

            await order(first, "vm.stop", domain="web", agent_s=0, acpi_s=0)
            assert pair.lease(number) == ("a", 1, False)
            assert await start(second, "web") == ""
            assert pair.lease(number) == ("b", 2, True)
            assert read_epoch(hosts.domain("web", 1).XMLDesc(0)) == 2
            assert await start(first, "web") == "vm.leased_elsewhere"

            listed = await first.ask("vm.leases", LeaseList)
            assert [(item.name, item.node_id, item.state) for item in listed.leases] == [
                ("web", "b", LeaseState.HELD)
            ]
            hosts.domain("web", 1).destroy()  # past the platform; its event frees it
            await until(lambda: not pair.lease(number)[2], "free lease")

    scenario(postgres_database, hosts, work)


def test_what_was_taken_over_is_paused_when_it_is_found(
    postgres_database: PostgresDatabase, hosts: Hosts
) -> None:
    """The platform of a host dies, its guest runs on, somebody is mistaken, and it comes back."""
    number = hosts.define("web", where=(0, 1))

    async def work(pair: Pair) -> None:
        async with pair.node(1) as second:
            async with pair.node(0) as first:
                assert await start(first, "web") == ""
            assert hosts.domain("web").isActive()
            assert await start(second, "web", takeover=True) == "vm.leased_elsewhere"
            pair.age(number, 100)
            refused = await order(second, "vm.start", domain="web")
            assert "--takeover" in refused.error
            assert await start(second, "web", takeover=True) == ""
            assert pair.lease(number) == ("b", 2, True)

            async with pair.node(0, lease_ttl_s=6.0) as first:
                await until(lambda: bool(events(first, "vm:fenced")), "fence")
                assert hosts.domain("web").state()[0] == 3  # VIR_DOMAIN_PAUSED
                words = "web is fenced: node b has it since epoch 2"
                await until(lambda: words in first.context.health.reason, "degraded component")
                assert first.context.health.state is HealthState.DEGRADED
                resumed = await order(first, "vm.resume", domain="web")
                assert resumed.error_code == "vm.fenced"
                listed = await first.ask("vm.leases", LeaseList)
                assert listed.leases[0].fenced
                assert hosts.domain("web", 1).state()[0] == 1

    scenario(postgres_database, hosts, work)


def test_qemus_own_lock_is_the_last_line(postgres_database: PostgresDatabase, hosts: Hosts) -> None:
    """A mistaken takeover of a machine with a disk on shared storage: it does not start."""
    number = hosts.define("web", disk(image(hosts.shared / "web.qcow2")), where=(0, 1))

    async def work(pair: Pair) -> None:
        async with pair.node(0) as first:
            assert await start(first, "web") == ""
        pair.age(number, 100)
        async with pair.node(1) as second:
            refused = await order(second, "vm.start", domain="web", takeover=True)
            assert refused.error_code == "vm.disk_locked"
            assert str(hosts.shared / "web.qcow2") in refused.error
            assert pair.lease(number) == ("b", 2, False)

    scenario(postgres_database, hosts, work)


def test_one_disk_has_one_writer_whatever_its_name(
    postgres_database: PostgresDatabase, hosts: Hosts
) -> None:
    """A hard link, a symbolic link, an overlay's backing file, at one time and after another."""
    base = image(hosts.shared / "base.qcow2")
    tops = [image(hosts.shared / f"top{number}.qcow2", base) for number in (1, 2)]
    hard, soft = hosts.shared / "hard.qcow2", hosts.shared / "soft.qcow2"
    os.link(tops[0], hard)
    soft.symlink_to(tops[0])
    for name, path in (("one", tops[0]), ("two", tops[1]), ("hard", hard), ("soft", soft)):
        hosts.define(name, disk(path))
    hosts.define("base", disk(base))
    hosts.define("spare", disk(image(hosts.shared / "spare.qcow2")))
    hosts.define("twice", disk(tops[0]), disk(hard, letter="b"))

    async def work(pair: Pair) -> None:
        async with pair.node(0) as node:
            assert await start(node, "twice") == "vm.disk_leased"
            names = ("one", "hard", "soft")
            codes = await asyncio.gather(*(start(node, name) for name in names))
            assert sorted(codes) == ["", "vm.disk_leased", "vm.disk_leased"]
            assert await start(node, "two") == ""  # another overlay of the same file
            refused = await order(node, "vm.start", domain="base")
            assert refused.error_code == "vm.disk_leased"
            assert "reads it here" in refused.error
            active = {domain.name() for domain in hosts.connections[0].listAllDomains(1)}
            assert active == {"two", names[codes.index("")]}

            taken = await order(node, "vm.snapshot.create", domain="two", snapshot="s")
            assert taken.error == ""
            hosts.define("clone", disk(image(hosts.shared / "clone.qcow2", tops[1])))
            assert await start(node, "clone") == ""
            merged = await order(node, "vm.snapshot.delete", domain="two", snapshot="s")
            assert merged.error_code == "vm.disk_leased"  # what the clone is an overlay of
            await order(node, "vm.stop", domain="clone", agent_s=0, acpi_s=0)
            merged = await order(node, "vm.snapshot.delete", domain="two", snapshot="s")
            assert merged.error == ""

            attach = {"domain": "two", "file": str(hosts.shared / "spare.qcow2")}
            assert (await order(node, "vm.disk.attach", **attach)).error_code == ""
            assert await start(node, "spare") == "vm.disk_leased"

    scenario(postgres_database, hosts, work)


def test_storage_that_is_declared_shared_has_one_writer_on_all_nodes(
    postgres_database: PostgresDatabase, hosts: Hosts
) -> None:
    """Two machines, two nodes, one file; what is marked read-only or shareable may be shared."""
    (hosts.shared / ".novacron-storage").write_text("san-1\n")
    data = image(hosts.shared / "data.qcow2")
    raw = hosts.shared / "raw.img"
    raw.write_bytes(bytes(1 << 20))
    shared = disk(raw, more="<shareable/>", image_format="raw", letter="b")
    hosts.define("one", disk(data), shared)
    hosts.define("two", disk(data), where=(1,))
    hosts.define("three", shared, where=(1,))

    async def work(pair: Pair) -> None:
        async with pair.node(0) as first, pair.node(1) as second:
            assert await start(first, "one") == ""
            refused = await order(second, "vm.start", domain="two")
            assert refused.error_code == "vm.disk_leased"
            assert "one writes it on node a" in refused.error
            assert await start(second, "three") == ""

    scenario(postgres_database, hosts, work)


def test_what_was_started_past_the_platform_is_claimed(
    postgres_database: PostgresDatabase, hosts: Hosts
) -> None:
    """Its disk is its own from then on; what another node has is told of, and runs on."""
    data = image(hosts.shared / "data.qcow2")
    virsh = hosts.define("virsh", disk(data))
    hosts.define("ours", disk(data))
    odd = hosts.define("odd")

    async def work(pair: Pair) -> None:
        async with pair.node(0) as node:
            hosts.domain("virsh").create()
            await until(lambda: pair.lease(virsh) == ("a", 1, True), "claim")
            assert await start(node, "ours") == "vm.disk_leased"

            pair.run(
                "INSERT INTO vm_leases VALUES (%s, 'odd', 'c', 7, true, now(), now(), "
                "now() + interval '1 h', '')",
                odd,
            )
            hosts.domain("odd").create()
            await until(
                lambda: any(item["vm"] == "odd" for item in events(node, "vm:lease-refused")),
                "report",
            )
            assert hosts.domain("odd").state()[0] == 1
            listed = await node.ask("vm.leases", LeaseList)
            assert "node c has it in epoch 7" in listed.unleased[odd]

    scenario(postgres_database, hosts, work)


_KILLED = """
import asyncio, json, os, signal, sys
import libvirt
from services.vm.leases.part import Leases
from services.vm.model import VmSettings
from services.vm.libvirt_adapter import start_event_loop
from protocol.records import from_wire
from supervisor.testing.context import MemoryServiceContext

settings = json.loads(sys.argv[1])

async def main():
    start_event_loop()
    context = MemoryServiceContext(path="core/vm", settings=settings)
    leases = Leases(context, from_wire(VmSettings, settings), lambda: None, lambda: False)
    if sys.argv[2] == "before":
        async with leases.starting("web", by="anna"):
            os.kill(os.getpid(), signal.SIGKILL)
    domain = libvirt.open(settings["libvirt_uri"]).lookupByName("web")
    async with leases.starting("web", by="anna"):
        domain.create()
    domain.destroy()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_kill_leaves_a_lease_that_is_freed(
    postgres_database: PostgresDatabase, hosts: Hosts
) -> None:
    """Kill -9 between lease and start, and between stop and release; then the node goes on."""
    data = image(hosts.shared / "data.qcow2")
    number = hosts.define("web", disk(data))
    hosts.define("other", disk(data))

    async def work(pair: Pair) -> None:
        settings = {
            "libvirt_uri": hosts.daemons[0].uri,
            "node_id": "a",
            "state_dir": str(hosts.shared / "a" / "state"),
            "postgres": to_wire(postgres_settings(pair.database)),
        }
        for epoch, moment in ((1, "before"), (2, "after")):
            argv = [sys.executable, "-c", _KILLED, json.dumps(settings), moment]
            killed = await asyncio.create_subprocess_exec(*argv)
            assert await killed.wait() == -signal.SIGKILL
            assert pair.lease(number) == ("a", epoch, True)
            assert not hosts.domain("web").isActive()

        async with pair.node(0) as node:
            assert await start(node, "other") == "vm.disk_leased"  # web may be about to start
            pair.age(number, 121)
            assert await start(node, "other") == ""
            assert pair.lease(number) == ("a", 2, False)
            await order(node, "vm.stop", domain="other", agent_s=0, acpi_s=0)
            assert await start(node, "web") == ""
            assert pair.lease(number) == ("a", 3, True)

    scenario(postgres_database, hosts, work)


def test_without_the_database_a_node_restarts_what_it_has(
    postgres_database: PostgresDatabase, hosts: Hosts
) -> None:
    """Guests run on; what this node had is started again, what it had not is refused."""
    data = image(hosts.shared / "data.qcow2")
    number = hosts.define("web", disk(data))
    hosts.define("other")

    def cut(*, is_cut: bool) -> None:
        with psycopg.connect(postgres_database.server.dsn(), autocommit=True) as connection:
            name = postgres_database.name
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not is_cut}")
            if is_cut:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )

    async def work(pair: Pair) -> None:
        async with pair.node(0, lease_ttl_s=6.0) as node:
            assert await start(node, "web") == ""
            cut(is_cut=True)
            await until(lambda: "not renewed" in node.context.health.reason, "degraded component")
            assert hosts.domain("web").isActive()
            await order(node, "vm.stop", domain="web", agent_s=0, acpi_s=0)
            refused = await order(node, "vm.start", domain="other")
            assert refused.error_code == "vm.leases_unavailable"
            assert "when the database is back" in refused.error
            assert await start(node, "web") == ""
            assert (await node.ask("vm.leases", LeaseList)).is_stale
            hosts.domain("web").suspend()
            assert (await order(node, "vm.resume", domain="web")).error == ""

            cut(is_cut=False)
            await until(
                lambda: node.context.health.state is HealthState.HEALTHY, "healthy component"
            )
            assert pair.lease(number) == ("a", 1, True)
            assert await start(node, "other") == ""

    try:
        scenario(postgres_database, hosts, work)
    finally:
        cut(is_cut=False)


def test_a_node_without_a_database_keeps_its_own_machines_apart(hosts: Hosts) -> None:
    """On one host nothing else is needed for that."""
    from tests.fixtures.vm_orders import order as plain_order
    from tests.system.vm_running import running as plain

    data = image(hosts.shared / "data.qcow2")
    hosts.define("one", disk(data))
    hosts.define("two", disk(data))

    async def work() -> None:
        async with plain(hosts.daemons[0].uri) as node:
            assert (await plain_order(node, "vm.start", domain="one")).error == ""
            refused = await plain_order(node, "vm.start", domain="two")
            assert refused.error_code == "vm.disk_leased"
            await plain_order(node, "vm.stop", domain="one", acpi_s=0, agent_s=0)
            assert (await plain_order(node, "vm.start", domain="two")).error == ""

    asyncio.run(work())
