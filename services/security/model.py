"""The level's settings and the records of its calls.

Calls of the process ``security``:

    audit.append     AppendRequest -> {"seq": number or null}
    audit.verify     VerifyRequest -> VerifyReport
    audit.tail       RecordsRequest -> RecordsPage
    audit.export     ExportRequest -> ExportPage
    audit.accept     AcceptRequest -> {"anchor": number}
    security.status  nothing -> SecurityStatus
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocol.records import Plain
from services.data.model import PostgresSettings
from services.security.credentials_model import TlsFiles
from services.security.keys.model import EncryptionSettings
from services.security.secrets.model import SecretsPartSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings:
    """What the security process is given.

    Attributes:
        state_dir: the node's state directory, absolute; ``security`` below it is ours.
        node_id: ``platform.nodeId``; names the node's chain.
        postgres: how to reach the database; one connection is used, and none of the pool's
            settings.
        has_policy: ``security.zeroTrust.enabled``: what no rule allows is refused.
        audit_enabled: ``security.audit.enabled``.
        audit_retention_days: ``security.audit.retentionDays``.
        audit_checkpoint_dir: ``security.audit.checkpointDir``; "" for none.
        audit_checkpoint_syslog: ``security.audit.checkpointSyslog``.
        encryption: of the keys.
        secrets: the secrets that the configuration refers to, and where they are; None without.
        credentials: certificates and keys that the node uses.
    """

    state_dir: str
    node_id: str
    postgres: PostgresSettings
    has_policy: bool = False
    audit_enabled: bool = True
    audit_retention_days: int = 90
    audit_checkpoint_dir: str = ""
    audit_checkpoint_syslog: bool = False
    encryption: EncryptionSettings = field(default_factory=EncryptionSettings)
    secrets: SecretsPartSettings | None = None
    credentials: tuple[TlsFiles, ...] = ()


class Outcome(enum.Enum):
    """How an audited action ended, or that it is about to begin."""

    REQUESTED = "requested"
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
    """The records to verify, both ends included; ``last`` None is the newest.

    A range is verified up to the signed statement that covers its last record.

    Attributes:
        files: verify the node's own files instead of the database, as a whole.
    """

    first: int = 1
    last: int | None = None
    files: bool = False


class Finding(enum.Enum):
    """What is wrong with a chain."""

    EDITED = "edited"
    DELETED = "deleted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"
    CHECKPOINT_FORGED = "checkpoint-forged"
    CHECKPOINT_MISSING = "checkpoint-missing"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """The first record that does not verify.

    Attributes:
        seq: its number; of a missing one too.
        kind: what happened to it.
        reason: the same as a sentence.
    """

    seq: int
    kind: Finding
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        records: how many were good.
        first_bad: None when all were.
        next: where to go on when the call's time ran out before the range's end, else None.
        seq: the last good record.
        covered: the last checkpoint that was good, or the signed head.
        anchor: verification began after this record, up to which retention dropped all.
        head: the newest record.
    """

    records: int
    first_bad: BadRecord | None
    next: int | None
    seq: int = 0
    covered: int = 0
    anchor: int = 0
    head: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records are wanted; what is empty restricts nothing.

    Attributes:
        actor, action, subject: with ``*`` for any characters.
        outcome: exactly.
        from_us, to_us: Unix time in microseconds; from included, to not.
    """

    actor: str = ""
    action: str = ""
    subject: str = ""
    outcome: str = ""
    from_us: int | None = None
    to_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsRequest:
    """Ask for records.

    Attributes:
        after: those with higher numbers, oldest first; None for the newest ones.
        limit: how many at most.
        wait_s: how long to wait for one while there is none; needs ``after``.
        filter: which.
    """

    after: int | None = None
    limit: int = 100
    wait_s: float = 0.0
    filter: RecordFilter = RecordFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPage:
    """Some records.

    Attributes:
        records: in order, each as a map in the form of the audit file's lines.
        after: what to ask with next.
    """

    records: tuple[dict[str, Plain], ...]
    after: int


class ExportFormat(enum.Enum):
    """Of an export."""

    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Begin an export, or go on with one.

    Attributes:
        export: id from the page before; "" to begin.
        format, filter: of a new export.
    """

    export: str = ""
    format: ExportFormat = ExportFormat.JSONL
    filter: RecordFilter = RecordFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPage:
    """A piece of an export.

    Attributes:
        export: id to go on with; "" when this was the last piece.
        text: to be written as it is.
        records: in all pieces so far.
        manifest: the signed statement about all the pieces' text, with the last one.
    """

    export: str
    text: str
    records: int
    manifest: dict[str, Plain] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRequest:
    """Begin verification anew after the newest record, for a reason that is recorded."""

    reason: str


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
        spooled_bytes: records of privileged calls that wait in the spool.
        checkpoint: seq of the last checkpoint that was kept.
        anchor: seq up to which retention has dropped all.
        trouble: why the log is not as it should be; "" when it is.
    """

    enabled: bool
    key_id: str
    public_key: str
    appended: int = 0
    waiting: int = 0
    lost: int = 0
    head: int | None = None
    spooled_bytes: int = 0
    checkpoint: int | None = None
    anchor: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityStatus:
    """The answer to ``security.status``."""

    node_id: str
    cipher: str
    sealing_key_id: str
    audit: AuditStatus
