"""The keys of the providers of secrets; a part of services.config.model."""

import enum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from services.config.kinds import Directory, Duration, Expected, File, Password, Section

_TEXT = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:/+=-]{0,255}$")
Label = Annotated[str, _TEXT, Expected("1 to 256 letters, digits, . _ @ : / + = or -")]


def _url(text: str) -> str:
    """Take a URL of a server, without user, query or fragment, which would be lost or logged."""
    from urllib.parse import urlsplit

    parts = urlsplit(text)
    is_plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ValueError("no URL of a server")
    _ = parts.port  # raises for one that is no number
    return text


Url = Annotated[
    str, AfterValidator(_url), Expected("a URL such as https://vault.example.com:8200, or null")
]


class VaultAuthMethod(enum.Enum):
    """How the node logs in to Vault."""

    APPROLE = "approle"
    TOKEN = "token"  # noqa: S105 - the name of a method
    KUBERNETES = "kubernetes"


class Vault(Section):
    """HashiCorp Vault or OpenBao: ``${secret:vault/PATH#field}``."""

    address: Url | None = Field(default=None, description="URL of the server; null for none.")
    namespace: Label | None = Field(default=None, description="Namespace; null for none.")
    mount: Label = Field(default="secret", description="Mount of the key-value engine, version 2.")
    auth: VaultAuthMethod = Field(default=VaultAuthMethod.APPROLE, description="How to log in.")
    auth_mount: Label | None = Field(
        default=None, description="Mount of the login method; null for the method's own name."
    )
    role_id: Label | None = Field(default=None, description="Role id for approle.")
    secret_id: Password | None = Field(
        default=None, description="Secret id for approle, or a reference to a local secret."
    )
    token: Password | None = Field(
        default=None, description="Token for the method token, or a reference to a local secret."
    )
    kubernetes_role: Label | None = Field(default=None, description="Role for kubernetes.")
    jwt_file: File = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        description="Service account token for kubernetes.",
    )
    ca_file: File | None = Field(
        default=None, description="PEM file of the server's authorities; null for the system's."
    )


class Aws(Section):
    """AWS Secrets Manager: ``${secret:aws/NAME#field}``."""

    region: Label | None = Field(default=None, description="Region; null for none.")
    endpoint: Url | None = Field(
        default=None, description="URL of a private endpoint; null for the region's own."
    )
    access_key_id: Label | None = Field(
        default=None, description="Access key; null to search as AWS's own tools do."
    )
    secret_access_key: Password | None = Field(
        default=None, description="Its secret, or a reference to a local secret."
    )
    ca_file: File | None = Field(
        default=None, description="PEM file of the endpoint's authorities; null for the library's."
    )


class Azure(Section):
    """Azure Key Vault: ``${secret:azure/NAME#field}``."""

    vault_url: Url | None = Field(default=None, description="URL of the vault; null for none.")
    tenant_id: Label | None = Field(default=None, description="Tenant of the application.")
    client_id: Label | None = Field(
        default=None, description="Application, or the managed identity where there are several."
    )
    client_secret: Password | None = Field(
        default=None,
        description="Secret of the application, or a reference to a local secret; null for the "
        "host's managed identity.",
    )
    authority: Label = Field(
        default="login.microsoftonline.com", description="Host of the login service."
    )
    ca_file: File | None = Field(
        default=None, description="PEM file of their authorities; null for the library's."
    )


class Secrets(Section):
    """Where secrets are that the configuration refers to, and when they are read."""

    directory: Directory = Field(
        default=Path("/etc/novacron/secrets"),
        description="Directory of ``${secret:file/NAME}``.",
    )
    timeout: Duration = Field(
        default=5.0, ge=0.1, le=60, description="Time for one request to a provider."
    )
    boot_timeout: Duration = Field(
        default=20.0, ge=1, le=300, description="Time for all secrets together at start and reload."
    )
    refresh_interval: Duration = Field(
        default=300.0, ge=1, le=86400, description="Time after which a secret is read anew."
    )
    stale_for: Duration = Field(
        default=86400.0,
        ge=1,
        le=2592000,
        description="How long the last value counts while its provider is away.",
    )
    vault: Vault = Vault()
    aws: Aws = Aws()
    azure: Azure = Azure()
