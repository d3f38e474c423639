"""Secrets in environment variables: the weakest place.

Whoever is root or the node's user can read them in /proc for as long as the root process runs;
its children overwrite theirs. They can't change, so a new value needs a new start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from services.security.secrets.errors import RotationRefusedError, SecretMissingError
from services.security.secrets.provider import Secret, make_secret


class EnvironmentProvider:
    """Reads variables.

    Args:
        environ: of the process.
    """

    name = "env"
    is_static = True

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str) -> Secret:
        """The content of the variable of that name."""
        if name not in self._environ:
            raise SecretMissingError(f"the variable {name} is not set in the node's environment")
        return make_secret(self._environ[name], where=f"the variable {name}", version="fixed")

    def rotate(self, name: str, value: str) -> Secret:  # noqa: ARG002 - the interface's
        """Refuse: nobody can change the environment of a process that runs."""
        raise RotationRefusedError(
            f"the variable {name} can't change while the node runs: set it and restart the node"
        )

    def health(self) -> str:
        """Always well."""
        return ""

    def maintain(self) -> None:
        """Nothing runs out."""

    def close(self) -> None:
        """Nothing to let go of."""


def content_version(value: str) -> str:
    """A version for providers without one: equal for equal values, and short.

    Sixteen bits of a hash: enough to see a change with, and too few to test a guess on.
    """
    return hashlib.sha256(b"novacron/1 secret version\0" + value.encode()).hexdigest()[:4]
