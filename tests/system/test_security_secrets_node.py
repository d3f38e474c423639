"""A whole node with secrets in providers: where their values are, and where they are not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.fix_node import ROOT, Node, wait_until
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.fixtures.vault_double import ROLE_ID, SECRET_ID, VaultDouble

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.libvirt]

POSTGRES, REDIS, NEW = "postgres-hush-7f3a", "redis-hush-91bc", "redis-new-hush-44d0"
VALUES = (POSTGRES, REDIS, NEW, SECRET_ID)


@pytest.fixture
def vault() -> Iterator[VaultDouble]:
    """A server with Redis's password."""
    server = VaultDouble()
    server.put("novacron/redis", password=REDIS)
    yield server
    server.close()


@pytest.fixture
def secret_node(make_node: Callable[..., Node], vault: VaultDouble, tmp_path: Path) -> Node:
    """A node with one password in a file and one in Vault, whose login is in a file too."""
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o700)
    for name, value in (("postgres", POSTGRES), ("vault-id", SECRET_ID)):
        (directory / name).write_text(f"{value}\n")
        (directory / name).chmod(0o600)
    prefix = "NOVACRON_SECURITY_SECRETS"
    return make_node(
        NOVACRON_DATABASE_POSTGRES_PASSWORD="${secret:file/postgres}",
        NOVACRON_DATABASE_REDIS_PASSWORD="${secret:vault/novacron/redis#password}",
        **{
            f"{prefix}_DIRECTORY": str(directory),
            f"{prefix}_REFRESHINTERVAL": "1s",
            f"{prefix}_TIMEOUT": "1s",
            f"{prefix}_BOOTTIMEOUT": "2s",
            f"{prefix}_VAULT_ADDRESS": vault.url,
            f"{prefix}_VAULT_ROLEID": ROLE_ID,
            f"{prefix}_VAULT_SECRETID": "${secret:file/vault-id}",
        },
    )


def states(node: Node) -> dict[str, str]:
    """The state of each secret."""
    done = node.ctl("secrets", "list", "--json")
    return {it["name"]: it["state"] for it in json.loads(done.stdout)["secrets"]}


def wait_replaced(node: Node, path: str, pid: int | None) -> None:
    """Wait until a component has another process, which is healthy."""
    wait_until(lambda: node.component(path).pid not in (None, pid), f"another {path}", 20.0)
    node.wait_state(path, "healthy")


