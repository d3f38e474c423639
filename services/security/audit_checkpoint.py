"""Signed statements about a node's audit chain: heads, checkpoints, anchors.

Each says: the chain of this node has this many records, and the last one has this number and this
hash. Who holds one can tell a chain that was cut or written anew, whatever the database says.

    head         made with every transaction, one row per node, replaced by the next
    checkpoint   a head that is kept, every RECORDS records, every PERIOD_S, and at the end; it
                 names the hash of the checkpoint before it, so that none can be left out
    anchor       a checkpoint of another kind: all up to it was verified and dropped by retention,
                 and verification begins after it

    hash         SHA-256(domain | JSON of all but the signature, keys sorted, no spaces)
    signature    Ed25519(domain | hash)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.records import Plain
from services.security.audit import GENESIS, AuditSigner, verify_signature

# What a verification that finds a chain written anew can't tell apart: these many records.
RECORDS = 1000
PERIOD_S = 300.0
CHECKPOINT, ANCHOR = "checkpoint", "anchor"
_HASH_DOMAIN = b"novacron/1 audit checkpoint\0"
_SIGNATURE_DOMAIN = b"novacron/1 audit checkpoint signature\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One statement.

    Attributes:
        node_id: whose chain.
        seq, hash: of the last record.
        day: of the last record, see AuditRecord.
        time_us: when it was made.
        count: records from the chain's first one on.
        previous: hash of the checkpoint before; 32 zero bytes without one.
        kind: CHECKPOINT, which a head is too, or ANCHOR.
        key_id: of the key that signed it.
        signature: see above.
    """

    node_id: str
    seq: int
    hash: bytes
    day: int
    time_us: int
    count: int
    previous: bytes = GENESIS
    kind: str = CHECKPOINT
    key_id: str = ""
    signature: bytes = b""

    def digest(self) -> bytes:
        """Its hash, which its signature and the next checkpoint refer to."""
        content = json.dumps(
            {name: value for name, value in to_plain(self).items() if name != "signature"},
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(_HASH_DOMAIN + content.encode("ascii")).digest()


def sign_checkpoint(checkpoint: Checkpoint, signer: AuditSigner) -> Checkpoint:
    """The same one, signed."""
    named = replace(checkpoint, key_id=signer.key_id)
    return replace(named, signature=signer.sign_message(_SIGNATURE_DOMAIN + named.digest()))


def problem_of(checkpoint: Checkpoint, keys: Mapping[str, Ed25519PublicKey]) -> str:
    """Why a statement is not the node's; "" when it is."""
    key = keys.get(checkpoint.key_id)
    if key is None:
        return f"is signed with the key {checkpoint.key_id}, which this node does not have"
    message = _SIGNATURE_DOMAIN + checkpoint.digest()
    if not verify_signature(key, checkpoint.signature, message):
        return "has a signature that is not by this node"
    return ""


def is_due(head: Checkpoint, kept: Checkpoint | None) -> bool:
    """Whether a head is to be kept, given the checkpoint before it."""
    if kept is None:
        return True
    if head.seq <= kept.seq:
        return False
    aged = head.time_us - kept.time_us >= PERIOD_S * 1_000_000
    return aged or head.seq - kept.seq >= RECORDS or head.day != kept.day


def to_plain(checkpoint: Checkpoint) -> dict[str, Plain]:
    """A statement as JSON has it."""
    return {
        "kind": checkpoint.kind,
        "node_id": checkpoint.node_id,
        "seq": checkpoint.seq,
        "hash": checkpoint.hash.hex(),
        "day": checkpoint.day,
        "time_us": checkpoint.time_us,
        "count": checkpoint.count,
        "previous": checkpoint.previous.hex(),
        "key_id": checkpoint.key_id,
        "signature": checkpoint.signature.hex(),
    }


def from_plain(value: Plain) -> Checkpoint:
    """Read what ``to_plain`` made.

    Raises:
        ValueError: it is something else.
    """
    try:
        texts = {name: value[name] for name in ("kind", "node_id", "key_id")}
        numbers = {name: value[name] for name in ("seq", "day", "time_us", "count")}
        if not all(isinstance(text, str) for text in texts.values()) or not all(
            type(number) is int for number in numbers.values()
        ):
            raise ValueError("a field has another type")
        return Checkpoint(
            **texts,
            **numbers,
            hash=bytes.fromhex(value["hash"]),
            previous=bytes.fromhex(value["previous"]),
            signature=bytes.fromhex(value["signature"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"no checkpoint: {exc}") from exc
