"""The level's settings and the records of its calls.

Calls of the process ``security``:

    audit.append     AppendRequest -> {"seq": number or null}
    audit.verify     VerifyRequest -> VerifyReport
    security.status  nothing -> SecurityStatus
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocol.records import Plain
from services.data.model import PostgresSettings
from services.security.secrets.model import SecretsPartSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings:
    """What the security process is given.

    Attributes:
        state_dir: the node's state directory, absolute; ``security`` below it is ours.
        node_id: ``platform.nodeId``; names the node's chain.
        postgres: how to reach the database; one connection is used, and none of the pool's
            settings.
        audit_enabled: ``security.audit.enabled``.
        secrets: the secrets that the configuration refers to, and where they are; None without.
    """

    state_dir: str
    node_id: str
    postgres: PostgresSettings
    audit_enabled: bool = True
    secrets: SecretsPartSettings | None = None


class Outcome(enum.Enum):
    """How an audited action ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendRequest:
    """One action to record; the actor is the caller as the runtime proves it.

    Attributes:
        action: ``<noun>:<verb>``. The nouns component, init, node, operator and audit are kept
            for what the security process observes itself.
        subject: what was acted on, such as a VM's name.
        outcome: how it ended.
        fields: plain data, at most 16 KiB as JSON.
    """

    action: str
    subject: str
    outcome: Outcome = Outcome.SUCCESS
    fields: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """The records to verify, both ends included; ``last`` None is the newest."""

    first: int = 1
    last: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """The first record that does not verify, and why as a sentence."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        records: how many were good.
        first_bad: None when all were.
        next: where to go on when the call's time ran out before the range's end, else None.
    """

    records: int
    first_bad: BadRecord | None
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStatus:
    """The audit log at the moment.

    Attributes:
        enabled: as configured.
        key_id: of the signing key.
        public_key: the Ed25519 public key, hexadecimal, to verify records elsewhere.
        appended: records chained by this process.
        waiting: records that are kept until the database takes them.
        lost: journal records that were gone before this process read them.
        head: seq of the last record that this process knows; None without one.
        trouble: why the log is not as it should be; "" when it is.
    """

    enabled: bool
    key_id: str
    public_key: str
    appended: int = 0
    waiting: int = 0
    lost: int = 0
    head: int | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityStatus:
    """The answer to ``security.status``."""

    node_id: str
    cipher: str
    sealing_key_id: str
    audit: AuditStatus
