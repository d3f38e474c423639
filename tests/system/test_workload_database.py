"""The workload monitor with a real PostgreSQL and the real host; the tree is in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from protocol.messages.health import HealthState
from protocol.records import Plain, from_wire, to_wire
from services.data import migrations
from services.data.model import PostgresSettings
from services.data.postgres import connect
from services.optional.workload import store as storing
from services.optional.workload.errors import StoreUnavailableError
from services.optional.workload.host import read_host
from services.optional.workload.model import WorkloadSample, WorkloadStatus
from services.optional.workload.plan import sample_of
from services.optional.workload.service import WorkloadService
from services.optional.workload.store import SampleStore
from services.vm.model import DomainList, DomainRecord, DomainState
from services.vm.statistics.model import DomainStatistics, StatisticsReply
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_postgres import PostgresDatabase

pytestmark = [pytest.mark.postgres, pytest.mark.process]

RUNNING = DomainRecord(name="a", uuid="u-a", state=DomainState.RUNNING, vcpus=2)
STOPPED = DomainRecord(name="b", uuid="u-b", state=DomainState.SHUTOFF)
FIGURES = DomainStatistics(
    name="a", uuid="u-a", state=DomainState.RUNNING, cpu_percent=42.5, vcpus=2
)
DEADLINE_S = 20.0


class Vm:
    """The VM component's half, which can be changed."""

    def __init__(self) -> None:
        self.answer = DomainList(domains=(RUNNING, STOPPED))
        self.figures: StatisticsReply | None = StatisticsReply(domains=(FIGURES,))

    async def list(self, request: Request) -> Plain:
        """The call ``vm.list``."""
        return to_wire(self.answer)

    async def statistics(self, request: Request) -> Plain:
        """The call ``vm.statistics``; None is no reply that anybody understands."""
        return to_wire(self.figures)


def settings_of(database: PostgresDatabase) -> dict[str, Plain]:
    """The settings of a fast monitor on that database."""
    return {
        "node_id": "node-001",
        "sample_interval_s": 0.05,
        "postgres": {
            "host": database.host,
            "database": database.name,
            "user": database.user,
            "ssl_mode": "disable",
            "connect_timeout_s": 2.0,
        },
    }


async def migrate(database: PostgresDatabase) -> None:
    """Make the tables as the database component does."""
    settings = from_wire(PostgresSettings, settings_of(database)["postgres"])
    connection = await connect(settings, application="test")
    try:
        await migrations.migrate(connection, migrations.load())
    finally:
        await connection.close()


@asynccontextmanager
async def running(database: PostgresDatabase, vm: Vm | None, **settings: Plain) -> Any:
    """A monitor at work."""
    context = MemoryServiceContext(
        path="optional/workload",
        settings={**settings_of(database), **settings},
        peers={"core/vm": {"vm.list": vm.list, "vm.statistics": vm.statistics}} if vm else {},
    )
    service = WorkloadService()
    await service.init(context)
    try:
        yield service, context
    finally:
        await service.terminate()
    assert context.failures == []


async def latest(service: WorkloadService) -> WorkloadStatus:
    """The reply of ``workload.latest``."""
    request = Request("operator", "workload.latest", None, 1.0)
    return from_wire(WorkloadStatus, service.calls()["workload.latest"](request))


async def until(
    service: WorkloadService, condition: Callable[[WorkloadStatus], bool]
) -> WorkloadStatus:
    """Wait until the monitor's status is as wanted."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition(found := await latest(service)):  # noqa: ASYNC110 - another side's state
            await asyncio.sleep(0.01)
    return found


def rows(database: PostgresDatabase, query: str) -> list[tuple[Any, ...]]:
    """What the database says."""
    connection = database.connect()
    try:
        return connection.execute(query.encode()).fetchall()
    finally:
        connection.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run one scenario in a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(50):
            await scenario()

    asyncio.run(bounded())


def test_host_and_domains_are_stored(postgres_database: PostgresDatabase) -> None:
    """Each interval adds a row with the host's figures and the running domains."""

    async def scenario() -> None:
        await migrate(postgres_database)
        async with running(postgres_database, Vm()) as (service, context):
            await until(service, lambda status: status.stored >= 3)
            assert context.health.state is HealthState.HEALTHY
            assert {"novacron_host_cpu_ratio", "novacron_workload_samples_total"} <= {
                item.name for item in context.samples
            }

    run(scenario)

    found = rows(
        postgres_database,
        "SELECT node_id, cpu_percent, load1, memory_used_bytes, memory_total_bytes, domains, time"
        " FROM workload_samples ORDER BY time",
    )
    assert len(found) >= 3
    node_id, cpu_percent, load1, used, total, domains, taken = found[-1]
    assert node_id == "node-001"
    assert 0 <= cpu_percent <= 100
    assert load1 >= 0
    assert 0 < used < total
    assert [item["name"] for item in domains] == ["a"]
    assert domains[0]["statistics"] == {"cpu_percent": 42.5}
    assert abs(taken.timestamp() - time.time()) < 60


