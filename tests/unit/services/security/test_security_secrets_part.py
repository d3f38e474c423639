"""The part that keeps an eye on secrets, over providers in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.health import HealthState
from protocol.records import Plain
from services.data.model import PostgresSettings
from services.security.model import SecuritySettings
from services.security.parts import Level, end
from services.security.secrets.errors import (
    RotationRefusedError,
    SecretDeniedError,
    SecretMissingError,
)
from services.security.secrets.fingerprint import fingerprint
from services.security.secrets.memory import MemoryProvider
from services.security.secrets.model import SecretsPartSettings, SecretUse
from services.security.secrets.registry import Providers
from services.security.secrets.settings import SecretsSettings
from services.security.secrets_part import METRIC_AGE, SecretsPart
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

DB, REDIS = "vault/db", "vault/redis"


class Bench:
    """A part, the provider below it, and what it did to the node."""

    def __init__(
        self, running: dict[str, str], *, reload_pause_s: float = 30.0, **times: float
    ) -> None:
        self.provider = MemoryProvider(values={"db": "one", "redis": "two"})
        self.reloads = 0
        self.context = MemoryServiceContext(path="security")
        self._tasks: list[asyncio.Task[None]] = []
        uses = tuple(
            SecretUse(key=key, name=name, fingerprint=fingerprint(name, running[name]))
            for key, name in (
                ("database.postgres.password", DB),
                ("database.redis.password", REDIS),
            )
        )
        settings = SecretsSettings(**{"timeout_s": 2.0, "refresh_interval_s": 0.05, **times})
        level = Level(
            context=self.context,
            settings=SecuritySettings(
                state_dir="/nonexistent",
                node_id="node",
                postgres=PostgresSettings(host="/nonexistent"),
                secrets=SecretsPartSettings(providers=settings, uses=uses),
            ),
            directory=Path("/nonexistent"),
            on_change=lambda: None,
            start=self._start,
        )
        providers = Providers(settings, {}, {"vault": self.provider})
        self.part = SecretsPart(level, providers, self._reload, reload_pause_s)

    async def call(self, method: str, body: Plain = None, caller: str = "data/database") -> Any:
        """Call the part as the runtime would."""
        handler: Any = self.part.calls()[method]
        return await handler(Request(caller, method, body, 5.0))

    def events(self, name: str) -> list[dict[str, Plain]]:
        """The fields of the events of that name."""
        return [fields for event, fields in self.context.events if event == name]

    async def end(self) -> None:
        """Stop the work."""
        for task in self._tasks:
            await end(task)
        await self.part.close()

    async def _reload(self) -> None:
        self.reloads += 1

    def _start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        self._tasks.append(asyncio.create_task(work, name=name))
        return self._tasks[-1]


@asynccontextmanager
async def bench(running: dict[str, str] | None = None, **times: float) -> AsyncIterator[Bench]:
    """A part that runs, on a node that runs with these values."""
    found = Bench(running or {DB: "one", REDIS: "two"}, **times)
    await found.part.open()
    found.part.begin()
    try:
        yield found
        assert not [task for task in found._tasks if task.done()]
    finally:
        await found.end()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario in bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(10.0):
            await scenario()

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the part does."""
    while not condition():  # noqa: ASYNC110 - its own tasks
        await asyncio.sleep(0.005)


async def listed(found: Bench) -> dict[str, dict[str, Any]]:
    """What the list says, by name."""
    answer = await found.call("secrets.list")
    return {it["name"]: it for it in answer["secrets"]}


def test_a_node_with_the_newest_values_is_left_alone() -> None:
    """Values that the node runs with are asked for, kept, and reload nothing."""

    async def scenario() -> None:
        async with bench() as found:
            await until(lambda: found.provider.reads >= 6)
            views = await listed(found)
            assert {name: view["state"] for name, view in views.items()} == {
                DB: "fresh",
                REDIS: "fresh",
            }
            assert views[DB]["keys"] == ["database.postgres.password"]
            assert found.reloads == 0
            assert found.part.health().state is HealthState.HEALTHY
            ages = [it for it in found.context.samples if it.name == METRIC_AGE]
            assert {it.labels["secret"] for it in ages} == {DB, REDIS}

    run(scenario)


def test_a_changed_value_reloads_the_node_once() -> None:
    """Until the reload has made another process of us, it is not asked for again and again."""

    async def scenario() -> None:
        async with bench() as found:
            await until(lambda: found.provider.reads >= 2)
            found.provider.values["db"] = "three"
            await until(lambda: found.reloads)
            reads = found.provider.reads
            await until(lambda: found.provider.reads > reads + 4)
            assert found.reloads == 1
            assert found.events("secret:changed") == [{"secret": DB, "version": "2"}]
            assert (await listed(found))[DB]["is_applied"] is False

    run(scenario)


def test_a_value_that_changed_while_we_were_down_is_seen() -> None:
    """The first answer is compared with what the node runs with."""

    async def scenario() -> None:
        async with bench({DB: "older", REDIS: "two"}) as found:
            await until(lambda: found.reloads)

    run(scenario)