def assert_nowhere(node: Node, found: dict[str, str | bytes]) -> None:
    """No value stands in any of the texts, nor in what the node's files and processes show."""
    texts = dict(found)
    for pid in node.processes():
        for name in ("cmdline", "environ", "comm"):
            with contextlib.suppress(OSError):  # it has ended
                texts[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    for path in node.state_dir.rglob("*"):
        # The servers' own files are theirs; the audit log and all else below is ours.
        if path.is_file() and not {"postgres", "redis"} & set(
            path.relative_to(node.state_dir).parts
        ):
            texts[str(path)] = path.read_bytes()
    for name, text in texts.items():
        data = text if isinstance(text, bytes) else text.encode()
        for value in VALUES:
            assert value.encode() not in data, f"{value} in {name}"


def test_values_are_nowhere_to_be_seen(secret_node: Node, vault: VaultDouble) -> None:
    """Boot, rotation and a provider away: no log, process, answer or record shows a value."""
    node = secret_node.start()
    wait_until(lambda: set(states(node).values()) == {"fresh"}, "fresh secrets")
    found = dict.fromkeys(("file/postgres", "vault/novacron/redis#password"), "fresh")
    assert states(node) == found

    before = {it.path: it.pid for it in node.status().components}
    vault.put("novacron/redis", password=NEW)
    for path in ("data/cache", "security"):
        wait_replaced(node, path, before[path])
    wait_until(lambda: set(states(node).values()) == {"fresh"}, "fresh secrets")
    after = {it.path: it.pid for it in node.status().components}
    assert after["data/database"] == before["data/database"]
    vault.is_sealed = True
    wait_until(lambda: "stale" in states(node).values(), "a stale secret")
    node.wait_state("security", "degraded")
    checked = node.ctl("secrets", "check")
    assert checked.returncode == 1
    assert "sealed" in checked.stdout

    journal = node.call("novacron", "journal", {"limit": 500})
    config = subprocess.run(
        [str(ROOT / "bin/novacron"), "config", "show", "--environment", "embedded"],
        env=node.environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    assert "${secret:vault/novacron/redis#password}" in config
    answers = {
        "status": json.dumps(node.ctl("status", "--json").stdout),
        "list": node.ctl("secrets", "list").stdout,
        "check": checked.stdout + checked.stderr,
        "credentials": node.ctl("credentials").stdout,
        "journal": json.dumps(journal, default=str),
        "config": config,
        "output": node.output + node.errors,
    }
    changed = [it for it in journal["records"] if it["name"] == "secret:changed"]
    assert changed[0]["fields"]["version"] == "2"
    assert_nowhere(node, answers)
    vault.is_sealed = False
    node.wait_state("security", "healthy", 20.0)
    assert node.stop() == 0
    assert_nowhere(node, {"output": node.output + node.errors})


def test_a_variable_is_seen_in_the_root_alone(make_node: Callable[..., Node]) -> None:
    """The environment that a node is started with shows in no other process of it."""
    node = make_node(
        NOVACRON_DATABASE_POSTGRES_PASSWORD="${secret:env/DB_PASSWORD}", DB_PASSWORD=POSTGRES
    ).start()

    environments = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in node.processes()}

    assert {pid for pid, it in environments.items() if POSTGRES.encode() in it} == {node.pid}
    wait_until(lambda: states(node) == {"env/DB_PASSWORD": "fixed"}, "the secret")


def test_a_provider_that_is_away_at_boot_is_told(secret_node: Node, vault: VaultDouble) -> None:
    """The node waits for as long as it may, says for what, and ends with the reason."""
    vault.is_sealed = True

    assert secret_node.run_to_end() == 2

    assert "waiting for the secret vault/novacron/redis#password" in secret_node.errors
    assert "database.redis.password" in secret_node.errors
    assert "is sealed" in secret_node.errors
    assert SECRET_ID not in secret_node.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waiting_for_a_provider_can_be_ended(
    secret_node: Node, vault: VaultDouble, number: signal.Signals
) -> None:
    """A stop does not wait for a provider that may never come."""
    vault.is_sealed = True
    secret_node.environ["NOVACRON_SECURITY_SECRETS_BOOTTIMEOUT"] = "5m"
    secret_node.start(wait=False)
    wait_until(lambda: "waiting for the secret" in secret_node.errors, "the wait")

    started_s = time.monotonic()

    assert secret_node.stop(number) == 0
    assert time.monotonic() - started_s < 5.0


def test_a_reload_without_the_provider_changes_nothing(
    secret_node: Node, vault: VaultDouble
) -> None:
    """A refused reload leaves the node as it runs, and the journal says why."""
    node = secret_node.start()
    wait_until(lambda: set(states(node).values()) == {"fresh"}, "fresh secrets")
    pids = {it.path: it.pid for it in node.status().components}
    vault.is_sealed = True

    os.kill(node.pid, signal.SIGHUP)

    def refusal() -> list[dict[str, object]]:
        return [it for it in node.journal() if it["name"] == "node:reload-refused"]

    (refused,) = wait_until(refusal, "a refused reload")
    assert "sealed" in str(refused["fields"])
    assert {it.path: it.pid for it in node.status().components} == pids


def test_the_databases_password_is_rotated_under_a_running_node(
    make_node: Callable[..., Node], postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """One command: provider, server and node have another password, and the node works on."""
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o700)
    file = directory / "db"
    file.write_text("right")
    file.chmod(0o600)
    with postgres_database.connect() as admin:
        admin.execute(f'ALTER DATABASE "{postgres_database.name}" OWNER TO locked'.encode())
        admin.execute("ALTER SCHEMA public OWNER TO locked")
    try:
        node = make_node(
            fresh=True,
            NOVACRON_DATABASE_MODE="external",
            NOVACRON_DATABASE_POSTGRES_HOST=postgres_database.host,
            NOVACRON_DATABASE_POSTGRES_DATABASE=postgres_database.name,
            NOVACRON_DATABASE_POSTGRES_USER="locked",
            NOVACRON_DATABASE_POSTGRES_PASSWORD="${secret:file/db}",
            NOVACRON_SECURITY_SECRETS_DIRECTORY=str(directory),
        ).start()
        before = {it.path: it.pid for it in node.status().components}

        done = node.ctl("secrets", "rotate", "file/db", timeout_s=60.0)

        assert done.returncode == 0, done.stderr
        assert "what uses it is being restarted" in done.stdout
        new = file.read_text()
        assert new != "right"
        for path in ("data/database", "security"):
            wait_replaced(node, path, before[path])
        assert node.ctl("credentials").returncode == 0
        assert states(node) == {"file/db": "fresh"}
        known = {it.path: it.pid for it in node.status().components}
        unchanged = {path for path, pid in before.items() if known.get(path) == pid}
        assert {"telemetry", "data"} <= unchanged
        assert new not in node.output + node.errors + json.dumps(node.journal(), default=str)
        assert node.stop() == 0
    finally:
        with postgres_database.connect() as admin:
            admin.execute("ALTER ROLE locked PASSWORD 'right'")
