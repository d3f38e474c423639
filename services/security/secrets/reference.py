"""How a configuration names a secret: ``${secret:PROVIDER/NAME}``, as the whole value of a key.

The providers are ``env``, ``systemd``, ``file``, ``vault`` (key-value engine, version 2),
``vault-api`` (any path of Vault that can be read), ``aws`` and ``azure``. A name may end with
``#field`` where the provider keeps several fields in one secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.security.secrets.errors import SecretReferenceError

PROVIDERS = ("env", "systemd", "file", "vault", "vault-api", "aws", "azure")
# Those that need no network, and whose values may open the others.
LOCAL_PROVIDERS = ("env", "systemd", "file")
NAME_LENGTH_MAX = 512

_PREFIX, _SUFFIX = "${secret:", "}"
# What paths of Vault, names and ARNs of AWS, file names and variables are made of.
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@=+:/-]*(#[A-Za-z0-9_.@=+:-]+)?")


@dataclass(frozen=True, slots=True, order=True)
class SecretName:
    """Which secret of which provider; nothing of it is secret."""

    provider: str
    name: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}"

    @property
    def is_local(self) -> bool:
        """Whether it can be read without a network."""
        return self.provider in LOCAL_PROVIDERS


def is_reference(text: str) -> bool:
    """Tell whether a configuration value is meant to be a reference to a secret."""
    return text.startswith(_PREFIX)


def parse_reference(text: str) -> SecretName:
    """Read ``${secret:PROVIDER/NAME}``.

    Raises:
        SecretReferenceError: says what is wrong with it.
    """
    if not text.startswith(_PREFIX) or not text.endswith(_SUFFIX):
        raise SecretReferenceError("is not of the form ${secret:PROVIDER/NAME}, all of the value")
    return parse_name(text[len(_PREFIX) : -len(_SUFFIX)])


def parse_name(text: str) -> SecretName:
    """Read ``PROVIDER/NAME``.

    Raises:
        SecretReferenceError: says what is wrong with it.
    """
    provider, slash, name = text.partition("/")
    if not slash or provider not in PROVIDERS:
        raise SecretReferenceError(
            f"names no provider: it begins with one of {', '.join(PROVIDERS)} and a slash"
        )
    path = name.partition("#")[0]
    if (
        len(name) > NAME_LENGTH_MAX
        or _NAME.fullmatch(name) is None
        or any(part in ("", ".", "..") for part in path.split("/"))
    ):
        raise SecretReferenceError(
            f"names no secret of {provider}: letters, digits and _ . @ = + : / - with an optional "
            "#field, no empty parts and no dots alone"
        )
    return SecretName(provider, name)
