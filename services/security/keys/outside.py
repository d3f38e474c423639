"""The way from the configured source of the master key to the secret itself."""

from __future__ import annotations

import os

from protocol.errors import NovacronError
from services.security.errors import MasterKeyError
from services.security.keys.sources import (
    CREDENTIAL,
    SECRET,
    OutsideSource,
    ReadSecret,
    parse_source,
    read_credential,
)
from services.security.secrets.model import SecretsPartSettings


def outside_source(text: str, secrets: SecretsPartSettings | None) -> OutsideSource | None:
    """What gives the master key; None for the file in the state directory.

    Args:
        text: ``security.encryption.masterKey``.
        secrets: the providers' settings.

    Raises:
        MasterKeyError: the text names no source.
    """
    try:
        kind, name = parse_source(text)
    except ValueError as exc:
        raise MasterKeyError(f"security.encryption.masterKey is {text!r:.80}; {exc}") from exc
    if kind == CREDENTIAL:
        return OutsideSource(
            name, lambda one: read_credential(one, os.environ), what="the systemd credential"
        )
    if kind == SECRET:
        return OutsideSource(name, _secret_reader(secrets), what="the secret")
    return None


def _secret_reader(settings: SecretsPartSettings | None) -> ReadSecret:
    # Most nodes have a file, and the providers' modules cost memory.
    from services.security.secrets.errors import SecretMissingError
    from services.security.secrets.reference import parse_name
    from services.security.secrets.registry import Providers

    providers = Providers((settings or SecretsPartSettings()).providers)
    timeout_s = (settings or SecretsPartSettings()).providers.timeout_s

    def read(text: str) -> bytes | None:
        try:
            name = parse_name(text)
            bounded = providers.bounded(name.provider)
            return bounded.run(lambda: providers.get(name), timeout_s).value.encode()
        except SecretMissingError:
            return None
        except NovacronError as exc:
            if exc.retryable:
                raise
            raise MasterKeyError(f"the master key's secret {text}: {exc.message}") from exc

    return read
