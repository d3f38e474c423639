"""What credentials are checked, what is found, and the records of the calls about them.

credentials.list   nothing -> CredentialList; what the last check found
credentials.check  nothing -> CredentialList; checks everything now
"""

from __future__ import annotations

import enum

from protocol.dataclass import dataclass


class TlsUse(enum.Enum):
    """What a certificate is for."""

    SERVER = "server"
    CLIENT = "client"
    AUTHORITY = "authority"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Certificates in files.

    Attributes:
        name: as lists show it, such as ``api``.
        use: what they are for.
        cert_file: PEM; of a server or client with its chain, or all authorities.
        key_file: PEM of the certificate's key; "" for authorities.
        ca_file: authorities that the chain must lead to; "" where others decide that.
        hosts: names and addresses that clients use; empty where nobody knows.
        keys: configuration keys of certificate, key and authorities, for errors.
    """

    name: str
    use: TlsUse
    cert_file: str
    key_file: str = ""
    ca_file: str = ""
    hosts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class Severity(enum.Enum):
    """What a finding means."""

    WARNING = "warning"  # it works
    DEGRADED = "degraded"  # it works not at all, or not for long
    ERROR = "error"  # it is not used: the node does not start with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong.

    Attributes:
        severity: what it means.
        code: stable name, such as ``key_mismatch``.
        message: a sentence that says what to do.
    """

    severity: Severity
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A credential and what was found.

    Attributes:
        name: such as ``api`` or ``database.postgres``.
        kind: certificate, authority, password or token.
        subject: whom it is about.
        expires_s: Unix time of its end; None for never.
        fingerprint: SHA-256 of the certificate, in hexadecimal digits; "" for others.
        findings: the worst first.
    """

    name: str
    kind: str
    subject: str = ""
    expires_s: float | None = None
    fingerprint: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialList:
    """All credentials; ``checked_s`` is the Unix time at which they were looked at."""

    checked_s: float = 0.0
    credentials: tuple[Credential, ...] = ()


def worst(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings in order, the worst first."""
    order = list(Severity)
    return tuple(sorted(findings, key=lambda it: -order.index(it.severity)))
