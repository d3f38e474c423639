"""API tokens in a real database: made, tried, revoked, and what happens without the database."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from protocol.errors import NovacronError, RemoteProtocolError
from protocol.messages.health import HealthState
from protocol.records import from_wire, to_wire
from services.data.errors import DatabaseUnavailableError
from services.security import tokens_part
from services.security.errors import (
    TokenRefusedError,
    TokensFullError,
    TokenUnknownError,
    TokenWrongError,
)
from services.security.token_model import Bearer, CreatedToken
from services.security.tokens import parse_token
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import Node, migrate, node, postgres_settings, run

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with the platform's schema."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    return postgres_database


async def made(found: Node, **body: object) -> CreatedToken:
    """A new token of an operator's."""
    request = {"name": "ci", "role": "operator", **body}
    return from_wire(CreatedToken, await found.call("token.create", request, "operator"))


async def tried(found: Node, text: str) -> Bearer:
    """Who the API is told the token's bearer is."""
    shown = parse_token(text)
    assert shown is not None
    return from_wire(Bearer, await found.call("token.verify", to_wire(shown), "api"))


def test_a_token_lets_in_until_it_is_revoked(database: PostgresDatabase, tmp_path: Path) -> None:
    """A revocation by one node is in force at the other's next look; the secret is kept nowhere."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    async def scenario() -> None:
        settings = postgres_settings(database)
        async with (
            node(tmp_path / "a", settings, node_id="a") as one,
            node(tmp_path / "b", settings, node_id="b") as two,
        ):
            created = await made(one)
            bearer = await tried(two, created.token)
            assert (bearer.name, bearer.role.value, bearer.id) == (
                "ci",
                "operator",
                created.entry.id,
            )

            await one.call("token.revoke", {"id": created.entry.id}, "operator")

            with pytest.raises(TokenRefusedError, match="revoked"):
                await tried(two, created.token)
            listed = await two.call("token.list", None, "operator")
            assert [(entry["id"], entry["state"]) for entry in listed] == [
                (created.entry.id, "revoked")
            ]
            told = [name for name, _ in one.context.events if name.startswith("token:")]
            assert told == ["token:created", "token:revoked"]
            secret = created.token.rpartition("_")[2]
            with database.connect() as connection:
                kept = connection.execute("SELECT api_tokens::text FROM api_tokens").fetchall()
            assert secret not in str(kept) + str(one.context.events)

    run(scenario())


def test_without_the_database_a_known_token_is_believed_for_a_while(
    database: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known ones are believed and the process says so; unknown ones are not; nor is anything long.

    Nothing can be made or revoked meanwhile, and what was to be revoked is believed no more.
    """

    async def scenario() -> None:
        settings = postgres_settings(database)
        async with node(tmp_path, settings) as found:
            known, unseen, doomed = [await made(found) for _ in range(3)]
            await tried(found, known.token)
            await tried(found, doomed.token)
            database.server.stop()
            try:
                assert (await tried(found, known.token)).name == "ci"
                assert found.context.health.state is not HealthState.HEALTHY
                assert "without the database" in str(found.context.health) or (
                    found.context.health.state is HealthState.UNHEALTHY
                )
                with pytest.raises(DatabaseUnavailableError):
                    await tried(found, unseen.token)
                with pytest.raises(DatabaseUnavailableError):
                    await made(found)
                with pytest.raises(DatabaseUnavailableError):
                    await found.call("token.revoke", {"id": doomed.entry.id}, "operator")
                with pytest.raises(DatabaseUnavailableError):
                    await tried(found, doomed.token)
                monkeypatch.setattr(tokens_part, "BELIEVED_S", 0.0)
                with pytest.raises(DatabaseUnavailableError):
                    await tried(found, known.token)
            finally:
                database.server.start()
            assert (await tried(found, unseen.token)).name == "ci"

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "x'); DROP TABLE api_tokens; --"},
    ],
)
def test_a_token_with_a_bad_name_is_refused(
    database: PostgresDatabase, tmp_path: Path, body: dict[str, object]
) -> None:
    """Names are words; nothing is kept of the others."""

    async def scenario() -> None:
        settings = postgres_settings(database)
        async with node(tmp_path, settings) as found:
            with pytest.raises(TokenWrongError):
                await made(found, **body)
            assert await found.call("token.list", None, "operator") == []

    run(scenario())


def test_bounds(
    database: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lifetime, role, number and ids have bounds, each with an error of its own."""

    async def scenario() -> None:
        settings = postgres_settings(database)
        async with node(tmp_path, settings) as found:
            for body in ({"lifetime_s": 1.0}, {"lifetime_s": 1e9}, {"role": "root"}, {"x": 1}):
                with pytest.raises(RemoteProtocolError):
                    await made(found, **body)
            with pytest.raises(TokenUnknownError):
                await found.call("token.revoke", {"id": "' OR 1=1"}, "operator")
            monkeypatch.setattr(tokens_part, "TOKENS_MAX", 1)
            await made(found)
            with pytest.raises(TokensFullError):
                await made(found)

    run(scenario())


def test_ended_tokens_are_forgotten_after_a_time(
    database: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended longer ago than tokens are kept goes when the next one is made."""

    async def scenario() -> None:
        settings = postgres_settings(database)
        async with node(tmp_path, settings) as found:
            old = await made(found)
            await found.call("token.revoke", {"id": old.entry.id}, "operator")
            monkeypatch.setattr(tokens_part, "KEPT_S", -1.0)
            new = await made(found)
            listed = await found.call("token.list", None, "operator")
            assert [entry["id"] for entry in listed] == [new.entry.id]

    run(scenario())


def test_the_connection_is_closed_when_nobody_asks(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """Between uses that are far apart no backend is held; an ended one is replaced unseen."""

    async def scenario() -> None:
        settings = postgres_settings(database)
        async with node(tmp_path, settings) as found:
            created = await made(found)
            with database.connect() as connection:
                ended = connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name LIKE '%% tokens'"
                ).fetchall()
            assert len(ended) == 1
            started = time.monotonic()
            assert (await tried(found, created.token)).name == "ci"
            assert time.monotonic() - started < 5.0

    run(scenario())


def test_errors_have_codes_of_their_own() -> None:
    """Whoever calls can tell the refusals apart."""
    kinds = (TokenRefusedError, TokensFullError, TokenUnknownError, TokenWrongError)
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(issubclass(kind, NovacronError) for kind in kinds)
