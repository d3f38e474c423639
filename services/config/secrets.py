"""The secrets that a configuration refers to, put in place before the tree is built.

``${secret:PROVIDER/NAME}`` stays a reference while the configuration is loaded, checked and shown,
so that none of these needs a provider. Only the process that prepares a node, or its reload,
fetches the values. Credentials of the providers themselves stay references, since a provider reads
them each time that it logs in.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from protocol.records import Plain
from services.config.errors import ConfigError, Problem, ProblemKind
from services.config.model import Config
from services.config.origins import BUILT_IN, Origin
from services.config.rules_secrets import attribute, secret_names
from services.security.secrets.errors import SecretError
from services.security.secrets.fetch import Fetched, fetch
from services.security.secrets.fingerprint import fingerprint
from services.security.secrets.model import SecretsPartSettings, SecretUse
from services.security.secrets.reference import SecretName
from services.security.secrets.registry import Providers
from services.security.secrets.settings import (
    AwsSettings,
    AzureSettings,
    SecretsSettings,
    VaultAuth,
    VaultSettings,
)


@dataclass(frozen=True, slots=True)
class WithSecrets:
    """A configuration whose values are all there.

    Attributes:
        config: with the values.
        part: what the security process is told of them; None where there are none.
    """

    config: Config
    part: SecretsPartSettings | None


def with_secrets(
    config: Config,
    origins: Mapping[str, Origin],
    environ: Mapping[str, str],
    *,
    providers: Providers | None = None,
    tell: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> WithSecrets:
    """Fetch all secrets and put them in place.

    Args:
        config: a valid configuration.
        origins: where each key was set, for errors.
        environ: variables of the process.
        providers: those of a test; None for the configured ones.
        tell: told what is waited for; None for the standard error stream.
        sleep: waits between attempts.

    Raises:
        ConfigError: a secret can't be had; lists every one of them.
    """
    names = secret_names(config)
    if not names:
        return WithSecrets(config, None)
    settings = secrets_settings(config, environ)
    providers = providers or Providers(settings, environ)
    found = fetch(
        names.values(),
        providers,
        timeout_s=settings.boot_timeout_s,
        attempt_s=settings.timeout_s,
        tell=tell or _tell,
        sleep=sleep,
    )
    # Not closed: a call that was left behind may hold a provider, and the process ends anyway.
    problems = [
        _problem(key, name, found[name].error, origins)
        for key, name in names.items()
        if found[name].secret is None
    ]
    if problems:
        raise ConfigError(problems)
    config, uses = _put_in_place(config, names, found)
    return WithSecrets(config, SecretsPartSettings(providers=settings, uses=uses))


def secrets_settings(config: Config, environ: Mapping[str, str]) -> SecretsSettings:
    """What the providers are told."""
    secrets = config.security.secrets
    vault, aws, azure = secrets.vault, secrets.aws, secrets.azure
    return SecretsSettings(
        directory=str(secrets.directory),
        credentials_directory=environ.get("CREDENTIALS_DIRECTORY", ""),
        timeout_s=secrets.timeout,
        boot_timeout_s=secrets.boot_timeout,
        refresh_interval_s=secrets.refresh_interval,
        stale_s=secrets.stale_for,
        vault=VaultSettings(
            address=vault.address or "",
            namespace=vault.namespace or "",
            mount=vault.mount,
            auth=VaultAuth(vault.auth.value),
            auth_mount=vault.auth_mount or "",
            role_id=vault.role_id or "",
            secret_id=_text(vault.secret_id),
            token=_text(vault.token),
            kubernetes_role=vault.kubernetes_role or "",
            jwt_file=str(vault.jwt_file),
            ca_file=_path(vault.ca_file),
        ),
        aws=AwsSettings(
            region=aws.region or "",
            endpoint=aws.endpoint or "",
            access_key_id=aws.access_key_id or "",
            secret_access_key=_text(aws.secret_access_key),
            ca_file=_path(aws.ca_file),
        ),
        azure=AzureSettings(
            vault_url=azure.vault_url or "",
            tenant_id=azure.tenant_id or "",
            client_id=azure.client_id or "",
            client_secret=_text(azure.client_secret),
            authority=azure.authority,
            ca_file=_path(azure.ca_file),
        ),
    )


def _put_in_place(
    config: Config, names: Mapping[str, SecretName], found: Mapping[SecretName, Fetched]
) -> tuple[Config, tuple[SecretUse, ...]]:
    uses = []
    for key, name in names.items():
        secret = found[name].secret
        assert secret is not None, "whoever has none was told of"
        config = _replaced(config, key.split("."), SecretStr(secret.value))
        print_ = fingerprint(str(name), secret.value)
        uses.append(SecretUse(key=key, name=str(name), fingerprint=print_))
    return config, tuple(uses)


def _problem(
    key: str, name: SecretName, error: SecretError | None, origins: Mapping[str, Origin]
) -> Problem:
    reason = "nothing" if error is None else error.message
    return Problem(
        ProblemKind.REFERENCE,
        origins.get(key, BUILT_IN),
        f"${{secret:{name}}}, which can't be had: {reason}",
        "a secret that its provider gives us",
        key,
    )


def _replaced(section: Plain, aliases: list[str], value: Plain) -> Plain:
    name = attribute(section, aliases[0])
    new = value if len(aliases) == 1 else _replaced(getattr(section, name), aliases[1:], value)
    return section.model_copy(update={name: new})


def _text(value: SecretStr | None) -> str:
    return "" if value is None else value.get_secret_value()


def _path(path: Path | None) -> str:
    return "" if path is None else str(path)


def _tell(sentence: str) -> None:
    # The process that reads the configuration has no log; its standard error is the node's.
    print(f"novacron: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - see above
