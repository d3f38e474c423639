"""Leases in a real PostgreSQL, asked for by several nodes at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from protocol.records import to_wire
from services.data.connecting import connect
from services.vm.documents.errors import DocumentElsewhereError, DocumentNotFoundError
from services.vm.documents.model import Placement, VmDocument
from services.vm.leases.errors import (
    AssignRefusedError,
    DiskLeasedError,
    LeasedElsewhereError,
    LeaseLostError,
    LeaseStoreError,
    LeasesUnavailableError,
)
from services.vm.leases.model import DiskMode, DiskUse, LeaseState, Machine, Wanted
from services.vm.leases.store import LeaseStore
from tests.fixtures.fix_postgres import PostgresDatabase, PostgresServer
from tests.system.security_node import migrate, postgres_settings

pytestmark = pytest.mark.postgres

WEB = VmDocument(name="web")
MACHINE = Machine(uuid=WEB.domain_uuid, name="web")
OTHER = Machine(uuid="00000000-0000-4000-8000-000000000002", name="other")
SHARED = DiskUse(key="shared:san:inode:7", mode=DiskMode.WRITE, path="/san/web.qcow2")
LOCAL = DiskUse(key="local:a:8:1:7", mode=DiskMode.WRITE, path="/images/web.qcow2")


@dataclass(frozen=True)
class Tables:
    """A database with the schema, and stores on it, each with a connection of its own."""

    database: PostgresDatabase
    make: Callable[[], LeaseStore]

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Change or read a table past the stores."""
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def add_document(self, document: VmDocument, node: str) -> None:
        """Keep a document."""
        self.run(
            "INSERT INTO vm_documents VALUES (%s, %s, 1, 1, %s, %s, now(), 'anna', NULL)",
            document.name,
            node,
            document.fingerprint,
            Jsonb(to_wire(document)),
        )

    def add_node(self, node: str) -> None:
        """Have a node in the health table."""
        self.run(
            "INSERT INTO node VALUES (%s, 'boot', 1, 'ready', 6, '1', 'test', '{}', now(), now())",
            node,
        )

    def document(self, name: str) -> tuple[Any, ...]:
        """A document's node, epoch and version."""
        found = self.run("SELECT node_id, epoch, version FROM vm_documents WHERE name = %s", name)
        return found[0]

    def let_expire(self, machine: Machine = MACHINE) -> None:
        """As if its holder had not been heard of for long."""
        self.run(
            "UPDATE vm_leases SET expires_at = now() - interval '1 s', "
            "renewed_at = now() - interval '100 s' WHERE uuid = %s",
            machine.uuid,
        )


