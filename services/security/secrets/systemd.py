"""Secrets that systemd hands to the service: LoadCredential=, LoadCredentialEncrypted=.

systemd puts each into a file below $CREDENTIALS_DIRECTORY, in memory that is never swapped, which
only the service may read. They stay the same until the service is started anew.

Source: systemd.exec(5), Credentials.
"""

from __future__ import annotations

import stat
from pathlib import Path

from services.security.secrets.environment import content_version
from services.security.secrets.errors import ProviderUnconfiguredError, RotationRefusedError
from services.security.secrets.filesystem import read_private
from services.security.secrets.provider import Secret, make_secret


class SystemdProvider:
    """Reads the credentials of the service.

    Args:
        directory: $CREDENTIALS_DIRECTORY; None where the variable is not set.
    """

    name = "systemd"
    is_static = True

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def get(self, name: str) -> Secret:
        """The credential of that name."""
        if self._directory is None:
            raise ProviderUnconfiguredError(
                "CREDENTIALS_DIRECTORY is not set: the node was not started by systemd, or its "
                f"unit has no LoadCredential={name}:PATH"
            )
        # systemd gives the group of the service a right to read in some setups (mode 0440).
        content = read_private(self._directory, name, others_may_read=stat.S_IRGRP)
        return make_secret(
            content.text,
            where=f"the credential {name}",
            version=content_version(content.text),
            created_s=content.stat.st_mtime,
        )

    def rotate(self, name: str, value: str) -> Secret:  # noqa: ARG002 - the interface's
        """Refuse: credentials are made when the service starts."""
        raise RotationRefusedError(
            f"systemd gives the credential {name} when the service starts: change what the unit "
            "loads and restart the service"
        )

    def health(self) -> str:
        """Well, if there is a directory."""
        if self._directory is None or not self._directory.is_dir():
            return "there is no directory of credentials"
        return ""

    def maintain(self) -> None:
        """Nothing runs out."""

    def close(self) -> None:
        """Nothing to let go of."""
