"""What the providers are told: plain records, from the configuration's section security.secrets.

A field that holds a credential of a provider is either the credential or a reference to a secret
of a local provider, as in the configuration.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocol.dataclass import dataclass as record
from protocol.dataclass import field as record_field


class VaultAuth(enum.Enum):
    """How we log in to Vault."""

    APPROLE = "approle"
    TOKEN = "token"  # noqa: S105 - the name of a method
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """How to reach HashiCorp Vault or OpenBao.

    Attributes:
        address: URL; "" where it is not used.
        namespace: of Vault Enterprise and OpenBao; "" for none.
        mount: of the key-value engine, version 2.
        auth, auth_mount: the login method and where it is mounted; "" for the method's own name.
        role_id, secret_id: of AppRole.
        token: for the method token.
        kubernetes_role, jwt_file: for the method kubernetes.
        ca_file: CA certificates of the server; "" for the system's.
    """

    address: str = ""
    namespace: str = ""
    mount: str = "secret"
    auth: VaultAuth = VaultAuth.APPROLE
    auth_mount: str = ""
    role_id: str = ""
    secret_id: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    kubernetes_role: str = ""
    jwt_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    ca_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """How to reach AWS Secrets Manager.

    Attributes:
        region: "" where it is not used.
        endpoint: URL of a private endpoint; "" for the region's own.
        access_key_id, secret_access_key: "" to find credentials as AWS's tools do: variables,
            shared files, container, instance role.
        ca_file: CA certificates of the endpoint; "" for the library's.
    """

    region: str = ""
    endpoint: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    ca_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings:
    """How to reach Azure Key Vault.

    Attributes:
        vault_url: such as ``https://name.vault.azure.net``; "" where it is not used.
        tenant_id, client_id, client_secret: of an application; an empty client secret means the
            host's managed identity, of which client_id then names one.
        authority: host of the login service.
        ca_file: CA certificates of both; "" for the library's.
    """

    vault_url: str = ""
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    authority: str = "login.microsoftonline.com"
    ca_file: str = ""


@record(frozen=True, slots=True, kw_only=True)
class SecretsSettings:
    """All providers, and the times.

    Attributes:
        directory: of the provider ``file``.
        credentials_directory: systemd's; "" where the node was started without.
        timeout_s: one request to a provider.
        boot_timeout_s: all attempts for all secrets, when the configuration is read.
        refresh_interval_s: how often each secret is asked for anew while the node runs.
        stale_s: for how long the last value counts while its provider is away.
    """

    directory: str = "/etc/novacron/secrets"
    credentials_directory: str = ""
    timeout_s: float = 5.0
    boot_timeout_s: float = 20.0
    refresh_interval_s: float = 300.0
    stale_s: float = 86400.0
    vault: VaultSettings = record_field(default_factory=VaultSettings)
    aws: AwsSettings = record_field(default_factory=AwsSettings)
    azure: AzureSettings = record_field(default_factory=AzureSettings)
