"""A secret that systemd hands to the unit: plain and encrypted, under a real systemd."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.fixtures.fix_node import wait_until
from tests.system.systemd_machine import PROGRAMS, Machine

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.netns]

VALUE = "credential-hush-5e1d"
VARIABLES = (
    "NOVACRON_ENVIRONMENT=embedded\n"
    "NOVACRON_NETWORK_BRIDGE_ENABLED=false\n"
    "NOVACRON_DATABASE_POSTGRES_PASSWORD=${secret:systemd/postgres}\n"
)
DROP_IN = "/etc/systemd/system/novacron.service.d/secrets.conf"
PLAIN = "[Service]\nLoadCredential=postgres:/etc/novacron/postgres.secret\n"
ENCRYPTED = "[Service]\nLoadCredentialEncrypted=postgres:/etc/novacron/postgres.cred\n"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine whose unit has no credential yet."""
    if os.geteuid() != 0:
        pytest.skip("only root may boot a system")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (package systemd-container)")
    found = Machine()
    try:
        found.boot(variables=VARIABLES)
        file = found.root / "etc/novacron/postgres.secret"
        file.write_text(f"{VALUE}\n")
        file.chmod(0o600)
        yield found
    finally:
        found.close()


def restart(machine: Machine, drop_in: str) -> str:
    """Restart the unit with a drop-in; returns its state."""
    path = machine.root / DROP_IN.lstrip("/")
    path.parent.mkdir(exist_ok=True)
    path.write_text(drop_in)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed", "novacron")
    machine.run("systemctl", "restart", "novacron", timeout_s=50.0)
    return machine.show("ActiveState")


def listed(machine: Machine) -> dict[str, object]:
    """What the node says of its only secret."""
    said = machine.run("/opt/novacron/bin/novacronctl", "secrets", "list", "--json")
    (secret,) = json.loads(said)["secrets"]
    return dict(secret)


def test_without_a_credential_the_start_says_what_is_missing(machine: Machine) -> None:
    """The unit fails with the line that has to be in it."""
    assert restart(machine, "[Service]\nRestart=no\n") != "active"
    assert "LoadCredential=postgres:PATH" in machine.log()


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_a_credential_of_the_unit_is_a_secret(machine: Machine, kind: str) -> None:
    """An unprivileged node reads what only root could; the value stands in no log."""
    if kind == "encrypted":
        said = machine.run(
            "systemd-creds",
            "encrypt",
            "--name=postgres",
            "/etc/novacron/postgres.secret",
            "/etc/novacron/postgres.cred",
        )
        assert (machine.root / "etc/novacron/postgres.cred").exists(), said

    state = restart(machine, PLAIN if kind == "plain" else ENCRYPTED)

    assert state == "active", machine.log()
    wait_until(lambda: listed(machine)["state"] == "fixed", "the secret is read")
    assert listed(machine)["name"] == "systemd/postgres"
    assert VALUE not in machine.log(500)