@pytest.mark.parametrize(
    "figures",
    [
        StatisticsReply(domains=(FIGURES,), is_stale=True),
        StatisticsReply(domains=(replace(FIGURES, is_stale=True),)),
        StatisticsReply(domains=(replace(FIGURES, uuid="u-other"),)),
        None,
    ],
)
def test_figures_that_nobody_knows_are_left_out(
    postgres_database: PostgresDatabase, figures: StatisticsReply | None
) -> None:
    """The domains are stored all the same; that they are missing is for core/vm to say."""

    async def scenario() -> None:
        await migrate(postgres_database)
        vm = Vm()
        vm.figures = figures
        async with running(postgres_database, vm) as (service, context):
            await until(service, lambda status: status.stored >= 2)
            assert context.health.state is HealthState.HEALTHY

    run(scenario)

    stored = rows(postgres_database, "SELECT domains FROM workload_samples")[0][0]
    assert [set(item) & {"name", "statistics"} for item in stored] == [{"name"}]


@pytest.mark.parametrize("kind", ["down", "stale"])
def test_without_domains_it_is_degraded_and_stores_null(
    postgres_database: PostgresDatabase, kind: str
) -> None:
    """Nobody knows the domains: the row says null, which is not an empty list."""
    vm = Vm() if kind == "stale" else None
    if vm is not None:
        vm.answer = DomainList(domains=(RUNNING,), is_stale=True)

    async def scenario() -> None:
        await migrate(postgres_database)
        async with running(postgres_database, vm) as (service, context):
            await until(service, lambda status: status.stored >= 1)
            await until(service, lambda _: context.health.state is HealthState.DEGRADED)
            assert "core/vm" in context.health.reason

    run(scenario)

    assert set(rows(postgres_database, "SELECT domains FROM workload_samples")) == {(None,)}
    assert not rows(postgres_database, "SELECT 1 FROM workload_samples WHERE domains IS NULL")


def test_node_without_machines_is_healthy(postgres_database: PostgresDatabase) -> None:
    """A role without virtual machines has an empty list and no complaint."""

    async def scenario() -> None:
        await migrate(postgres_database)
        async with running(postgres_database, None, domains_enabled=False) as (service, context):
            await until(service, lambda status: status.stored >= 1)
            await until(service, lambda _: context.health.state is HealthState.HEALTHY)

    run(scenario)


def test_samples_survive_an_outage(postgres_database: PostgresDatabase) -> None:
    """While PostgreSQL is away samples wait, and afterwards every one of them is stored."""
    server = postgres_database.server

    async def scenario() -> None:
        await migrate(postgres_database)
        async with running(postgres_database, Vm()) as (service, context):
            await until(service, lambda status: status.stored >= 1)
            await asyncio.to_thread(server.kill)
            waiting = await until(service, lambda status: status.pending >= 3)
            assert waiting.reason.startswith("samples are not stored: ")
            await until(service, lambda _: context.health.state is HealthState.DEGRADED)

            await asyncio.to_thread(server.start)
            back = await until(service, lambda status: status.pending == 0 and not status.reason)
            assert back.dropped == 0
            events = [name for name, _fields in context.events]
            assert events == ["workload:store-lost", "workload:store-recovered"]
            stored = back.stored

        assert rows(postgres_database, "SELECT count(*) FROM workload_samples")[0][0] >= stored

    run(scenario)


def test_restart_between_two_samples_goes_unnoticed(postgres_database: PostgresDatabase) -> None:
    """A server that is back by the next sample costs no sample and no word."""
    server = postgres_database.server

    async def scenario() -> None:
        await migrate(postgres_database)
        settings = from_wire(PostgresSettings, settings_of(postgres_database)["postgres"])
        store = SampleStore(settings, node_id="n", timeout_s=5.0)
        await store.write([sample_at(1.0)])
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await store.write([sample_at(2.0)])
        await store.close()

    run(scenario)

    assert rows(postgres_database, "SELECT count(*) FROM workload_samples") == [(2,)]


