"""What was derived from the master key before there were data keys, and has to stay the same.

    sealing key    AES-256-GCM; opens what a version without data keys sealed
    audit seed     of the Ed25519 key that signs the audit records

Both became keys of the keyset, the first one as decrypt-only, so that they outlive the master key
that they were derived from. On a node's first start the audit seed is still derived, so that a
start that was cut off and one from before keysets come to the same key.

Source: RFC 5869 (HKDF), RFC 8032 (an Ed25519 private key is any 32 bytes).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.security.cipher import KEY_BYTES, KEY_ID_BYTES
from services.security.keys.master import expand

_SEALING = b"novacron/1 sealing key"
_SEALING_ID = b"novacron/1 sealing key id"
_AUDIT = b"novacron/1 audit signing key"


@dataclass(frozen=True, slots=True)
class DerivedKeys:
    """See the module; ``sealing_id`` is hexadecimal."""

    sealing_id: str
    sealing_key: bytes = field(repr=False)
    audit_seed: bytes = field(repr=False)


def derive_keys(master: bytes) -> DerivedKeys:
    """Derive both from a master key of 32 bytes."""
    return DerivedKeys(
        expand(master, _SEALING_ID, KEY_ID_BYTES).hex(),
        expand(master, _SEALING, KEY_BYTES),
        expand(master, _AUDIT, KEY_BYTES),
    )
