"""The gateway's settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """What the tree builder hands to the gateway.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        cert_file, key_file: PEM files of the certificate chain and its key; "" for plain HTTP.
        client_ca_file: authorities whose client certificates are identities; "" for none.
        anonymous_role: what who shows nothing may do, from this host alone; "" refuses them.
        cors_enabled, allowed_origins: the origins whose pages may read answers; ``*`` for all.
        rate_limit_enabled, requests_per_minute: per identity, and per address of those without.
        body_bytes_max: of a request.
        call_timeout_s: for a component's answer to one question of the gateway.
        version: of the program, for the OpenAPI document.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    anonymous_role: str = ""
    cors_enabled: bool = False
    allowed_origins: tuple[str, ...] = ()
    rate_limit_enabled: bool = True
    requests_per_minute: int = 1000
    body_bytes_max: int = 1 << 20
    call_timeout_s: float = 3.0
    version: str = "0"

    def __post_init__(self) -> None:
        if self.requests_per_minute < 1 or self.body_bytes_max < 0 or self.call_timeout_s <= 0:
            raise ValueError("requests_per_minute and call_timeout_s are above 0")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        if self.client_ca_file and not self.cert_file:
            raise ValueError("client_ca_file takes cert_file and key_file")
