"""Fetching all secrets of a configuration: retries, deadlines, and all errors at once."""

from __future__ import annotations

import pytest

from services.security.secrets.errors import (
    PackageMissingError,
    ProviderUnavailableError,
    ProviderUnconfiguredError,
    SecretMissingError,
    SecretReferenceError,
)
from services.security.secrets.fetch import fetch
from services.security.secrets.memory import MemoryProvider
from services.security.secrets.reference import SecretName, parse_name
from services.security.secrets.registry import Providers
from services.security.secrets.settings import (
    AwsSettings,
    AzureSettings,
    SecretsSettings,
    VaultSettings,
)

DB = SecretName("vault", "db")
REDIS = SecretName("vault", "redis")


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.on_sleep = lambda: None

    def now(self) -> float:
        """The time."""
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        """Let time pass."""
        self.now_s += pause_s
        self.on_sleep()


def run(provider: MemoryProvider, clock: Clock, told: list[str] | None = None):
    """Fetch both secrets with ten seconds in all."""
    providers = Providers(SecretsSettings(), {}, {"vault": provider})
    return fetch(
        [DB, REDIS, DB],
        providers,
        timeout_s=10.0,
        attempt_s=2.0,
        tell=(told if told is not None else []).append,
        now_s=clock.now,
        sleep=clock.sleep,
    )


def test_each_is_fetched_once() -> None:
    """Two keys with one reference cost one request."""
    provider = MemoryProvider(values={"db": "one", "redis": "two"})

    found = run(provider, Clock())

    assert {name: it.secret.value for name, it in found.items()} == {DB: "one", REDIS: "two"}
    assert provider.reads == 2


def test_what_may_pass_is_tried_again() -> None:
    """A provider that comes back in time costs pauses, and the operator is told once."""
    provider, clock, told = MemoryProvider(values={"db": "one", "redis": "two"}), Clock(), []
    provider.unavailable = "sealed"

    def come_back() -> None:
        if clock.now_s > 103:
            provider.unavailable = ""

    clock.on_sleep = come_back

    found = run(provider, clock, told)

    assert all(it.secret is not None for it in found.values())
    assert told == ["waiting for the secret vault/db: sealed"]


def test_time_is_bounded_for_all_together() -> None:
    """A provider that stays away costs its time once; each secret has an error."""
    provider, clock = MemoryProvider(), Clock()
    provider.unavailable = "away"

    found = run(provider, clock)

    assert clock.now_s <= 110.0
    assert all(isinstance(it.error, ProviderUnavailableError) for it in found.values())


def test_what_does_not_pass_is_told_at_once() -> None:
    """A missing secret is not waited for, and does not keep the others from being read."""
    provider, clock = MemoryProvider(values={"redis": "two"}), Clock()

    found = run(provider, clock)

    assert isinstance(found[DB].error, SecretMissingError)
    assert found[REDIS].secret is not None
    assert clock.now_s == 100.0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("vault/x", "vault.address"), ("aws/x", "aws.region"), ("azure/x", "azure.vaultUrl")],
)
def test_a_provider_without_settings_names_the_key(name: str, sentence: str) -> None:
    """Whoever refers to a provider and does not configure it is told which key is missing."""
    with pytest.raises(ProviderUnconfiguredError, match=sentence):
        Providers(SecretsSettings(), {}).get(parse_name(name))


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("vault/x", "hvac", "vault"), ("aws/x", "botocore", "aws"), ("azure/x", "azure", "azure")],
)
def test_a_missing_library_names_the_extra(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install."""
    import sys

    for loaded in [it for it in sys.modules if it == module or it.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    settings = SecretsSettings(
        vault=VaultSettings(address="http://127.0.0.1:1"),
        aws=AwsSettings(region="x"),
        azure=AzureSettings(vault_url="https://x"),
    )

    with pytest.raises(PackageMissingError, match=rf"novacron\[{extra}\]"):
        Providers(settings, {}).get(parse_name(name))


def test_a_provider_is_not_opened_by_another_remote_one() -> None:
    """What opens a provider is local, or there would be a circle."""
    settings = SecretsSettings(
        vault=VaultSettings(address="http://127.0.0.1:1", role_id="r", secret_id="${secret:aws/x}")
    )

    with pytest.raises(SecretReferenceError, match="can't open another provider"):
        Providers(settings, {}).get(parse_name("vault/x"))


def test_credentials_do_not_show() -> None:
    """The settings' text has no credential in it."""
    settings = SecretsSettings(
        vault=VaultSettings(secret_id="hush", token="hush"),
        aws=AwsSettings(secret_access_key="hush"),
        azure=AzureSettings(client_secret="hush"),
    )

    assert "hush" not in repr(settings)
