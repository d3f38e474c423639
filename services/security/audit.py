"""Audit records: their canonical bytes, the hash chain through them, and their signatures.

Each record of a node carries the hash of the node's record before it, its own hash, and a
signature over that:

    canonical  JSON of all content, keys sorted, no spaces, ASCII
    hash       SHA-256(domain | previous hash | canonical); the first has 32 zero bytes before it
    signature  Ed25519(domain | hash)

So a change shows in the record's hash, and a removed, added or moved record in the next one's
link. Content is brought into a form first that PostgreSQL's jsonb gives back unchanged: jsonb
keeps numbers by value and not as they were written, and it can't hold NUL or half characters.

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
_HASH_DOMAIN = b"novacron/1 audit record\0"
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
    """An event at its place in the chain of its node."""

    seq: int
    node_id: str
    event: AuditEvent
    key_id: str
    prev_hash: bytes
    hash: bytes
    signature: bytes


class AuditSigner:
    """Signs record hashes; what it signed is verified by ``public_key``."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key()
        self.public_bytes = self.public_key.public_bytes_raw()
        self.key_id = hashlib.sha256(self.public_bytes).hexdigest()[:16]

    def sign(self, record_hash: bytes) -> bytes:
        """The signature over a record's hash."""
        return self._key.sign(_SIGNATURE_DOMAIN + record_hash)


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


def record_hash(event: AuditEvent, *, seq: int, node_id: str, key_id: str, prev: bytes) -> bytes:
    """The hash of a record whose predecessor has the hash ``prev``."""
    content = canonical(event, seq=seq, node_id=node_id, key_id=key_id)
    return hashlib.sha256(_HASH_DOMAIN + prev + content).digest()


def seal_event(
    event: AuditEvent, *, seq: int, node_id: str, prev_hash: bytes, signer: AuditSigner
) -> AuditRecord:
    """Give an event its place in the chain."""
    digest = record_hash(event, seq=seq, node_id=node_id, key_id=signer.key_id, prev=prev_hash)
    return AuditRecord(
        seq=seq,
        node_id=node_id,
        event=event,
        key_id=signer.key_id,
        prev_hash=prev_hash,
        hash=digest,
        signature=signer.sign(digest),
    )


class ChainVerifier:
    """Follows a node's chain from record to record.

    Args:
        keys: public keys by key id.
        prev_hash: hash of the record before the first one that will be checked.
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], *, prev_hash: bytes) -> None:
        self._keys = keys
        self._prev_hash = prev_hash
        self._seq = 0

    def check(self, record: AuditRecord) -> str:
        """Check the next record; "" when it is good, else what is wrong with it."""
        if record.seq <= self._seq:
            return f"follows record {self._seq}: out of order"
        found = record_hash(
            record.event,
            seq=record.seq,
            node_id=record.node_id,
            key_id=record.key_id,
            prev=record.prev_hash,
        )
        if found != record.hash:
            return "its content was changed after it was written"
        if record.prev_hash != self._prev_hash:
            return "the record before it was removed, replaced or moved"
        key = self._keys.get(record.key_id)
        if key is None:
            return f"is signed with the key {record.key_id}, which this node does not have"
        try:
            key.verify(record.signature, _SIGNATURE_DOMAIN + record.hash)
        except InvalidSignature:
            return "its signature is not by this node"
        self._seq, self._prev_hash = record.seq, record.hash
        return ""


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
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")
