"""The keyset as bytes: one line of JSON, authenticated as a whole.

    {"format":1, "node_id":…, "generation":…, "master_id":…, "backed_up_s":…,
     "entries":[{"id":…, "purpose":…, "state":…, "created_s":…, "reserved":…, "retired_s":…,
                 "wrapped":hex}, …],
     "mac":hex}

The MAC is HMAC-SHA256 under a key derived from the master key, over the same JSON without
``mac``, with sorted keys and no spaces. So nothing can be taken out, put in or taken from an
older keyset. That the whole is the newest can't be seen from within: see recovery.py.
"""

from __future__ import annotations

import enum
import hmac
import json
from dataclasses import dataclass
from typing import Any

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire
from services.security.keys.keyset import KeyEntry, Keyset, fault
from services.security.keys.master import MasterKey

FORMAT = 1
# KEYS_MAX keys have some 1.3 MiB.
FILE_BYTES_MAX = 4 << 20
_DOMAIN = b"novacron/1 keyset\0"


class Verdict(enum.Enum):
    """What a keyset's bytes turned out to be.

    MISSING: there are none. TORN: not a whole line of JSON, as after a crash. FOREIGN: whole, under
    a master key that we lack. EDITED: whole, and not as it was written. GOOD: authentic.
    """

    MISSING = "missing"
    TORN = "torn"
    FOREIGN = "foreign"
    EDITED = "edited"
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class Judged:
    """A keyset's bytes after they were looked at.

    Attributes:
        verdict: what they are.
        content: the bytes.
        generation, master_id: as they say; proven for GOOD ones only.
        keyset: of GOOD ones.
    """

    verdict: Verdict
    content: bytes = b""
    generation: int = 0
    master_id: str = ""
    keyset: Keyset | None = None


def encode(keyset: Keyset, master: MasterKey) -> bytes:
    """The bytes of a keyset.

    Raises:
        ValueError: it breaks the invariant, or is another master key's; neither is written.
    """
    if problem := fault(keyset):
        raise ValueError(problem)
    if keyset.master_id != master.id:
        raise ValueError(f"a keyset under {keyset.master_id} can't be written under {master.id}")
    fields: dict[str, Any] = {  # Any: JSON values
        "format": FORMAT,
        "node_id": keyset.node_id,
        "generation": keyset.generation,
        "master_id": keyset.master_id,
        "backed_up_s": keyset.backed_up_s,
        "entries": [_entry_fields(entry) for entry in keyset.entries],
    }
    fields["mac"] = _mac(fields, master).hex()
    return _json(fields) + b"\n"


def judge(content: bytes | None, masters: dict[str, MasterKey]) -> Judged:
    """Look at a keyset's bytes.

    Args:
        content: what was read; None where there is nothing.
        masters: the master keys that we have, by id.
    """
    if content is None:
        return Judged(Verdict.MISSING)
    try:
        fields = json.loads(content) if content.endswith(b"}\n") else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return Judged(Verdict.TORN, content)
    generation, master_id = fields.get("generation"), fields.get("master_id")
    if fields.get("format") != FORMAT or type(generation) is not int or type(master_id) is not str:
        return Judged(Verdict.EDITED, content)
    master = masters.get(master_id)
    if master is None:
        return Judged(Verdict.FOREIGN, content, generation, master_id)
    keyset = _checked(fields, master)
    verdict = Verdict.EDITED if keyset is None else Verdict.GOOD
    return Judged(verdict, content, generation, master_id, keyset)


def _checked(fields: dict[str, Any], master: MasterKey) -> Keyset | None:
    mac = fields.pop("mac", None)
    if not isinstance(mac, str) or not hmac.compare_digest(
        mac.encode(), _mac(fields, master).hex().encode()
    ):
        return None
    try:
        keyset = Keyset(
            node_id=str(fields["node_id"]),
            generation=fields["generation"],
            master_id=fields["master_id"],
            backed_up_s=fields["backed_up_s"],
            entries=tuple(_entry(entry) for entry in fields["entries"]),
        )
    except (KeyError, TypeError, ValueError, RemoteProtocolError):
        return None  # a newer program's; with our own MAC it can be no accident
    return None if fault(keyset) else keyset


def _entry_fields(entry: KeyEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "purpose": entry.purpose.value,
        "state": entry.state.value,
        "created_s": entry.created_s,
        "reserved": entry.reserved,
        "retired_s": entry.retired_s,
        "wrapped": entry.wrapped.hex(),
    }


def _entry(fields: dict[str, Any]) -> KeyEntry:
    return from_wire(KeyEntry, {**fields, "wrapped": bytes.fromhex(fields["wrapped"])})


def _mac(fields: dict[str, Any], master: MasterKey) -> bytes:
    return master.mac(_DOMAIN + _json(fields))


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
