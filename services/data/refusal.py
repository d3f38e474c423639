"""Tell a PostgreSQL that turns us away from one that is not there yet, by what it says.

libpq gives no SQLSTATE for a connection that failed, only the sentence. What is not in the table
counts as temporary: that costs the remaining attempts and ends with the same sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why trying again would not help.

    Attributes:
        sentence: the server's own, on one line.
        advice: what to do about it.
        is_missing_database: the server is fine and has no database of that name.
    """

    sentence: str
    advice: str
    is_missing_database: bool = False


_MISSING_DATABASE = re.compile(r'database ".+" does not exist')
_ADVICE = (
    ("password authentication failed", "check database.postgres.user and password"),
    ("no password supplied", "set database.postgres.password"),
    ("peer authentication failed", "this account of the system may not log in as that role"),
    ("ident authentication failed", "this account of the system may not log in as that role"),
    ("certificate authentication failed", "check the client certificate"),
    ("no pg_hba.conf entry", "the server's pg_hba.conf has to allow this host, user and database"),
    ("pg_hba.conf rejects connection", "the server's pg_hba.conf forbids this connection"),
    ("is not permitted to log in", "the role needs LOGIN"),
    ("permission denied for database", "the role needs CONNECT on the database"),
    ("server does not support SSL", "enable TLS in the server or change database.postgres.sslMode"),
    ("certificate verify failed", "the server's certificate is not trusted by this host"),
    ("does not match host name", "the server's certificate is for another host name"),
    ("root certificate file", "set database.postgres.sslRootCert to the authorities' PEM file"),
    ("could not read root certificate", "database.postgres.sslRootCert has to be a PEM file"),
    ("could not open certificate file", "check database.postgres.sslCert"),
    ("could not read certificate file", "database.postgres.sslCert has to be a PEM file"),
    ("but not private key file", "check database.postgres.sslKey"),
    ("could not load private key file", "check that database.postgres.sslKey belongs to sslCert"),
    ("has group or world access", "chmod 600 the file of database.postgres.sslKey"),
    ("private key file", "check database.postgres.sslKey"),
    ("requires a valid client certificate", "set database.postgres.sslCert and sslKey"),
    ("alert unknown ca", "the server does not know the authority of database.postgres.sslCert"),
    ("alert certificate", "the server does not take database.postgres.sslCert"),
    ("invalid sslmode value", "correct database.postgres.sslMode"),
)
_MISSING_ROLE = re.compile(r'role ".+" does not exist')


def find_refusal(message: str) -> Refusal | None:
    """Read a connection error's text.

    Args:
        message: libpq's message; may have several lines.

    Returns:
        The refusal, or None for something that may pass: no socket, refused, starting up,
        shutting down, too many connections, no answer, and whatever else.
    """
    sentence = one_line(message)
    if _MISSING_DATABASE.search(sentence):
        return Refusal(sentence, "create it and make the user its owner", is_missing_database=True)
    if _MISSING_ROLE.search(sentence):
        return Refusal(sentence, "create the role with LOGIN or correct database.postgres.user")
    lower = sentence.lower()
    for needle, advice in _ADVICE:
        if needle.lower() in lower:
            return Refusal(sentence, advice)
    return None


def one_line(message: str) -> str:
    """The message without line ends and runs of blanks, at most 500 characters of it."""
    return " ".join(message.split())[:500]
