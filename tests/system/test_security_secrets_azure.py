"""Azure's provider against a server that speaks the documented API over TLS, login included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

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
from services.security.secrets.settings import AzureSettings, SecretsSettings
from tests.fixtures.azure_double import CLIENT_ID, CLIENT_SECRET, TENANT, AzureDouble
from tests.fixtures.issued_certificates import authority, issue

pytestmark = pytest.mark.process


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureDouble]:
    """A vault and its login service."""
    issuer = authority()
    issuer.write(tmp_path, "ca")
    server = AzureDouble(issue("vault", issuer, hosts=("127.0.0.1",)).write(tmp_path, "vault"))
    yield server
    server.close()


def providers(azure: AzureDouble, directory: Path, **changes: str) -> Providers:
    """The configured provider."""
    settings = {
        "tenant_id": TENANT,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "authority": azure.authority,
        "ca_file": str(directory / "ca.pem"),
        **changes,
    }
    found = AzureSettings(vault_url=azure.url, **settings)
    return Providers(SecretsSettings(azure=found, timeout_s=2.0), {})


def test_the_newest_version_is_read_after_a_challenge(azure: AzureDouble, tmp_path: Path) -> None:
    """The vault asks for a token, the login service gives one, the vault gives the secret."""
    end_s = int(time.time()) + 86400
    azure.put("db", "old")
    azure.put("db", "hush\n", created=1772359200, exp=end_s)
    found = providers(azure, tmp_path)

    secret = found.get(parse_name("azure/db"))
    again = found.get(parse_name("azure/db"))

    assert (secret.value, secret.version) == ("hush\n", f"{2:032x}")
    assert (secret.created_s, secret.expires_s) == (1772359200.0, float(end_s))
    assert again == secret
    logins = [it for it in azure.asked if it.path.endswith("/token")]
    assert len(logins) == 1
    assert found.provider("azure").health() == ""
    found.close()


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("gone", SecretMissingError, "no secret gone"),
        ("no_name", SecretMissingError, "letters, digits and dashes"),
        ("forbidden", SecretDeniedError, "does not let us have forbidden"),
        ("early", SecretUnusableError, "not valid yet"),
        ("json#gone", SecretMissingError, "no field gone"),
        ("empty", SecretUnusableError, "empty"),
    ],
)
def test_what_is_not_there_is_told_apart(
    azure: AzureDouble, tmp_path: Path, name: str, error: type[SecretError], sentence: str
) -> None:
    """Missing, forbidden, not yet valid and empty are told apart."""
    azure.put("early", "hush", nbf=int(time.time()) + 3600)
    azure.put("json", '{"password": "hush"}')
    azure.put("empty", "")
    azure.forbidden.add("forbidden")
    found = providers(azure, tmp_path)

    with pytest.raises(error, match=sentence):
        found.get(parse_name(f"azure/{name}"))
    found.close()


def test_a_wrong_client_secret_is_told(azure: AzureDouble, tmp_path: Path) -> None:
    """The login service's refusal names the keys to look at."""
    found = providers(azure, tmp_path, client_secret="wrong")

    with pytest.raises(SecretDeniedError, match="clientSecret"):
        found.get(parse_name("azure/db"))
    assert "clientSecret" in found.provider("azure").health()
    found.close()


def test_a_client_secret_that_was_replaced_is_read_anew(azure: AzureDouble, tmp_path: Path) -> None:
    """The provider's own secret comes from a file; a new one makes a new login."""
    directory = tmp_path / "own"
    directory.mkdir(mode=0o700)
    file = directory / "client-secret"
    file.write_text(CLIENT_SECRET)
    file.chmod(0o600)
    settings = AzureSettings(
        vault_url=azure.url,
        tenant_id=TENANT,
        client_id=CLIENT_ID,
        client_secret="${secret:file/client-secret}",
        authority=azure.authority,
        ca_file=str(tmp_path / "ca.pem"),
    )
    found = Providers(SecretsSettings(azure=settings, directory=str(directory)), {})
    azure.put("db", "hush")
    found.get(parse_name("azure/db"))

    azure.client_secret = "another"
    azure.tokens.clear()
    file.write_text("another")

    assert found.get(parse_name("azure/db")).value == "hush"
    found.close()


def test_a_challenge_about_another_vault_is_refused(azure: AzureDouble, tmp_path: Path) -> None:
    """No token is sent to a server that claims to be part of something else."""
    azure.resource = "https://vault.azure.net"
    azure.put("db", "hush")
    found = providers(azure, tmp_path)

    with pytest.raises(SecretDeniedError, match="not about this vault"):
        found.get(parse_name("azure/db"))
    assert azure.tokens == set()
    found.close()


def test_rotation_sets_a_new_version(azure: AzureDouble, tmp_path: Path) -> None:
    """A field of an object leaves the others as they are."""
    azure.put("json", '{"user": "u", "password": "old"}')
    found = providers(azure, tmp_path)

    secret = found.provider("azure").rotate("json#password", "new")

    assert (secret.value, secret.version) == ("new", f"{2:032x}")
    assert azure.secrets["json"][-1][0] == '{"user": "u", "password": "new"}'
    found.close()


def test_a_vault_that_is_away_may_come_back(azure: AzureDouble, tmp_path: Path) -> None:
    """A closed port and a late answer are worth another try."""
    azure.put("db", "hush")
    found = providers(azure, tmp_path)
    found.get(parse_name("azure/db"))
    azure.delay_s = 3.0
    with pytest.raises(ProviderUnavailableError):
        found.get(parse_name("azure/db"))
    azure.close()

    with pytest.raises(ProviderUnavailableError):
        found.get(parse_name("azure/db"))
    found.close()
