"""Azure Key Vault, through Microsoft's own library.

A name is the secret's name: letters, digits and dashes. ``#field`` takes a field of a secret that
is a JSON object. The library finds the login service from the vault's challenge, and checks that
the challenge is about this vault.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from services.security.secrets.errors import (
    PackageMissingError,
    ProviderUnavailableError,
    ProviderUnconfiguredError,
    RotationRefusedError,
    SecretDeniedError,
    SecretError,
    SecretMissingError,
    SecretUnusableError,
)
from services.security.secrets.provider import (
    Secret,
    field_of_json,
    json_object,
    make_secret,
    split_field,
)
from services.security.secrets.sealer import Sealer
from services.security.secrets.settings import AzureSettings

_NAME = re.compile(r"[0-9A-Za-z-]{1,127}")
_FORBIDDEN = (401, 403)


class AzureProvider:
    """Reads and writes secrets of one vault.

    Args:
        settings: where and as whom.
        client_secret: gives the current one; "" for the host's managed identity.
        timeout_s: of one request.
        clock_s: Unix time.
    """

    name = "azure"
    is_static = False

    def __init__(
        self,
        settings: AzureSettings,
        *,
        client_secret: Callable[[], str],
        timeout_s: float,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        try:
            import azure.core.exceptions
            import azure.identity
            import azure.keyvault.secrets
        except ImportError as exc:
            raise PackageMissingError(
                "Azure needs the packages azure-keyvault-secrets and azure-identity: "
                "pip install 'novacron[azure]'"
            ) from exc
        if not settings.vault_url:
            raise ProviderUnconfiguredError("security.secrets.azure.vaultUrl is not set")
        for name in ("azure", "msal"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._errors = azure.core.exceptions
        self._clock_s = clock_s
        options: dict[str, Any] = {  # Any: the library's keywords
            "connection_timeout": timeout_s,
            "read_timeout": timeout_s,
            "retry_total": 0,
        }
        if settings.ca_file:
            options["connection_verify"] = settings.ca_file
        self._settings, self._options = settings, options
        self._identity, self._client_class = azure.identity, azure.keyvault.secrets.SecretClient
        self._secret_source = client_secret
        self._sealer = Sealer()
        self._secret_digest = b""
        self._client: Any = None  # the library's class
        self._credential: Any = None  # the library's class

    def get(self, name: str) -> Secret:
        """The newest version that is enabled and valid now."""
        path, field = split_field(name)
        return self._secret(self._read(path), path, field)

    def rotate(self, name: str, value: str) -> Secret:
        """Set the secret, which makes a new version."""
        path, field = split_field(name)
        make_secret(value, where=name, version="new")
        text = value
        if field:
            document = json_object(self._read(path).value or "", where=path)
            text = json.dumps({**document, field: value})
        try:
            self._call(path, lambda: self._client.set_secret(path, text))
        except SecretDeniedError as exc:
            raise RotationRefusedError(exc.message) from exc
        return self.get(name)

    def health(self) -> str:
        """Ask for a secret that can't be there: whoever says so is well and knows us."""
        try:
            self._read("novacron-health-check")
        except SecretMissingError:
            return ""
        except SecretError as exc:
            return exc.message
        return ""

    def maintain(self) -> None:
        """The library renews its own tokens."""

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._credential.close()
            self._client = None

    def _connect(self) -> None:
        """Make a client, or another one once our own secret was replaced."""
        secret = self._secret_source()
        digest = self._sealer.digest(secret)
        if self._client is not None and digest == self._secret_digest:
            return
        self.close()
        self._secret_digest = digest
        self._credential = _credential(self._identity, self._settings, secret, self._options)
        self._client = self._client_class(
            self._settings.vault_url, self._credential, **self._options
        )

    def _read(self, path: str) -> Any:  # Any: the library's record
        if _NAME.fullmatch(path) is None:
            raise SecretMissingError(f"{path} is no name of Azure: letters, digits and dashes")
        return self._call(path, lambda: self._client.get_secret(path))

    def _secret(self, found: Any, path: str, field: str) -> Secret:  # Any: the library's record
        text, properties = found.value, found.properties
        not_before_s = _time_s(properties.not_before)
        if not_before_s is not None and not_before_s > self._clock_s():
            raise SecretUnusableError(f"{path} is not valid yet, by its own date")
        return make_secret(
            field_of_json(text or "", field, where=path) if field else text,
            where=f"{path}#{field}" if field else path,
            version=str(properties.version),
            created_s=_time_s(properties.created_on),
            expires_s=_time_s(properties.expires_on),
        )

    def _call(self, path: str, work: Callable[[], Any]) -> Any:  # Any: the library's records
        errors = self._errors
        self._connect()
        try:
            return work()
        except errors.ResourceNotFoundError as exc:
            raise SecretMissingError(f"Azure has no secret {path} in this vault") from exc
        except errors.ClientAuthenticationError as exc:
            raise SecretDeniedError(
                "Azure does not let us log in: tenantId, clientId or clientSecret is wrong, has "
                "run out, or this host has no managed identity"
            ) from exc
        except errors.HttpResponseError as exc:
            if exc.status_code in _FORBIDDEN:
                raise SecretDeniedError(f"Azure does not let us have {path}") from exc
            raise ProviderUnavailableError(f"Azure answers {exc.status_code} to {path}") from exc
        except (errors.AzureError, OSError) as exc:
            raise ProviderUnavailableError(
                f"Azure Key Vault does not answer: {type(exc).__name__}"
            ) from exc
        except ValueError as exc:  # the challenge is about another vault
            raise SecretDeniedError(
                "the vault's challenge is not about this vault: is vaultUrl right?"
            ) from exc


def _credential(
    identity: Any, settings: AzureSettings, client_secret: str, options: dict[str, Any]
) -> Any:  # Any: the library's classes
    if not client_secret:
        return identity.ManagedIdentityCredential(client_id=settings.client_id or None, **options)
    if not settings.tenant_id or not settings.client_id:
        raise ProviderUnconfiguredError(
            "security.secrets.azure.tenantId and clientId go with a clientSecret"
        )
    return identity.ClientSecretCredential(
        settings.tenant_id,
        settings.client_id,
        client_secret,
        authority=settings.authority,
        # The authority is ours to name; asking Microsoft's public cloud about it helps nobody.
        disable_instance_discovery=True,
        **options,
    )


def _time_s(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
