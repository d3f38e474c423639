"""What a secret is, and what every provider of secrets can do.

A provider is blocking and may be slow: whoever uses one runs it in a thread with a deadline
(services.security.secrets.deadline). ``MemoryProvider`` in services.security.secrets.memory is
the twin for tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from services.security.secrets.errors import (
    ProviderUnavailableError,
    SecretMissingError,
    SecretUnusableError,
)

# A password, a key in PEM or a token; larger things are files and not secrets.
VALUE_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A value and what its provider says about it.

    Attributes:
        value: never shown; ``repr`` leaves it out.
        version: the provider's name for this state of the secret; changes with the value.
        created_s: Unix time at which this version was made; None where nobody says.
        expires_s: Unix time after which the value is of no use; None for never.
    """

    value: str = field(repr=False)
    version: str
    created_s: float | None = None
    expires_s: float | None = None


class Provider(Protocol):
    """A store of secrets.

    Every method may raise any SecretError of services.security.secrets.errors; ProviderUnavailable
    Error is the one after which the same call may succeed.
    """

    @property
    def name(self) -> str:
        """As references name it, such as ``vault``."""

    @property
    def is_static(self) -> bool:
        """Whether values stay the same for as long as the node runs."""

    def get(self, name: str) -> Secret:
        """The newest version of a secret."""

    def rotate(self, name: str, value: str) -> Secret:
        """Store a new version of a secret and return it.

        Raises:
            RotationRefusedError: this provider can't, or somebody else was quicker.
        """

    def health(self) -> str:
        """Ask the provider how it is; "" when it is well, else a sentence."""

    def maintain(self) -> float | None:
        """Renew what is ours and runs out: tokens, leases.

        Returns:
            Seconds until the next time; None when there is nothing to renew.
        """

    def close(self) -> None:
        """Let go of connections."""


def make_secret(
    value: object,
    *,
    where: str,
    version: str,
    created_s: float | None = None,
    expires_s: float | None = None,
) -> Secret:
    """A secret of what a provider answered.

    Args:
        value: what should be a text that can be a value.
        where: the secret, for errors.
        version: see Secret.
        created_s: see Secret.
        expires_s: see Secret.

    Raises:
        SecretUnusableError: it is no text, empty, too long, or holds a NUL, which neither
            PostgreSQL nor an environment can carry.
    """
    if not isinstance(value, str):
        raise SecretUnusableError(f"{where} holds a {type(value).__name__} and not a text")
    if not value:
        raise SecretUnusableError(f"{where} is empty")
    if "\0" in value:
        raise SecretUnusableError(f"{where} holds a NUL")
    size = len(value.encode("utf-8", "surrogateescape"))
    if size > VALUE_BYTES_MAX:
        raise SecretUnusableError(f"{where} has {size} bytes; at most {VALUE_BYTES_MAX}")
    return Secret(value=value, version=version, created_s=created_s, expires_s=expires_s)


@contextmanager
def understood(provider: str) -> Iterator[None]:
    """Take answers apart that came over a network: what is not as documented is no crash of ours.

    Raises:
        ProviderUnavailableError: a part of the answer is missing or of another type.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as exc:
        raise ProviderUnavailableError(
            f"{provider} answers something else than its API ({type(exc).__name__})"
        ) from exc


def split_field(name: str) -> tuple[str, str]:
    """The path and the field of ``path#field``; an empty field where none is named."""
    path, _, found = name.partition("#")
    return path, found


def field_of_json(text: str, name: str, *, where: str) -> object:
    """A field of a JSON object, which some providers keep several values in.

    Raises:
        SecretUnusableError: the text is no JSON object; the text itself is not told.
        SecretMissingError: the object has no such field.
    """
    document = json_object(text, where=where)
    if name not in document:
        raise SecretMissingError(f"{where} has no field {name}")
    return document[name]


def json_object(text: str, *, where: str) -> dict[str, object]:
    """A JSON object that a provider keeps several values in.

    Raises:
        SecretUnusableError: the text is none; the text itself is not told.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SecretUnusableError(f"{where} is no JSON object, so it has no fields")
    return document
