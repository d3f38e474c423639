"""Providers by name, made when they are first asked for: a library is loaded only where it is used.

Secrets that open a provider, such as AppRole's secret id, come from local providers and are read
each time that they are needed, so that they can be replaced while the node runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from services.security.secrets.deadline import Bounded
from services.security.secrets.environment import EnvironmentProvider
from services.security.secrets.errors import SecretReferenceError
from services.security.secrets.files import FileProvider
from services.security.secrets.provider import Provider, Secret, understood
from services.security.secrets.reference import SecretName, is_reference, parse_reference
from services.security.secrets.settings import SecretsSettings
from services.security.secrets.systemd import SystemdProvider

if TYPE_CHECKING:
    from services.security.secrets.vault_session import VaultSession


def session_of(provider: str) -> str:
    """What a provider shares a login, and so a thread at a time, with."""
    return "vault" if provider == "vault-api" else provider


class Providers:
    """The providers of one process; for one thread at a time per provider.

    Args:
        settings: of all of them.
        environ: variables of the process.
        given: providers that are there already, for tests.
    """

    def __init__(
        self,
        settings: SecretsSettings,
        environ: Mapping[str, str] = os.environ,
        given: Mapping[str, Provider] | None = None,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._made: dict[str, Provider] = dict(given or {})
        self._bounded: dict[str, Bounded] = {}
        self._session: VaultSession | None = None

    @property
    def made(self) -> Mapping[str, Provider]:
        """Those that have been used."""
        return dict(self._made)

    def provider(self, name: str) -> Provider:
        """The provider of that name, one of those in ``reference.PROVIDERS``.

        Raises:
            ProviderUnconfiguredError: its settings are missing.
            PackageMissingError: its library is not installed.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def bounded(self, name: str) -> Bounded:
        """Runs the provider's calls with a deadline."""
        shared = session_of(name)
        return self._bounded.setdefault(shared, Bounded(shared))

    def get(self, name: SecretName) -> Secret:
        """A secret, without a deadline of its own."""
        with understood(name.provider):
            return self.provider(name.provider).get(name.name)

    def rotate(self, name: SecretName, value: str) -> Secret:
        """Store a new value, without a deadline of its own."""
        with understood(name.provider):
            return self.provider(name.provider).rotate(name.name, value)

    def health(self, name: str) -> str:
        """How a provider says that it is."""
        with understood(name):
            return self.provider(name).health()

    def maintain(self, name: str) -> float | None:
        """Let a provider renew what runs out."""
        with understood(name):
            return self.provider(name).maintain()

    def close(self) -> None:
        """Let go of all providers."""
        for provider in self._made.values():
            provider.close()
        self._made.clear()
        self._session = None

    def _make(self, name: str) -> Provider:
        settings = self._settings
        if name == "env":
            return EnvironmentProvider(self._environ)
        if name == "systemd":
            directory = settings.credentials_directory
            return SystemdProvider(Path(directory) if directory else None)
        if name == "file":
            return FileProvider(Path(settings.directory))
        return self._make_remote(name)

    def _make_remote(self, name: str) -> Provider:
        settings, timeout_s = self._settings, self._settings.timeout_s
        if name == "aws":
            from services.security.secrets.aws import AwsProvider

            key = self._source(settings.aws.secret_access_key)
            return AwsProvider(settings.aws, secret_access_key=key, timeout_s=timeout_s)
        if name == "azure":
            from services.security.secrets.azure import AzureProvider

            key = self._source(settings.azure.client_secret)
            return AzureProvider(settings.azure, client_secret=key, timeout_s=timeout_s)
        if name not in ("vault", "vault-api"):
            raise SecretReferenceError(f"there is no provider {name!r:.40}")
        from services.security.secrets.vault import VaultApiProvider, VaultProvider

        session = self._vault_session()
        if name == "vault":
            return VaultProvider(session, settings.vault.mount)
        return VaultApiProvider(session)

    def _vault_session(self) -> VaultSession:
        """The login that both of Vault's providers use."""
        if self._session is None:
            from services.security.secrets.vault_session import VaultSession

            vault = self._settings.vault
            self._session = VaultSession(
                vault,
                secret_id=self._source(vault.secret_id),
                token=self._source(vault.token),
                timeout_s=self._settings.timeout_s,
            )
        return self._session

    def _source(self, text: str) -> Callable[[], str]:
        """What gives a provider's own credential, from the text of its setting."""
        if not is_reference(text):
            return lambda: text
        name = parse_reference(text)
        if not name.is_local:
            raise SecretReferenceError(
                f"{name} can't open another provider: refer to env, systemd or file"
            )
        return lambda: self.get(name).value