def test_a_refused_reload_is_asked_for_again_and_said() -> None:
    """Whoever is still there after a reload was refused one: ever longer pauses, and degraded."""

    async def scenario() -> None:
        async with bench({DB: "older", REDIS: "two"}, reload_pause_s=0.05) as found:
            await until(lambda: found.reloads == 1)
            assert found.part.health().state is HealthState.HEALTHY
            await until(lambda: found.reloads == 3)
            health = found.part.health()
            assert health.state is HealthState.DEGRADED
            assert "an older value of vault/db: its reload was refused" in health.reason

    run(scenario)


def test_a_provider_that_is_away_degrades_and_restores() -> None:
    """Stale values are said in health, events and list, and forgotten when it is back."""

    async def scenario() -> None:
        async with bench() as found:
            await until(lambda: found.provider.reads >= 2)
            found.provider.unavailable = "sealed"
            await until(lambda: len(found.events("secret:unavailable")) == 2)
            health = found.part.health()
            assert health.state is HealthState.DEGRADED
            assert "secret vault/db is stale: sealed" in health.reason
            assert (await found.call("secrets.get", {"name": DB}))["value"] == "one"
            found.provider.unavailable = ""
            answer = await found.call("secrets.check")
            assert [(it["provider"], it["problem"]) for it in answer["providers"]] == [
                ("vault", "")
            ]
            await until(lambda: len(found.events("secret:restored")) == 2)
            assert found.part.health().state is HealthState.HEALTHY

    run(scenario)


def test_check_tells_what_is_wrong_now() -> None:
    """Each provider's health and each secret's state, asked at once."""

    async def scenario() -> None:
        async with bench(refresh_interval_s=300.0) as found:
            await until(lambda: found.provider.reads >= 2)
            found.provider.denied.add("db")
            answer = await found.call("secrets.check")
            states = {it["name"]: it["state"] for it in answer["secrets"]}
            assert states == {DB: "failed", REDIS: "fresh"}

    run(scenario)


def test_values_are_for_processes() -> None:
    """A person is refused, whatever a policy says; a name that is not configured is, too."""

    async def scenario() -> None:
        async with bench() as found:
            await until(lambda: found.provider.reads >= 2)
            for caller in ("operator", "operator/root"):
                with pytest.raises(SecretDeniedError):
                    await found.call("secrets.get", {"name": DB}, caller)
            with pytest.raises(SecretMissingError):
                await found.call("secrets.get", {"name": "vault/other"})

    run(scenario)


def test_rotation_to_the_newest_value() -> None:
    """What somebody changed in the provider is taken at once, and the node reloads."""

    async def scenario() -> None:
        async with bench(refresh_interval_s=300.0) as found:
            await until(lambda: found.provider.reads >= 2)
            found.provider.values["redis"] = "three"
            answer = await found.call("secrets.rotate", {"name": REDIS, "newest": True})
            assert answer == {"name": REDIS, "version": "2", "is_changed": True}
            await until(lambda: found.reloads)
            (rotated,) = found.events("secret:rotated")
            assert rotated["secret"] == REDIS

    run(scenario)


def test_rotation_without_a_change_does_nothing() -> None:
    """The answer says so, and the node goes on."""

    async def scenario() -> None:
        async with bench(refresh_interval_s=300.0) as found:
            await until(lambda: found.provider.reads >= 2)
            answer = await found.call("secrets.rotate", {"name": REDIS, "newest": True})
            assert answer["is_changed"] is False
            assert found.reloads == 0

    run(scenario)


def test_rotations_that_are_refused() -> None:
    """Only the database's password can be made anew; nothing changes at a refusal."""

    async def scenario() -> None:
        async with bench(refresh_interval_s=300.0) as found:
            await until(lambda: found.provider.reads >= 2)
            with pytest.raises(RotationRefusedError, match="--newest"):
                await found.call("secrets.rotate", {"name": REDIS})
            with pytest.raises(SecretMissingError):
                await found.call("secrets.rotate", {"name": "vault/other"})
            found.provider.unavailable = "sealed"
            with pytest.raises(SecretMissingError, match="sealed"):
                await found.call("secrets.rotate", {"name": REDIS, "newest": True})

    run(scenario)


def test_a_database_that_can_not_be_reached_leaves_the_password_as_it_was() -> None:
    """The provider gets the old value back when the server did not take the new one."""

    async def scenario() -> None:
        async with bench(refresh_interval_s=300.0) as found:
            await until(lambda: found.provider.reads >= 2)
            with pytest.raises(RotationRefusedError, match="has it again"):
                await found.call("secrets.rotate", {"name": DB})
            assert found.provider.values["db"] == "one"
            assert found.reloads == 0

    run(scenario)


def test_a_node_without_references_asks_for_nothing() -> None:
    """The part is there and does nothing."""
    context = MemoryServiceContext(path="security")
    level = Level(
        context=context,
        settings=SecuritySettings(
            state_dir="/nonexistent", node_id="node", postgres=PostgresSettings(host="/x")
        ),
        directory=Path("/nonexistent"),
        on_change=lambda: None,
        start=lambda _work, _name: pytest.fail("nothing is to be started"),
    )

    async def scenario() -> None:
        part = SecretsPart(level)
        assert await part.open() == {"count": 0, "providers": ""}
        part.begin()
        handler: Any = part.calls()["secrets.list"]
        assert await handler(Request("operator", "secrets.list", None, 5.0)) == {}
        await part.close()

    run(scenario)
