"""The database's role, its rotation, and the part that checks credentials, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from protocol.messages.health import HealthState
from protocol.records import Plain
from services.data.errors import DatabaseRefusedError
from services.data.model import PostgresSettings
from services.data.postgres import connect
from services.security.credential_role import check_role
from services.security.credentials_model import Severity, TlsFiles, TlsUse
from services.security.credentials_part import METRIC_EXPIRY, CredentialsPart
from services.security.errors import CredentialError
from services.security.model import SecuritySettings
from services.security.parts import Level, end
from services.security.secrets.errors import RotationRefusedError
from services.security.secrets.fingerprint import fingerprint
from services.security.secrets.model import SecretsPartSettings, SecretUse
from services.security.secrets.role_password import change_role_password
from services.security.secrets.settings import SecretsSettings
from services.security.secrets_part import SecretsPart
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.fixtures.issued_certificates import DAY, authority, issue

pytestmark = pytest.mark.postgres
PASSWORD = "right"


@pytest.fixture
def locked(postgres_database: PostgresDatabase) -> Iterator[PostgresSettings]:
    """A role that needs its password, which is as before afterwards."""
    yield settings_of(postgres_database, "locked", PASSWORD)
    with postgres_database.connect() as connection:
        connection.execute("ALTER ROLE locked PASSWORD 'right' VALID UNTIL 'infinity'")


def settings_of(database: PostgresDatabase, user: str, password: str = "") -> PostgresSettings:
    """How to reach a database as a role."""
    return PostgresSettings(
        host=database.host, database=database.name, user=user, password=password, ssl_mode="prefer"
    )


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario in bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(30.0):
            await scenario()

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a part does."""
    while not condition():  # noqa: ASYNC110 - the part's own tasks
        await asyncio.sleep(0.01)


class Bench:
    """What a part is given, and what it does."""

    def __init__(self, directory: Path, postgres: PostgresSettings, **settings: Any) -> None:
        self.context = MemoryServiceContext(path="security")
        self.tasks: list[asyncio.Task[None]] = []
        self.level = Level(
            context=self.context,
            settings=SecuritySettings(
                state_dir=str(directory), node_id="node", postgres=postgres, **settings
            ),
            directory=directory / "security",
            on_change=lambda: None,
            start=self._start,
        )

    def events(self, name: str) -> list[dict[str, Plain]]:
        """The fields of the events of that name."""
        return [fields for event, fields in self.context.events if event == name]

    async def end(self) -> None:
        """Stop the work."""
        for task in self.tasks:
            await end(task)

    def _start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]


async def call(part: Any, method: str, body: Plain = None) -> Any:
    """Call a part as the runtime would."""
    return await part.calls()[method](Request("operator", method, body, 10.0))


def test_a_role_that_is_no_more_than_it_has_to_be(locked: PostgresSettings) -> None:
    """Nothing is found; its password has no end."""

    async def scenario() -> None:
        found = await check_role(locked, application="test", now_s=time.time())
        assert (found.subject, found.expires_s, found.findings) == ("locked", None, ())

    run(scenario)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("VALID UNTIL 'tomorrow'", "expires_in_7d"),
        ("VALID UNTIL 'infinity' CREATEROLE", "rights"),
    ],
)
def test_a_role_with_an_end_or_more_rights(
    postgres_database: PostgresDatabase,
    locked: PostgresSettings,
    statement: str,
    code: str,
) -> None:
    """VALID UNTIL is the password's end; what else a role may is told."""

    async def scenario() -> None:
        # Noon before the end of tomorrow is between one and seven days ahead of it.
        now_s = time.time() - 3 * 86400 if code == "expires_in_7d" else time.time()
        found = await check_role(locked, application="test", now_s=now_s)
        assert [(it.code, it.severity) for it in found.findings] == [(code, Severity.WARNING)]

    with postgres_database.connect() as connection:
        connection.execute(f"ALTER ROLE locked {statement}".encode())
    try:
        run(scenario)
    finally:
        with postgres_database.connect() as connection:
            connection.execute("ALTER ROLE locked NOCREATEROLE")


