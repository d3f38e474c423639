"""A new password for the role that the node logs in to PostgreSQL with.

The server is sent a SCRAM verifier and not the password, so neither its log nor its statistics can
show one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import psycopg
from psycopg import sql

from protocol.errors import NovacronError
from services.data.errors import DatabaseUnavailableError
from services.data.model import PostgresSettings
from services.data.postgres import Connection, connect

_ALGORITHM = b"scram-sha-256"


async def change_role_password(
    settings: PostgresSettings, *, old: str, new: str, application: str
) -> None:
    """Change the password and prove that the new one opens the database.

    Args:
        settings: where, and whose password.
        old: the password that counts.
        new: the one that counts from now on.
        application: shown in pg_stat_activity.

    Raises:
        NovacronError: the old one counts still.
    """
    connection = await connect(replace(settings, password=old), application=application)
    try:
        await _set(connection, settings.user, new)
        try:
            proof = await connect(replace(settings, password=new), application=application)
            await proof.close()
        except NovacronError:
            await _set(connection, settings.user, old)
            raise
    except psycopg.Error as exc:
        with suppress(psycopg.Error):
            await _set(connection, settings.user, old)
        raise DatabaseUnavailableError(
            f"the password was not changed: {type(exc).__name__}"
        ) from exc
    finally:
        await connection.close()


async def _set(connection: Connection, role: str, password: str) -> None:
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), _ALGORITHM)
    await connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(verifier.decode())
        )
    )