@pytest.fixture(scope="module")
def module_database(postgres_session: PostgresServer) -> Iterator[PostgresDatabase]:
    """A database with the schema, for all tests of the module."""
    postgres_session.start()
    name = f"leases_{os.getpid()}"
    with psycopg.connect(postgres_session.dsn(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    database = PostgresDatabase(postgres_session, name)
    asyncio.run(migrate(postgres_settings(database)))
    yield database
    postgres_session.start()
    with psycopg.connect(postgres_session.dsn(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def database(module_database: PostgresDatabase) -> PostgresDatabase:
    """The same without a row in it."""
    module_database.server.start()
    with psycopg.connect(module_database.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE vm_leases, vm_lease_disks, vm_documents, node CASCADE")
    return module_database


@asynccontextmanager
async def tables(database: PostgresDatabase) -> AsyncIterator[Tables]:
    """Stores that are closed at the end."""
    settings = postgres_settings(database)
    stores: list[LeaseStore] = []

    def make() -> LeaseStore:
        store = LeaseStore(partial(connect, settings, application="test"))
        stores.append(store)
        return store

    yield Tables(database, make)
    for store in stores:
        await store.close()


def scenario(
    database: PostgresDatabase, work: Callable[[Tables], Coroutine[Any, Any, None]]
) -> None:
    """Run one."""

    async def run() -> None:
        async with tables(database) as found:
            await work(found)

    asyncio.run(run())


def wanted(node: str, *disks: DiskUse, machine: Machine = MACHINE, **more: Any) -> Wanted:
    """What a node asks for."""
    return Wanted(machine=machine, node_id=node, by="operator/anna", disks=disks, **more)


def test_of_many_nodes_at_once_one_gets_the_lease(database: PostgresDatabase) -> None:
    """Eight ask at the same time; seven are told who has it."""

    async def work(found: Tables) -> None:
        nodes = [f"node-{number}" for number in range(8)]
        stores = [found.make() for _ in nodes]
        asked = (store.acquire(wanted(node)) for store, node in zip(stores, nodes, strict=True))
        answers = await asyncio.gather(*asked, return_exceptions=True)

        granted = [item for item in answers if not isinstance(item, BaseException)]
        refused = [item for item in answers if isinstance(item, LeasedElsewhereError)]
        assert (len(granted), len(refused)) == (1, 7)
        holder = granted[0].lease.node_id
        assert {error.fields["node_id"] for error in refused} == {holder}

    scenario(database, work)


def test_of_two_machines_at_once_one_gets_the_disk(database: PostgresDatabase) -> None:
    """On two nodes, under two names; the table itself would not take the second writer."""

    async def work(found: Tables) -> None:
        answers = await asyncio.gather(
            found.make().acquire(wanted("a", SHARED)),
            found.make().acquire(wanted("b", SHARED, machine=OTHER)),
            return_exceptions=True,
        )

        assert sorted(type(item).__name__ for item in answers) == ["DiskLeasedError", "Granted"]
        [(holder,)] = found.run("SELECT uuid FROM vm_lease_disks")
        rest = ({MACHINE.uuid, OTHER.uuid} - {holder}).pop()
        found.run(
            "INSERT INTO vm_leases VALUES (%s, 'x', 'a', 1, true, now(), now(), now(), '')", rest
        )
        with pytest.raises(psycopg.errors.UniqueViolation):
            found.run("INSERT INTO vm_lease_disks VALUES (%s, %s, 'write', '/x')", rest, SHARED.key)

    scenario(database, work)


def test_a_lease_lives_from_start_to_stop(database: PostgresDatabase) -> None:
    """Taken, renewed, listed with its disks, freed; the epoch stays and only grows."""

    async def work(found: Tables) -> None:
        store = found.make()
        first = (await store.acquire(wanted("a", SHARED, LOCAL))).lease
        again = (await store.acquire(wanted("a", SHARED, LOCAL))).lease
        assert (first.epoch, again.epoch) == (1, 2)

        found.let_expire()
        reading = await store.renew("a")
        assert [lease.state(reading.now_s) for lease in reading.leases] == [LeaseState.HELD]
        listed = await store.list()
        assert listed.disks[MACHINE.uuid] == (LOCAL, SHARED)

        assert not await store.release(MACHINE.uuid, node_id="a", epoch=1)
        assert not await store.release(MACHINE.uuid, node_id="b", epoch=2)
        assert await store.release(MACHINE.uuid, node_id="a", epoch=2)
        assert not await store.release(MACHINE.uuid, node_id="a", epoch=2)
        assert found.run("SELECT * FROM vm_lease_disks") == []
        other = (await found.make().acquire(wanted("b", epoch_seen=9))).lease
        assert (other.node_id, other.epoch) == ("b", 10)

    scenario(database, work)


def test_a_gone_node_is_replaced_only_by_somebodys_word(
    database: PostgresDatabase,
) -> None:
    """Expired is not free; a takeover takes machine, disk and document along."""

    async def work(found: Tables) -> None:
        found.add_document(WEB, "a")
        here, there = found.make(), found.make()
        await here.acquire(wanted("a", SHARED))
        with pytest.raises(LeasedElsewhereError, match="stop it there"):
            await there.acquire(wanted("b", SHARED))
        with pytest.raises(LeasedElsewhereError, match="heard of"):
            await there.acquire(wanted("b", SHARED, takeover=True))

        found.let_expire()
        with pytest.raises(LeasedElsewhereError, match="--takeover"):
            await there.acquire(wanted("b", SHARED))
        with pytest.raises(DiskLeasedError, match="--takeover"):
            await there.acquire(wanted("b", SHARED, machine=OTHER))
        taken = await there.acquire(wanted("b", SHARED, takeover=True))

        assert (taken.lease.node_id, taken.lease.epoch) == ("b", 2)
        assert found.document("web") == ("b", 2, 2)
        with pytest.raises(LeasedElsewhereError):
            await here.acquire(wanted("a", SHARED))
        assert (await here.renew("a", [MACHINE.uuid])).leases == (taken.lease,)

    scenario(database, work)


def test_a_takeover_frees_the_disks_of_a_gone_node(database: PostgresDatabase) -> None:
    """Another machine's, too; whoever had them is fenced by the epoch."""

    async def work(found: Tables) -> None:
        store = found.make()
        await store.acquire(wanted("a", SHARED, machine=OTHER))
        found.let_expire(OTHER)
        granted = await found.make().acquire(wanted("b", SHARED, takeover=True))

        assert [(lease.name, lease.epoch) for lease in granted.freed] == [("other", 2)]
        lease = await store.read(OTHER.uuid)
        assert lease is not None
        assert (lease.is_held, lease.epoch) == (False, 2)

    scenario(database, work)


def test_a_hand_over_is_one_moment_and_may_be_asked_again(
    database: PostgresDatabase,
) -> None:
    """Holder, epoch and document change together; what means something on one node alone goes."""

    async def work(found: Tables) -> None:
        found.add_document(WEB, "a")
        store = found.make()
        await store.acquire(wanted("a", SHARED, LOCAL))
        move = partial(store.hand_over, MACHINE.uuid, from_node="a", to_node="b")
        with pytest.raises(LeaseLostError):
            await move(epoch=7)
        assert found.document("web") == ("a", 1, 1)

        lease = await move(epoch=1)
        again = await move(epoch=1)

        assert (lease.node_id, lease.epoch, again) == ("b", 2, lease)
        assert found.document("web") == ("b", 2, 2)
        assert found.run("SELECT key FROM vm_lease_disks") == [(SHARED.key,)]
        with pytest.raises(LeaseLostError, match="held by node b"):
            await store.hand_over(MACHINE.uuid, from_node="a", to_node="c", epoch=1)
        with pytest.raises(LeaseLostError, match="no lease"):
            await store.hand_over(OTHER.uuid, from_node="a", to_node="c", epoch=1)

    scenario(database, work)


def test_disks_change_while_a_machine_runs(database: PostgresDatabase) -> None:
    """All or none, and only by who has the lease."""

    async def work(found: Tables) -> None:
        store = found.make()
        await store.acquire(wanted("a", LOCAL))
        await store.acquire(wanted("b", SHARED, machine=OTHER))
        put = partial(store.set_disks, MACHINE.uuid, node_id="a")
        with pytest.raises(DiskLeasedError, match="other writes it on node b"):
            await put(epoch=1, disks=[LOCAL, SHARED])
        with pytest.raises(LeaseLostError):
            await put(epoch=2, disks=[])
        await store.release(OTHER.uuid, node_id="b", epoch=1)
        await put(epoch=1, disks=[LOCAL, SHARED])

        assert (await store.list()).disks[MACHINE.uuid] == (LOCAL, SHARED)

    scenario(database, work)


def test_a_document_elsewhere_keeps_its_machine_from_starting(
    database: PostgresDatabase,
) -> None:
    """Also where the lease is free; a domain of another UUID is another machine."""

    async def work(found: Tables) -> None:
        found.add_document(WEB, "a")
        store = found.make()
        with pytest.raises(DocumentElsewhereError, match="vm assign web b"):
            await store.acquire(wanted("b", takeover=True))
        namesake = Machine(uuid=OTHER.uuid, name="web")
        assert (await store.acquire(wanted("b", machine=namesake))).lease.epoch == 1

    scenario(database, work)


def test_a_document_is_assigned_while_its_machine_is_off(
    database: PostgresDatabase,
) -> None:
    """Refused while it runs, to a node that is not there, or against its placement."""

    async def work(found: Tables) -> None:
        for node in ("a", "b"):
            found.add_node(node)
        found.add_document(WEB, "a")
        bound = VmDocument(name="bound", placement=Placement(nodes=("a",)))
        found.add_document(bound, "a")
        store = found.make()

        async def assign(name: str, node: str, **more: Any) -> Any:
            return await store.assign(name, node_id=node, by="anna", documents_max=2, **more)

        with pytest.raises(DocumentNotFoundError):
            await assign("nothing", "b")
        with pytest.raises(AssignRefusedError, match="no node c; known are a, b"):
            await assign("web", "c")
        with pytest.raises(AssignRefusedError, match="placement allows a"):
            await assign("bound", "b")
        await store.acquire(wanted("a"))
        with pytest.raises(LeasedElsewhereError, match="stop it there"):
            await assign("web", "b")
        await store.release(MACHINE.uuid, node_id="a", epoch=1)

        assert (await assign("web", "b")).was == "a"
        assert (await assign("web", "b")).was == "b"
        assert found.document("web") == ("b", 2, 2)

        await store.acquire(wanted("b"))
        found.let_expire()
        with pytest.raises(LeasedElsewhereError, match="--takeover"):
            await assign("web", "a")
        assert (await assign("web", "a", takeover=True)).was == "b"
        lease = await store.read(MACHINE.uuid)
        assert lease is not None
        assert (lease.is_held, lease.epoch) == (False, 3)

    scenario(database, work)


def test_a_database_that_is_away_and_one_without_the_table_are_said(
    database: PostgresDatabase,
) -> None:
    """The first may come back; the second is somebody's to mend."""

    async def work(found: Tables) -> None:
        found.run("ALTER TABLE vm_leases RENAME TO elsewhere")
        with pytest.raises(LeaseStoreError, match="vm_leases"):
            await found.make().read(MACHINE.uuid)
        found.run("ALTER TABLE elsewhere RENAME TO vm_leases")
        gone = postgres_settings(found.database)
        store = LeaseStore(
            partial(connect, type(gone)(host="/nowhere", database="x", user="x"), application="t")
        )
        with pytest.raises(LeasesUnavailableError, match="away"):
            await store.acquire(wanted("a"))
        await store.close()

    scenario(database, work)
