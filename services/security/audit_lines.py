"""Records and statements as JSON lines: in the node's own files and in exports."""

from __future__ import annotations

import json

from protocol.records import Plain, to_wire
from services.security.audit import AuditRecord, Row, fields_text


def record_map(record: AuditRecord) -> dict[str, Plain]:
    """A record as a line has it."""
    line: dict[str, Plain] = {
        "seq": record.seq,
        "node_id": record.node_id,
        **to_wire(record.event),
        "fields": record.event.fields,
        "key_id": record.key_id,
        "prev_hash": record.prev_hash.hex(),
        "hash": record.hash.hex(),
        "signature": record.signature.hex(),
    }
    if record.version == 1:
        return line  # as it was always written, so that old files and new ones agree
    del line["key_id"], line["signature"]
    return {"version": record.version, "day": record.day, **line}


def encode(value: Plain) -> bytes:
    """One line."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def parse_row(line: bytes) -> Row:
    """A record of a line.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(line)
        version, seq = found.get("version", 1), found["seq"]
        fields = found["fields"]
        row = Row(
            version,
            seq,
            found.get("day", 0),
            found["time_us"],
            found["node_id"],
            found["actor"],
            found["action"],
            found["subject"],
            found["outcome"],
            found["boot_id"],
            found["journal_seq"],
            fields_text(fields),
            bytes.fromhex(found["prev_hash"]),
            bytes.fromhex(found["hash"]),
            bytes.fromhex(found.get("signature", "")),
            found.get("key_id", ""),
        )
    except (KeyError, TypeError, AttributeError, RecursionError, ValueError) as exc:
        raise ValueError(f"no audit record: {exc}") from exc
    if type(seq) is not int or type(version) is not int or type(fields) is not dict:
        raise ValueError("no audit record: a field has another type")
    return row
