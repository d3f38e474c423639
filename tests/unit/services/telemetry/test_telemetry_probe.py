"""Asking the tree for readiness, without a tree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from protocol.errors import RemoteCallError
from protocol.messages.health import HealthState
from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Verdict,
)
from protocol.records import Plain, to_wire
from services.telemetry.model import CheckResult, TelemetrySettings
from services.telemetry.probe import ReadinessProbe
from services.telemetry.reader import StatusReader
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

DEFAULTS = TelemetrySettings()
Handler = Callable[[Request], Awaitable[Plain]]


class Clock:
    """Monotonic seconds that stand still."""

    now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def status(*, database_pid: int | None = 10) -> Plain:
    """A node whose three checked components are healthy, or whose database has no process."""
    state = HealthState.HEALTHY if database_pid else HealthState.UNHEALTHY
    components = tuple(
        ComponentStatus(
            path=path,
            id=path.rpartition("/")[2],
            level="x",
            phase=3,
            failure="critical",
            kind="service",
            state=state if path == "data/database" else HealthState.HEALTHY,
            reason="" if state is HealthState.HEALTHY else "killed",
            pid=database_pid if path == "data/database" else 11,
        )
        for path in ("data/database", "data/cache", "core/dwcp/manager")
    )
    return to_wire(
        NodeStatus(
            schema=SCHEMA,
            verdict=Verdict.READY,
            reason="",
            platform=PlatformStatus(
                name="NovaCron",
                version="1",
                node_id="n",
                environment="embedded",
                roles=(),
                pid=1,
                state_dir="/s",
                started_s=0,
                uptime_s=1,
            ),
            phase=PhaseStatus(number=6, name="health", complete=True),
            components=components,
        )
    )


class Tree:
    """Peers that count what they are asked."""

    def __init__(self, *, database: Handler | None = None, database_pid: int | None = 10) -> None:
        self.status_calls = 0
        self.database_calls = 0
        self._database = database
        self._pid = database_pid

    async def status(self, request: Request) -> Plain:
        """The root's status."""
        self.status_calls += 1
        await asyncio.sleep(0)
        return status(database_pid=self._pid)

    async def database(self, request: Request) -> Plain:
        """The database's own answer."""
        self.database_calls += 1
        return {"is_connected": True} if self._database is None else await self._database(request)


async def fine(request: Request) -> Plain:
    """A component that answers."""
    return {}


def make(tree: Tree, clock: Clock, settings: TelemetrySettings = DEFAULTS) -> ReadinessProbe:
    """A probe of that tree."""
    context = MemoryServiceContext(
        path="telemetry",
        peers={
            "novacron": {"status": tree.status},
            "data/database": {"database.status": tree.database},
            "data/cache": {"cache.status": fine},
            "core/dwcp/manager": {"dwcp.status": fine},
        },
    )
    reader = StatusReader(context, clock=clock)
    return ReadinessProbe(context, reader, settings, clock)


def results_of(found: tuple[object, tuple[CheckResult, ...]]) -> dict[str, CheckResult]:
    """The results by name."""
    return {item.name: item for item in found[1]}


def test_healthy_node_passes_all_checks() -> None:
    """Three healthy components give three healthy checks."""
    found = asyncio.run(make(Tree(), Clock()).run())

    assert {item.status for item in found[1]} == {"healthy"}


def test_many_probes_at_once_ask_once() -> None:
    """Probes that arrive together share one round of questions."""
    tree = Tree()

    async def scenario() -> None:
        probe = make(tree, Clock())
        await asyncio.gather(*(probe.run() for _ in range(50)))

    asyncio.run(scenario())

    assert (tree.status_calls, tree.database_calls) == (1, 1)


def test_finding_is_reused_for_a_second_and_no_longer() -> None:
    """The next round of questions comes when the last one is a second old."""
    tree, clock = Tree(), Clock()
    asked: list[int] = []

    async def scenario() -> None:
        probe = make(tree, clock)
        for step_s in (0.0, 0.99, 0.01):
            clock.now_s += step_s
            await probe.run()
            asked.append(tree.database_calls)

    asyncio.run(scenario())

    assert asked == [1, 1, 2]


def test_caller_that_gives_up_does_not_spoil_the_round() -> None:
    """A probe whose client has gone leaves the answer to the others."""
    tree = Tree()

    async def scenario() -> int:
        probe = make(tree, Clock())
        first = asyncio.create_task(probe.run())
        second = asyncio.create_task(probe.run())
        await asyncio.sleep(0)
        first.cancel()
        return len((await second)[1])

    assert asyncio.run(scenario()) == 3


def test_hung_database_fails_within_the_deadline() -> None:
    """A database process that answers nobody makes its check fail when the time is up."""

    async def hang(request: Request) -> Plain:
        await asyncio.Event().wait()

    settings = TelemetrySettings(probe_timeout_s=0.11)
    found = asyncio.run(make(Tree(database=hang), Clock(), settings).run())

    assert results_of(found)["database"].status == "unhealthy"
    assert "did not answer" in results_of(found)["database"].error


def test_dead_database_is_not_asked() -> None:
    """The root knows that the process is gone; nobody waits for it."""
    tree = Tree(database_pid=None)

    found = asyncio.run(make(tree, Clock()).run())

    assert tree.database_calls == 0
    assert results_of(found)["database"] == CheckResult("database", "unhealthy", "killed")


def test_database_that_fails_is_unhealthy() -> None:
    """The component's own error is the check's."""

    async def fail(request: Request) -> Plain:
        raise RemoteCallError("pool is closed", remote_code="data.database_unavailable")

    found = asyncio.run(make(Tree(database=fail), Clock()).run())

    assert results_of(found)["database"].error == "pool is closed"


def test_missing_part_is_disabled() -> None:
    """A node without DWCP still has the key, and passes."""
    found = asyncio.run(make(Tree(), Clock(), TelemetrySettings(dwcp_enabled=False)).run())

    assert results_of(found)["dwcp"] == CheckResult("dwcp", "disabled")


def test_silent_root_is_in_the_reading() -> None:
    """Without an answer of the root all checks fail, with its silence as the reason."""

    async def scenario() -> tuple[str, set[str]]:
        context = MemoryServiceContext(path="telemetry")
        reader = StatusReader(context)
        reading, results = await ReadinessProbe(context, reader, TelemetrySettings()).run()
        return reading.error, {item.status for item in results}

    error, states = asyncio.run(scenario())

    assert error.startswith("the root supervisor did not answer")
    assert states == {"unhealthy"}
