"""What the operator should know about a configuration that is valid."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from protocol.records import Plain
from services.config.kinds import DatabaseMode
from services.config.model import Config, Platform
from services.config.origins import Origin

ENVIRONMENT_OF_ONE_HOST = "embedded"
# What is said to these stays on the host.
_OWN_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on a key; nothing is refused because of it."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"

    def plain(self) -> dict[str, Plain]:
        """The note for a machine."""
        return {"key": self.key, "text": self.text}


def notes_on(
    config: Config, origins: Mapping[str, Origin], literal_secrets: tuple[str, ...]
) -> tuple[Note, ...]:
    """Collect the notes.

    Args:
        config: a valid configuration.
        origins: where each key was set.
        literal_secrets: keys of secrets that stand in a file instead of being referred to.
    """
    return (
        *_absent_components(config),
        *_identity(config),
        *_exposure(config),
        *(
            Note(key, f"the secret stands in {origins[key]}; use ${{VARIABLE}} or the variable")
            for key in literal_secrets
        ),
    )


def _absent_components(config: Config) -> Iterator[Note]:
    dwcp = config.dwcp
    if not dwcp.enabled:
        return
    absent = "accepted, but this version has no {}: nothing of it is started"
    if dwcp.prediction.enabled:
        yield Note("dwcp.prediction.enabled", absent.format("bandwidth prediction"))
    if dwcp.consensus.enabled:
        yield Note("dwcp.consensus.enabled", absent.format("consensus between hosts"))
    if dwcp.transport.enable_rdma:
        yield Note("dwcp.transport.enableRDMA", absent.format("RDMA transport"))


def _identity(config: Config) -> Iterator[Note]:
    is_default = config.platform.node_id == Platform.model_fields["node_id"].default
    if is_default and config.environment != ENVIRONMENT_OF_ONE_HOST:
        text = f"{config.platform.node_id} is every node's default; give each host its own"
        yield Note("platform.nodeId", text)


def _exposure(config: Config) -> Iterator[Note]:
    if config.api.cors.enabled and config.api.cors.allowed_origins == ("*",):
        yield Note("api.cors.allowedOrigins", "* lets every web site's scripts use the API")
    redis = config.database.redis
    is_external = config.database.mode is DatabaseMode.EXTERNAL
    if is_external and not redis.tls.enabled and redis.host not in _OWN_HOSTS:
        text = f"false: password and cache go to {redis.host} over the network in the clear"
        yield Note("database.redis.tls.enabled", text)
    is_local = config.api.host == "localhost" or is_loopback(config.api.host)
    if not is_local and config.api.tls.cert_file is None:
        text = "tokens cross the network in the clear; set api.tls, or let a proxy end TLS here"
        yield Note("api.host", text)


def is_loopback(host: str) -> bool:
    """Whether a host is an address of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
