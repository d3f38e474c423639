"""Documents and leases on libvirt's test driver and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import psycopg
import pytest

from protocol.messages.health import HealthState
from protocol.records import from_wire
from services.vm.documents.model import Power, VmDocument
from services.vm.documents.records import DocumentList, Outcome
from services.vm.documents.steps import StepKind
from services.vm.leases.errors import AssignRefusedError, LeasedElsewhereError
from services.vm.leases.model import AssignReply, LeaseList, LeaseState
from services.vm.leases.part import Leases
from services.vm.libvirt_adapter import start_event_loop
from services.vm.model import VmSettings
from services.vm.operations.errors import OperationRefusedError
from services.vm.operations.model import OperationRecord
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.vm_documents_running import NODE, Node, running

pytestmark = [pytest.mark.libvirt, pytest.mark.postgres]

URI = "test:///default"
DEADLINE_S = 20.0


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


def change(database: PostgresDatabase, statement: str, *parameters: object) -> None:
    """Change a table past the node."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(statement, parameters)


async def leased(node: Node, name: str) -> tuple[LeaseState, int, str] | None:
    """State, epoch and who ordered it."""
    found = await node.ask("vm.leases", LeaseList)
    for item in found.leases:
        if item.name == name:
            return item.state, item.epoch, item.acquired_by
    return None


async def until(condition: Callable[[], bool]) -> None:
    """Let the node work until it holds."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


async def start(node: Node, name: str) -> str:
    """Start a machine; "" or the error's code."""
    record = await node.ask("vm.start", OperationRecord, domain=name, wait_s=30.0)
    return record.error_code


def test_an_apply_takes_leases_and_gives_them_back(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Of what it starts and stops; one that it can't have fails alone, and says why."""

    async def scenario() -> None:
        one, two = (VmDocument(name=name, power=Power.ON) for name in ("one", "two"))
        async with running(URI, postgres_database, tmp_path) as node:
            change(
                postgres_database,
                "INSERT INTO vm_leases VALUES (%s, 'two', 'node-2', 4, true, now(), now(), "
                "now() + interval '1 h', 'bob')",
                two.domain_uuid,
            )
            reply = await node.apply(one, two)

            outcomes = {
                result.step.name: (result.outcome, result.code)
                for result in reply.results
                if result.step.kind is StepKind.START
            }
            assert outcomes == {
                "one": (Outcome.DONE, ""),
                "two": (Outcome.FAILED, "vm.leased_elsewhere"),
            }
            assert await leased(node, "one") == (LeaseState.HELD, 1, "operator/anna")
            assert not driver.lookupByName("two").isActive()
            assert (await node.plan()) == [(StepKind.START, "two")]  # and "one" as it should be

            await node.apply(VmDocument(name="one", power=Power.OFF))
            deadline_s = time.monotonic() + DEADLINE_S
            while await leased(node, "one") != (LeaseState.FREE, 1, "operator/anna"):
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_an_assigned_machine_starts_there_and_not_here(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Not while it runs; afterwards its domain here is an orphan that nobody starts."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            for name in (NODE, "node-2"):
                change(
                    postgres_database,
                    "INSERT INTO node VALUES (%s, 'boot', 1, 'ready', 6, '1', 'test', '{}', "
                    "now(), now())",
                    name,
                )
            await node.apply(VmDocument(name="goes", power=Power.ON))
            with pytest.raises(LeasedElsewhereError, match="stop it there"):
                await node.ask("vm.assign", AssignReply, name="goes", node="node-2")
            driver.lookupByName("goes").destroy()
            with pytest.raises(AssignRefusedError, match="no node node-3"):
                await node.ask("vm.assign", AssignReply, name="goes", node="node-3")
            reply = await node.ask("vm.assign", AssignReply, name="goes", node="node-2")

            assert (reply.was, reply.epoch, reply.changed) == (NODE, 2, True)
            assert ("vm:document-assigned", "goes") in [
                (told, fields.get("vm")) for told, fields in node.context.events
            ]
            assert await start(node, "goes") == "vm.document_elsewhere"
            assert await node.plan() == [(StepKind.ORPHAN, "goes")]
            assert (await node.ask("vm.documents", DocumentList)).documents == ()

            back = await node.ask("vm.assign", AssignReply, name="goes", node=NODE)
            assert (back.was, back.epoch) == ("node-2", 3)
            assert [kind for kind, _ in await node.plan()] == [StepKind.MARK, StepKind.START]
            assert await start(node, "goes") == ""

    asyncio.run(scenario())


def test_a_machine_that_is_moved_is_left_alone_and_handed_over(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """What a migration asks: whose it is, that nobody starts it, and that the other has it."""
    wanted = VmDocument(name="moves", power=Power.ON)
    uuid = wanted.domain_uuid

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(wanted)
            settings = from_wire(VmSettings, node.context.settings)
            leases = Leases(node.context, settings, lambda: None, lambda: True)
            assert await leases.claim(uuid, "moves") == 1
            leases.hold(uuid)
            await leases.hand_over(uuid, to_node="node-2", epoch=1)
            await leases.hand_over(uuid, to_node="node-2", epoch=1)
            assert await leased(node, "moves") == (LeaseState.HELD, 2, "operator/anna")
            assert (await node.ask("vm.documents", DocumentList)).documents == ()

            with pytest.raises(LeasedElsewhereError):
                await leases.claim(uuid, "moves")
            driver.lookupByName("moves").destroy()
            with pytest.raises(OperationRefusedError, match="being moved"):
                async with leases.starting("moves", by="anna"):
                    raise AssertionError("it may run on node-2")
            leases.leave(uuid)
            with pytest.raises(LeasedElsewhereError, match="belongs to node node-2"):
                async with leases.starting("moves", by="anna"):
                    raise AssertionError("it runs on node-2")
            await leases.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("action", "is_active"), [("destroy", False), ("report", True)])
def test_what_is_done_to_a_fenced_guest_is_configured(
    driver: Any,
    postgres_database: PostgresDatabase,
    tmp_path: Path,
    action: str,
    *,
    is_active: bool,
) -> None:
    """Its power is taken away, or it is only told of; when it is gone the component is healthy."""

    async def scenario() -> None:
        wanted = VmDocument(name="lost", power=Power.ON)
        more = {"fenced_guests": action, "lease_ttl_s": 1.5}
        async with running(URI, postgres_database, tmp_path, **more) as node:
            await node.apply(wanted)
            change(
                postgres_database,
                "UPDATE vm_leases SET node_id = 'node-2', epoch = 2, "
                "expires_at = now() + interval '1 h' WHERE name = 'lost'",
            )
            told = [("vm:fenced", action)]
            await until(
                lambda: (
                    [(n, f.get("action")) for n, f in node.context.events if n == "vm:fenced"]
                    == told
                )
            )
            assert bool(driver.lookupByName("lost").isActive()) == is_active
            if is_active:
                await until(lambda: "lost is fenced" in node.context.health.reason)
                driver.lookupByName("lost").destroy()
            await until(lambda: node.context.health.state is HealthState.HEALTHY)

    asyncio.run(scenario())
