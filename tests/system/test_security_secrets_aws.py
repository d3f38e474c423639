"""AWS's provider against moto's server, which speaks AWS's API over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest

from services.security.secrets.errors import (
    ProviderUnavailableError,
    SecretDeniedError,
    SecretError,
    SecretMissingError,
    SecretUnusableError,
)
from services.security.secrets.reference import parse_name
from services.security.secrets.registry import Providers
from services.security.secrets.settings import AwsSettings, SecretsSettings
from tests.fixtures.fix_node import free_ports, wait_until

pytestmark = pytest.mark.process
KEYS = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "key"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server of an account of its own."""
    port = free_ports(1)[0]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )
    url = f"http://127.0.0.1:{port}"
    client = new_client(url)

    def is_up() -> bool:
        try:
            client.list_secrets()
        except Exception:  # noqa: BLE001 - any error means: not yet
            return False
        return True

    try:
        wait_until(is_up, "moto's server", 20.0)
        yield url
    finally:
        client.close()
        server.terminate()
        server.wait(10.0)


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    """AWS's own client, to store what is read."""
    found = new_client(endpoint)
    yield found
    for secret in found.list_secrets()["SecretList"]:
        found.delete_secret(SecretId=secret["Name"], ForceDeleteWithoutRecovery=True)
    found.close()


def new_client(endpoint: str) -> Any:
    """A client with the right keys."""
    session = botocore.session.get_session()
    return session.create_client(
        "secretsmanager", region_name="eu-central-1", endpoint_url=endpoint, **KEYS
    )


def providers(endpoint: str, **changes: Any) -> Providers:
    """The configured provider."""
    settings = {"access_key_id": "AKIATEST", "secret_access_key": "key", **changes}
    aws = AwsSettings(region="eu-central-1", endpoint=endpoint, **settings)
    return Providers(SecretsSettings(aws=aws), {})


def test_the_current_version_is_read(endpoint: str, client: Any) -> None:
    """AWSCURRENT, with its id and date, from a plain secret and from a field of a JSON object."""
    client.create_secret(Name="novacron/db", SecretString="hush")
    client.create_secret(Name="both", SecretString=json.dumps({"user": "u", "password": "p\n"}))
    found = providers(endpoint)

    secret = found.get(parse_name("aws/novacron/db"))

    assert secret.value == "hush"
    assert len(secret.version) == 36
    assert secret.created_s == pytest.approx(time.time(), abs=60)
    assert found.get(parse_name("aws/both#password")).value == "p\n"
    assert found.provider("aws").health() == ""
    found.close()


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("gone", SecretMissingError, "no secret gone in eu-central-1"),
        ("both#gone", SecretMissingError, "no field gone"),
        ("plain#field", SecretUnusableError, "no JSON object"),
        ("binary", SecretUnusableError, "binary"),
        ("deleted", SecretMissingError, "no secret deleted"),
    ],
)
def test_what_is_not_there_is_told_apart(
    endpoint: str, client: Any, name: str, error: type[SecretError], sentence: str
) -> None:
    """Missing, deleted, binary and without the field are told; the content never is."""
    client.create_secret(Name="both", SecretString=json.dumps({"password": "hush"}))
    client.create_secret(Name="plain", SecretString="hush")
    client.create_secret(Name="binary", SecretBinary=b"hush")
    client.create_secret(Name="deleted", SecretString="hush")
    client.delete_secret(SecretId="deleted")
    found = providers(endpoint)

    with pytest.raises(error, match=sentence) as caught:
        found.get(parse_name(f"aws/{name}"))

    assert "hush" not in str(caught.value)
    client.restore_secret(SecretId="deleted")
    found.close()


def test_rotation_puts_a_version(endpoint: str, client: Any) -> None:
    """The new value is current, the old one previous, and other fields stay."""
    client.create_secret(Name="both", SecretString=json.dumps({"user": "u", "password": "old"}))
    found = providers(endpoint)

    secret = found.provider("aws").rotate("both#password", "new")

    stored = client.get_secret_value(SecretId="both")
    assert secret.value == "new"
    assert json.loads(stored["SecretString"]) == {"user": "u", "password": "new"}
    before = client.get_secret_value(SecretId="both", VersionStage="AWSPREVIOUS")
    assert json.loads(before["SecretString"])["password"] == "old"
    found.close()


def test_keys_are_needed(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys anywhere the error names the places where they may be."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    found = providers(endpoint, access_key_id="", secret_access_key="")

    with pytest.raises(SecretDeniedError, match="accessKeyId"):
        found.get(parse_name("aws/x"))
    found.close()


def test_a_server_that_is_away_may_come_back() -> None:
    """A refused connection is worth another try."""
    found = providers(f"http://127.0.0.1:{free_ports(1)[0]}")

    with pytest.raises(ProviderUnavailableError, match="EndpointConnectionError"):
        found.get(parse_name("aws/x"))
    assert "not answer" in found.provider("aws").health()
    found.close()