def test_a_superuser_is_told_but_for_the_nodes_own_server(
    postgres_database: PostgresDatabase,
) -> None:
    """A database elsewhere needs no superuser; the embedded one has no other role."""

    async def scenario() -> None:
        settings = settings_of(postgres_database, "novacron")
        found = await check_role(settings, application="test", now_s=time.time())
        assert [it.code for it in found.findings] == ["superuser"]
        own = replace(settings, create_database=True)
        found = await check_role(own, application="test", now_s=time.time())
        assert found.findings == ()

    run(scenario)


def test_a_password_that_counts_no_more(locked: PostgresSettings) -> None:
    """A refused login degrades, with the server's reason."""

    async def scenario() -> None:
        wrong = replace(locked, password="wrong")
        found = await check_role(wrong, application="test", now_s=time.time())
        (finding,) = found.findings
        assert (finding.code, finding.severity) == ("refused", Severity.DEGRADED)
        assert "wrong" not in finding.message.replace("wrong password", "")

    run(scenario)


def test_a_password_is_changed_under_an_open_connection(
    postgres_database: PostgresDatabase, locked: PostgresSettings
) -> None:
    """Whoever is connected stays; the server sees a verifier and never the password."""

    async def scenario() -> None:
        open_one = await connect(locked, application="test")
        with postgres_database.connect() as admin:
            admin.execute("ALTER SYSTEM SET log_statement = 'all'")
            admin.execute("SELECT pg_reload_conf()")
        new = "a new one' -- \\ with everything"
        await change_role_password(locked, old=PASSWORD, new=new, application="test")
        await open_one.execute("SELECT 1")
        await open_one.close()
        fresh = await connect(replace(locked, password=new), application="test")
        await fresh.close()
        with pytest.raises(DatabaseRefusedError):
            await connect(locked, application="test")
        log = postgres_database.server._log_text()
        assert "ALTER ROLE" in log
        assert "with everything" not in log

    try:
        run(scenario)
    finally:
        with postgres_database.connect() as admin:
            admin.execute("ALTER SYSTEM RESET log_statement")
            admin.execute("SELECT pg_reload_conf()")


def rotation(tmp_path: Path, postgres: PostgresSettings) -> tuple[Bench, SecretsPart, Path]:
    """A part whose database password is in a file."""
    tmp_path.chmod(0o700)
    file = tmp_path / "db"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    use = SecretUse(
        key="database.postgres.password",
        name="file/db",
        fingerprint=fingerprint("file/db", PASSWORD),
    )
    secrets = SecretsPartSettings(providers=SecretsSettings(directory=str(tmp_path)), uses=(use,))
    bench = Bench(tmp_path, postgres, secrets=secrets)

    async def reload() -> None:
        bench.context.emit("test:reload")

    return bench, SecretsPart(bench.level, None, reload), file


def test_rotation_changes_provider_and_server(locked: PostgresSettings, tmp_path: Path) -> None:
    """The new password is in the provider, opens the database, and reloads the node."""

    async def scenario() -> None:
        bench, part, file = rotation(tmp_path, locked)
        part.begin()
        answer = await call(part, "secrets.rotate", {"name": "file/db"})
        assert answer["is_changed"]
        new = file.read_text()
        assert new != PASSWORD
        assert len(new) >= 43
        fresh = await connect(replace(locked, password=new), application="test")
        await fresh.close()
        await until(lambda: bench.events("test:reload"))
        assert new not in str(bench.context.events)
        await bench.end()
        await part.close()

    run(scenario)


def test_a_refused_rotation_leaves_both_as_they_were(
    locked: PostgresSettings, tmp_path: Path
) -> None:
    """Where the server does not take the new password, the provider gets the old one back."""

    async def scenario() -> None:
        _bench, part, file = rotation(tmp_path, replace(locked, user="nobody"))
        with pytest.raises(RotationRefusedError, match="has it again"):
            await call(part, "secrets.rotate", {"name": "file/db"})
        assert file.read_text() == PASSWORD
        await part.close()

    run(scenario)


