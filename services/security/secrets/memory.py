"""The in-memory twin of a provider, for tests of what stands above it."""

from __future__ import annotations

from services.security.secrets.errors import (
    ProviderUnavailableError,
    SecretDeniedError,
    SecretMissingError,
)
from services.security.secrets.provider import Secret, make_secret


class MemoryProvider:
    """A provider in a dictionary.

    Args:
        name: as references name it.
        values: by secret name.

    Attributes:
        values: tests may change them; a changed value is a new version.
        unavailable: while not empty, every call fails with this reason.
        denied: names that are refused.
        expires_s: of every value; None for ever.
        reads: how often ``get`` was called, failures included.
    """

    is_static = False

    def __init__(self, name: str = "vault", values: dict[str, str] | None = None) -> None:
        self.name = name
        self.values = dict(values or {})
        self.unavailable = ""
        self.denied: set[str] = set()
        self.expires_s: float | None = None
        self.reads = 0
        self._versions: dict[str, tuple[str, int]] = {}

    def get(self, name: str) -> Secret:
        """The value and how often it has changed."""
        self.reads += 1
        if self.unavailable:
            raise ProviderUnavailableError(self.unavailable)
        if name in self.denied:
            raise SecretDeniedError(f"{name} is denied")
        if name not in self.values:
            raise SecretMissingError(f"there is no {name}")
        value = self.values[name]
        last, number = self._versions.get(name, ("", 0))
        if value != last:
            number += 1
            self._versions[name] = (value, number)
        return make_secret(value, where=name, version=str(number), expires_s=self.expires_s)

    def rotate(self, name: str, value: str) -> Secret:
        """Change the value."""
        self.get(name)
        self.values[name] = value
        return self.get(name)

    def health(self) -> str:
        """As ``unavailable`` says."""
        return self.unavailable

    def maintain(self) -> None:
        """Nothing runs out."""

    def close(self) -> None:
        """Nothing to let go of."""
