"""Step 1: the database takes the credentials that we have, and the level's files are ours alone."""

from __future__ import annotations

import os
from collections.abc import Mapping

from protocol.records import Plain
from services.data.postgres import Connection, connect
from services.security import files
from services.security.parts import Level, Part


class CredentialsPart(Part):
    """Checks what the level is given before it is used.

    Args:
        level: what all parts share.
    """

    step = 1
    name = "credentials"

    def __init__(self, level: Level) -> None:
        self._level = level
        self._connection: Connection | None = None

    async def open(self) -> Mapping[str, Plain]:
        """Log in to the database and look at the level's directory.

        Raises:
            CriticalError: the credentials are refused, or the directory is not ours alone.
            DatabaseUnavailableError: the database can't be reached at the moment.
        """
        context, settings = self._level.context, self._level.settings
        self._connection = await connect(settings.postgres, application=context.path)
        os.close(files.open_directory(self._level.directory))
        return {"database_tls": self._connection.pgconn.ssl_in_use}

    def take_connection(self) -> Connection | None:
        """The connection that was made to try the credentials; its taker closes it."""
        connection, self._connection = self._connection, None
        return connection

    async def close(self) -> None:
        """Close the connection if nobody took it."""
        if (connection := self.take_connection()) is not None:
            await connection.close()