def test_waiting_samples_are_bounded(postgres_database: PostgresDatabase) -> None:
    """Over the limit the oldest waiting sample goes, and is counted."""

    async def scenario() -> None:
        settings: dict[str, Plain] = {"pending_max": 2}
        async with running(postgres_database, Vm(), **settings) as (service, context):
            status = await until(service, lambda status: status.dropped >= 2)

            assert status.pending == 2
            assert "has no table workload_samples yet" in context.health.reason

    run(scenario)


def test_a_write_ends_when_it_is_cancelled(postgres_database: PostgresDatabase) -> None:
    """At whatever point of its way, also where the server refuses it, and the next one works."""

    async def scenario() -> None:
        settings = from_wire(PostgresSettings, settings_of(postgres_database)["postgres"])
        store = SampleStore(settings, node_id="n", timeout_s=5.0)
        samples = [sample_at(1.0), sample_at(2.0)]
        for round_ in range(300):
            writing = asyncio.create_task(store.write(samples))
            await asyncio.sleep(round_ % 20 * 100e-6)
            writing.cancel()
            await asyncio.wait((writing,), timeout=DEADLINE_S)
            assert writing.done()
            assert writing.cancelled() or isinstance(writing.exception(), StoreUnavailableError)
        await migrate(postgres_database)
        await store.write(samples)
        await store.close()

    run(scenario)

    assert rows(postgres_database, "SELECT count(*) FROM workload_samples") == [(2,)]


def test_refused_connection_degrades(postgres_database: PostgresDatabase) -> None:
    """A wrong password, critical for the database component, only degrades this one."""
    locked = postgres_database.as_user("locked")

    async def scenario() -> None:
        async with running(locked, Vm()) as (service, context):
            await until(service, lambda status: bool(status.reason))
            await until(service, lambda _status: context.health.state is HealthState.DEGRADED)
            assert "refuses" in context.health.reason

    run(scenario)


def sample_at(time_s: float) -> WorkloadSample:
    """A sample of that moment."""
    reading = read_host()
    return WorkloadSample(time_s=time_s, host=sample_of(reading, reading), domains=())


def test_old_samples_are_deleted_in_batches(
    postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over the retention goes, in several batches; younger and foreign samples stay."""
    monkeypatch.setattr(storing, "DELETE_BATCH", 10)
    now_s = time.time()
    old = [sample_at(now_s - 9 * 86_400 + n) for n in range(35)]

    async def scenario() -> None:
        await migrate(postgres_database)
        settings = from_wire(PostgresSettings, settings_of(postgres_database)["postgres"])
        for node_id in ("node-001", "other"):
            store = SampleStore(settings, node_id=node_id, timeout_s=5.0)
            await store.write([*old, sample_at(now_s - 6 * 86_400)])
            await store.close()
        async with running(postgres_database, Vm()) as (service, _context):
            await until(service, lambda status: status.stored >= 2)

    run(scenario)

    query = "SELECT node_id, count(*) FROM workload_samples WHERE time < now() - interval '1 hour'"
    assert sorted(rows(postgres_database, f"{query} GROUP BY node_id")) == [
        ("node-001", 1),
        ("other", 36),
    ]


def test_repeated_write_stores_once(postgres_database: PostgresDatabase) -> None:
    """A write whose answer was lost is repeated without a second row."""

    async def scenario() -> None:
        await migrate(postgres_database)
        settings = from_wire(PostgresSettings, settings_of(postgres_database)["postgres"])
        store = SampleStore(settings, node_id="n", timeout_s=5.0)
        for _ in range(2):
            await store.write([sample_at(1.0), sample_at(2.0)])
        await store.close()

    run(scenario)

    assert rows(postgres_database, "SELECT count(*) FROM workload_samples") == [(2,)]


def test_locked_table_is_given_up(postgres_database: PostgresDatabase) -> None:
    """A statement that hangs ends with the store's timeout."""

    async def scenario() -> None:
        await migrate(postgres_database)
        settings = from_wire(PostgresSettings, settings_of(postgres_database)["postgres"])
        store = SampleStore(settings, node_id="n", timeout_s=0.3)
        blocker = postgres_database.connect()
        try:
            blocker.execute("BEGIN")
            blocker.execute("LOCK TABLE workload_samples")
            with pytest.raises(StoreUnavailableError, match="no answer"):
                await store.write([sample_at(1.0)])
        finally:
            blocker.close()
            await store.close()

    run(scenario)