def credentials(tmp_path: Path, postgres: PostgresSettings, **issued: Any) -> Bench:
    """A bench with the certificate of a server."""
    tmp_path.chmod(0o700)
    certificate, key = issue("node", authority(), **issued).write(tmp_path, "api")
    files = TlsFiles(name="api", use=TlsUse.SERVER, cert_file=str(certificate), key_file=str(key))
    return Bench(tmp_path, postgres, credentials=(files,))


def test_what_can_not_be_used_stops_the_start(locked: PostgresSettings, tmp_path: Path) -> None:
    """Every error in one sentence."""

    async def scenario() -> None:
        bench = credentials(tmp_path, locked)
        (tmp_path / "api.key").chmod(0o640)
        part = CredentialsPart(bench.level)
        with pytest.raises(CredentialError, match=r"others may read .*api.key \(mode 0640\)"):
            await part.open()
        await part.close()

    run(scenario)


def test_what_runs_out_is_told_ahead(locked: PostgresSettings, tmp_path: Path) -> None:
    """Warning, then degraded on the last day; in the list, in events, as a metric."""

    async def scenario() -> None:
        now_s = time.time()
        bench = credentials(tmp_path, locked, end=20 * DAY)
        part = CredentialsPart(bench.level, clock_s=lambda: now_s)
        step = await part.open()
        assert (step["checked"], step["findings"]) == (2, 1)
        assert part.health().state is HealthState.HEALTHY
        (expiring,) = bench.events("credential:expiring")
        assert (expiring["credential"], expiring["code"]) == ("api", "expires_in_30d")
        sample = next(it for it in bench.context.samples if it.name == METRIC_EXPIRY)
        assert sample.labels == {"credential": "api"}
        assert sample.value == pytest.approx(20 * 86400, abs=10)

        now_s += 19.5 * 86400
        found = await call(part, "credentials.check")
        api = next(it for it in found["credentials"] if it["name"] == "api")
        assert [it["code"] for it in api["findings"]] == ["expires_in_1d"]
        assert part.health().state is HealthState.DEGRADED
        assert len(bench.events("credential:expiring")) == 2
        now_s += 86400
        await call(part, "credentials.check")
        assert "has run out" in part.health().reason
        await part.close()

    run(scenario)


def test_a_replaced_certificate_is_seen_at_once(locked: PostgresSettings, tmp_path: Path) -> None:
    """A renewal ends the warning; a broken one degrades and leaves the node running."""

    async def scenario() -> None:
        bench = credentials(tmp_path, locked, end=20 * DAY)
        part = CredentialsPart(bench.level, look_period_s=0.02)
        await part.open()
        part.begin()
        issue("node", authority()).write(tmp_path, "api")
        await until(lambda: bench.events("credential:valid"))
        assert bench.events("credential:replaced") == [{"credential": "api"}]

        (tmp_path / "api.key").write_text("no key")
        await until(lambda: part.health().state is HealthState.DEGRADED)
        assert "no private key" in part.health().reason
        assert not any(task.done() for task in bench.tasks)
        await bench.end()
        await part.close()

    run(scenario)


def test_the_password_is_tried_again_while_the_node_runs(
    postgres_database: PostgresDatabase, locked: PostgresSettings, tmp_path: Path
) -> None:
    """Somebody changed it at the server alone: degraded before the next reconnection needs it."""

    async def scenario() -> None:
        bench = Bench(tmp_path, locked)
        part = CredentialsPart(bench.level)
        await part.open()
        with psycopg.connect(postgres_database.dsn, autocommit=True) as admin:
            admin.execute("ALTER ROLE locked PASSWORD 'other'")
        await call(part, "credentials.check")
        assert part.health().state is HealthState.DEGRADED
        await part.close()

    run(scenario)
