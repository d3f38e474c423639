"""Audit records: the bytes that a record's hash covers, the hash chain, and who signs.

Each record of a node carries the hash of the node's record before it and its own hash. There are
two forms; new records have the second one, and the first one is still verified.

    version 1   JSON of all content, keys sorted, no spaces, ASCII
                hash       SHA-256(domain | previous hash | JSON); 32 zero bytes before the first
                signature  Ed25519(domain | hash), in every record
    version 2   seq, day, time_us, node_id, actor, action, subject, outcome, boot_id, journal_seq,
                fields, as UTF-8 with a zero byte between them; no text can hold one
                hash       SHA-256(domain | previous hash | that)
                signature  none: the chain's head is signed with each transaction, and kept as a
                           checkpoint from time to time (services.security.audit_checkpoint)

So a change shows in the record's hash, a removed, added or moved record in the next one's link,
and a chain that was written anew in the signed heads. Content is brought into a form first that
PostgreSQL gives back unchanged: its texts can't hold NUL or half characters.

Source: RFC 8032; the chain as in Schneier and Kelsey, Secure Audit Logs to Support Computer
Forensics (1999), section 3, with signatures where they use keyed hashes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from protocol.records import Plain
from services.security.errors import AuditRefusedError

GENESIS = bytes(32)
# A lifecycle record has some 200 bytes; 16 KiB leave room for an error's text.
FIELDS_BYTES_MAX = 16 << 10
DEPTH_MAX = 16
# Names and sentences, not documents.
TEXT_LENGTH_MAX = 512
VERSION = 2
_HASH_DOMAIN = b"novacron/1 audit record\0"
_HASH_DOMAIN_2 = b"novacron/2 audit record\0"
_SEPARATORS = 10
# Made once: json.dumps makes one per call when it is told anything.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)
_SIGNATURE_DOMAIN = b"novacron/1 audit signature\0"
_ACTION = re.compile(r"[a-z][a-z0-9-]*:[a-z][a-z0-9-]*")
# From here on floats are written with an exponent, which jsonb turns into an integer's digits.
_FLOAT_EXPONENT_FROM = 1e16


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What happened, before it has a place in the chain. Made by ``make_event``.

    Attributes:
        time_us: Unix time in microseconds, which PostgreSQL's timestamps keep exactly.
        actor: who did it: a process path, ``operator`` or the caller that the journal names.
        action: ``<noun>:<verb>``.
        subject: what it was done to.
        outcome: an Outcome's value; text, so that a changed one can still be read and named.
        fields: plain data in the form that jsonb keeps.
        boot_id, journal_seq: where it came from; one such pair is recorded once.
    """

    time_us: int
    actor: str
    action: str
    subject: str
    outcome: str
    fields: dict[str, Plain] = field(default_factory=dict)
    boot_id: str
    journal_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """An event at its place in the chain of its node.

    Attributes:
        seq: from 1 on; without a gap from the node's first record of version 2 on.
        node_id: whose chain it is in.
        event: what happened.
        day: days since 1970-01-01 (UTC) when it was chained, never less than the one before;
            what is kept or dropped together.
        prev_hash, hash: see above.
        key_id, signature: of version 1; empty in version 2.
        version: of the form.
    """

    seq: int
    node_id: str
    event: AuditEvent
    day: int
    prev_hash: bytes
    hash: bytes
    key_id: str = ""
    signature: bytes = b""
    version: int = VERSION


class Row(NamedTuple):
    """A record as the table has it, its fields as text: cheap to make a million times.

    The order is that of ``audit_rows.SELECT``.
    """

    version: int
    seq: int
    day: int
    time_us: int
    node_id: str
    actor: str
    action: str
    subject: str
    outcome: str
    boot_id: str
    journal_seq: int
    fields: str
    prev_hash: bytes
    hash: bytes
    signature: bytes
    key_id: str


class AuditSigner:
    """Signs record hashes; what it signed is verified by ``public_key``."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key()
        self.public_bytes = self.public_key.public_bytes_raw()
        self.key_id = hashlib.sha256(self.public_bytes).hexdigest()[:16]

    def sign_message(self, message: bytes) -> bytes:
        """The signature over a message, which begins with a domain of its own."""
        return self._key.sign(message)


def make_event(event: AuditEvent) -> AuditEvent:
    """Bring an event into the form that is kept.

    Raises:
        AuditRefusedError: names the part that is too long, too deep or malformed.
    """
    if _ACTION.fullmatch(event.action) is None:
        raise AuditRefusedError(f"the action {event.action!r:.60} is not <noun>:<verb>")
    for name in ("actor", "action", "subject", "boot_id"):
        if len(getattr(event, name)) > TEXT_LENGTH_MAX:
            raise AuditRefusedError(f"the {name} is longer than {TEXT_LENGTH_MAX} characters")
    fields = {_text(key): _normal(value, DEPTH_MAX - 1) for key, value in event.fields.items()}
    size = len(_json(fields))
    if size > FIELDS_BYTES_MAX:
        raise AuditRefusedError(f"the fields have {size} bytes; at most {FIELDS_BYTES_MAX}")
    return replace(event, actor=_text(event.actor), subject=_text(event.subject), fields=fields)


def canonical(event: AuditEvent, *, seq: int, node_id: str, key_id: str) -> bytes:
    """The bytes that a record's hash covers; they never change for version 1."""
    return _json(
        {
            "version": 1,
            "seq": seq,
            "node_id": node_id,
            "key_id": key_id,
            "time_us": event.time_us,
            "actor": event.actor,
            "action": event.action,
            "subject": event.subject,
            "outcome": event.outcome,
            "fields": event.fields,
            "boot_id": event.boot_id,
            "journal_seq": event.journal_seq,
        }
    )


