"""What the settings of the providers of secrets must fulfil together: rules of services.config."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from protocol.records import Plain
from services.config.keys import key_table
from services.config.kinds import Section
from services.config.model import Config
from services.config.model_secrets import VaultAuthMethod
from services.config.secret_reference import SecretReference
from services.security.secrets.reference import SecretName

# Keys that take a secret, and the key without which its provider is not there.
_NEEDED = {
    "vault": "security.secrets.vault.address",
    "vault-api": "security.secrets.vault.address",
    "aws": "security.secrets.aws.region",
    "azure": "security.secrets.azure.vaultUrl",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Below it the keys that open providers.
PROVIDERS_SECTION = "security.secrets."

Rule = tuple[tuple[str, ...], str]


def secret_rules(config: Config) -> Iterator[Rule]:
    """The rules that do not hold: keys that take part, and what is expected."""
    yield from _encrypted(config)
    yield from _local(config)
    yield from _login(config)
    yield from _there(config)


def secret_names(config: Config) -> dict[str, SecretName]:
    """The secrets that a configuration refers to, by dotted key, but for the providers' own."""
    found = {}
    for path, key in key_table().keys.items():
        value = _value(config, path) if key.is_secret else None
        if isinstance(value, SecretReference) and not path.startswith(PROVIDERS_SECTION):
            found[path] = value.name
    return found


def attribute(section: Section, alias: str) -> str:
    """The attribute of a section that files call by an alias."""
    fields = type(section).model_fields
    return next(name for name, field in fields.items() if field.alias == alias)


def _encrypted(config: Config) -> Iterator[Rule]:
    secrets = config.security.secrets
    for key, url in (
        ("security.secrets.vault.address", secrets.vault.address),
        ("security.secrets.aws.endpoint", secrets.aws.endpoint),
        ("security.secrets.azure.vaultUrl", secrets.azure.vault_url),
    ):
        parts = urlsplit(url or "https://unused")
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            yield (key,), "https, or a server of this host: secrets cross no network in the clear"


def _local(config: Config) -> Iterator[Rule]:
    secrets = config.security.secrets
    for key, value in (
        ("security.secrets.vault.secretId", secrets.vault.secret_id),
        ("security.secrets.vault.token", secrets.vault.token),
        ("security.secrets.aws.secretAccessKey", secrets.aws.secret_access_key),
        ("security.secrets.azure.clientSecret", secrets.azure.client_secret),
    ):
        if isinstance(value, SecretReference) and not value.name.is_local:
            yield (key,), "a secret of env, systemd or file: what opens a provider is not in one"


def _login(config: Config) -> Iterator[Rule]:
    vault, aws, azure = (getattr(config.security.secrets, it) for it in ("vault", "aws", "azure"))
    needed = {
        VaultAuthMethod.APPROLE: {"roleId": vault.role_id, "secretId": vault.secret_id},
        VaultAuthMethod.TOKEN: {"token": vault.token},
        VaultAuthMethod.KUBERNETES: {"kubernetesRole": vault.kubernetes_role},
    }
    if vault.address is not None:
        for name, value in needed[vault.auth].items():
            if value is None:
                keys = (f"security.secrets.vault.{name}", "security.secrets.vault.auth")
                yield keys, f"a {name}, which {vault.auth.value} logs in with"
    if (aws.access_key_id is None) != (aws.secret_access_key is None):
        section = "security.secrets.aws"
        yield (f"{section}.accessKeyId", f"{section}.secretAccessKey"), "both or neither"
    if azure.client_secret is not None and None in (azure.tenant_id, azure.client_id):
        section = "security.secrets.azure"
        names = ("clientSecret", "tenantId", "clientId")
        yield (
            tuple(f"{section}.{name}" for name in names),
            "tenantId and clientId with a clientSecret",
        )


def _there(config: Config) -> Iterator[Rule]:
    secrets = config.security.secrets
    present = {
        "security.secrets.vault.address": secrets.vault.address,
        "security.secrets.aws.region": secrets.aws.region,
        "security.secrets.azure.vaultUrl": secrets.azure.vault_url,
    }
    for key, name in secret_names(config).items():
        needed = _NEEDED.get(name.provider)
        if needed is not None and present[needed] is None:
            yield (key, needed), f"{needed}, since the value is in {name.provider}"


def _value(config: Section, path: str) -> Plain:
    value: Plain = config
    for alias in path.split("."):
        value = getattr(value, attribute(value, alias))
    return value
