"""The node's role in PostgreSQL: whether it gets in, what it may, and until when."""

from __future__ import annotations

import asyncio
from datetime import datetime

from services.data.errors import DatabaseRefusedError
from services.data.model import PostgresSettings
from services.data.postgres import Connection, connect
from services.security.credential_expiry import expiry_findings
from services.security.credentials_model import Credential, Finding, Severity, worst

NAME = "database.postgres.role"
QUERY_TIMEOUT_S = 5.0
_QUERY = """
SELECT rolname, rolsuper, rolcreaterole OR rolbypassrls OR rolreplication,
       CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil END
  FROM pg_roles WHERE rolname = current_user
"""


async def check_role(settings: PostgresSettings, *, application: str, now_s: float) -> Credential:
    """Log in anew and look at the role.

    Raises:
        DatabaseUnavailableError: the server can't be asked at the moment.
    """
    try:
        connection = await connect(settings, application=application)
    except DatabaseRefusedError as exc:
        finding = Finding(severity=Severity.DEGRADED, code="refused", message=exc.message)
        return Credential(name=NAME, kind="password", subject=settings.user, findings=(finding,))
    try:
        return await judge_role(connection, settings, now_s=now_s)
    finally:
        await connection.close()


async def judge_role(
    connection: Connection, settings: PostgresSettings, *, now_s: float
) -> Credential:
    """Look at the role of a connection."""
    async with asyncio.timeout(QUERY_TIMEOUT_S):
        cursor = await connection.execute(_QUERY)
        row = await cursor.fetchone()
    assert row is not None, "whoever is logged in is a role"
    name, is_superuser, has_rights, until = row
    ends_s = until.timestamp() if isinstance(until, datetime) else None
    findings = list(expiry_findings(f"the password of the role {name}", ends_s, now_s))
    # The node's own server has no other role, and nobody else gets in.
    if is_superuser and not settings.create_database:
        text = f"the role {name} is a superuser: a role that owns the database is enough"
        findings.append(Finding(severity=Severity.WARNING, code="superuser", message=text))
    elif has_rights and not settings.create_database:
        text = f"the role {name} may make roles, replicate or pass row security: take that away"
        findings.append(Finding(severity=Severity.WARNING, code="rights", message=text))
    return Credential(
        name=NAME,
        kind="password",
        subject=str(name),
        expires_s=ends_s,
        findings=worst(tuple(findings)),
    )