def content_hash(row: Row) -> bytes:
    """The hash that a record must have by its content and its previous hash.

    Args:
        row: any tuple in the order of Row will do.
    """
    # Unpacked and not by name: this is what a verification spends its time in.
    (
        version, seq, day, time_us, node_id, actor, action, subject, outcome,
        boot_id, journal_seq, fields, prev_hash, _hash, _signature, _key_id,
    ) = row  # fmt: skip
    if version == VERSION:
        content = (
            f"{seq}\0{day}\0{time_us}\0{node_id}\0{actor}\0{action}\0{subject}\0{outcome}\0"
            f"{boot_id}\0{journal_seq}\0{fields}"
        ).encode("utf-8", "surrogatepass")
        if content.count(0) != _SEPARATORS:
            return b""  # a zero byte within a text, which we never write: no hash fits
        return hashlib.sha256(_HASH_DOMAIN_2 + prev_hash + content).digest()
    named = Row._make(row)
    content = canonical(event_of_row(named), seq=seq, node_id=node_id, key_id=named.key_id)
    return hashlib.sha256(_HASH_DOMAIN + prev_hash + content).digest()


def fields_text(fields: Mapping[str, Plain]) -> str:
    """The fields of an event as version 2 hashes and keeps them."""
    return _ENCODER.encode(fields)


def row_of(record: AuditRecord) -> Row:
    """A record as the table has it."""
    event = record.event
    return Row(
        record.version,
        record.seq,
        record.day,
        event.time_us,
        record.node_id,
        event.actor,
        event.action,
        event.subject,
        event.outcome,
        event.boot_id,
        event.journal_seq,
        fields_text(event.fields),
        record.prev_hash,
        record.hash,
        record.signature,
        record.key_id,
    )


def event_of_row(row: Row) -> AuditEvent:
    """The event of a row; fields that are no map are kept as text, so that they can be named."""
    try:
        fields = json.loads(row.fields)
    except (ValueError, RecursionError, TypeError):
        fields = None
    return AuditEvent(
        time_us=row.time_us,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        outcome=row.outcome,
        fields=fields if isinstance(fields, dict) else {"unreadable": row.fields},
        boot_id=row.boot_id,
        journal_seq=row.journal_seq,
    )


def record_of(row: Row) -> AuditRecord:
    """The record of a row."""
    return AuditRecord(
        seq=row.seq,
        node_id=row.node_id,
        event=event_of_row(row),
        day=row.day,
        prev_hash=row.prev_hash,
        hash=row.hash,
        key_id=row.key_id,
        signature=row.signature,
        version=row.version,
    )


def chain_event(
    event: AuditEvent, *, seq: int, node_id: str, prev_hash: bytes, day: int
) -> AuditRecord:
    """Give an event its place in the chain."""
    record = AuditRecord(
        seq=seq, node_id=node_id, event=event, day=day, prev_hash=prev_hash, hash=b""
    )
    return replace(record, hash=content_hash(row_of(record)))


def is_signed(row: Row, keys: Mapping[str, Ed25519PublicKey]) -> bool | None:
    """Whether a record of version 1 has a good signature; None when its key is unknown."""
    key = keys.get(row.key_id)
    if key is None:
        return None
    return verify_signature(key, row.signature, _SIGNATURE_DOMAIN + row.hash)


def verify_signature(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether a signature is the key's."""
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _normal(value: Plain, allowance: int) -> Plain:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        return value.hex()
    if allowance == 0:
        raise AuditRefusedError(f"the fields nest deeper than {DEPTH_MAX}")
    if isinstance(value, Mapping):
        return {_text(str(key)): _normal(item, allowance - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normal(item, allowance - 1) for item in value]
    raise AuditRefusedError(f"the fields hold a {type(value).__name__}")


def _number(value: float) -> float | int | str:
    if not math.isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) >= _FLOAT_EXPONENT_FROM:
        return int(value)
    return value + 0.0  # minus zero, which jsonb does not have, becomes zero


def _text(text: str) -> str:
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return whole.replace("\0", "\\x00")


def _json(value: Plain) -> bytes:
    return _ENCODER.encode(value).encode("ascii")
