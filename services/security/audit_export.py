"""Exports of the audit log: records as text, and a signed statement about that text.

The security process itself reads the records and hashes the text that it hands out, so that its
signature says that these records were in the log, and not merely that somebody asked for it. An
export as JSON lines has the statement as its last line, ``{"manifest": {...}}``; one as CSV has it
in a file beside it.

    text         JSON lines as in the audit file, or CSV with one column per field
    manifest     node, format, filter, records, first and last number, SHA-256 of the text
    signature    Ed25519(domain | SHA-256(JSON of the manifest without it, keys sorted, no spaces))
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.records import Plain, to_wire
from services.security.audit import AuditRecord, AuditSigner, fields_text, verify_signature
from services.security.audit_lines import encode, record_map
from services.security.errors import AuditRefusedError
from services.security.model import ExportFormat, ExportPage, ExportRequest
from services.security.ports import AuditStore

# Of one piece: a message holds 1 MiB, and a record at most some 64 KiB of it.
PIECE_BYTES = 256 << 10
PAGE_RECORDS = 200
EXPORTS_MAX = 4
IDLE_S = 300.0
MANIFEST_KEY = "manifest"
COLUMNS = (
    "seq", "time_us", "node_id", "actor", "action", "subject", "outcome", "fields", "boot_id",
    "journal_seq", "version", "day", "prev_hash", "hash",
)  # fmt: skip
_DOMAIN = b"novacron/1 audit export\0"


@dataclass(slots=True)
class _Export:
    request: ExportRequest
    used_s: float
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    is_begun: bool = False
    after: int = 0
    records: int = 0
    first: int | None = None


class Exporter:
    """Exports under way; each is read piece by piece by whoever asked.

    Args:
        open_store: the chain, opened for each piece and closed after it.
        signer: signs what was handed out.
        node_id: whose chain.
    """

    def __init__(
        self, open_store: Callable[[], AuditStore], signer: AuditSigner, node_id: str
    ) -> None:
        self._open_store = open_store
        self._signer = signer
        self._node_id = node_id
        self._exports: dict[str, _Export] = {}

    async def next_piece(self, request: ExportRequest, *, time_s: float) -> ExportPage:
        """Begin an export or go on with one.

        Args:
            request: see ExportRequest.
            time_s: how long to read.

        Raises:
            AuditRefusedError: there are too many, or none of that id any more.
            AuditUnavailableError: the database can't be reached; ask again with the same id.
        """
        name = request.export or self._begin(request)
        export = self._exports.get(name)
        if export is None:
            raise AuditRefusedError(f"there is no export {name:.40}; it idled for {IDLE_S:g} s")
        deadline_s = time.monotonic() + time_s
        has_head = export.request.format is ExportFormat.CSV and not export.is_begun
        export.is_begun = True
        text = _csv([COLUMNS]) if has_head else ""
        is_end = False
        store = self._open_store()
        try:
            while not is_end and len(text) < PIECE_BYTES and time.monotonic() < deadline_s:
                records = await store.page(
                    first=export.after + 1,
                    last=None,
                    limit=PAGE_RECORDS,
                    wanted=export.request.filter,
                )
                is_end = len(records) < PAGE_RECORDS
                text += _render(records, export.request.format)
                if records:
                    export.first = export.first or records[0].seq
                    export.after, export.records = records[-1].seq, export.records + len(records)
        finally:
            await store.close()
        export.hash.update(text.encode("utf-8", "surrogatepass"))
        export.used_s = time.monotonic()
        if not is_end:
            return ExportPage(export=name, text=text, records=export.records)
        del self._exports[name]
        manifest = self._sign(export)
        return ExportPage(export="", text=text, records=export.records, manifest=manifest)

    def _begin(self, request: ExportRequest) -> str:
        now_s = time.monotonic()
        for name in [name for name, it in self._exports.items() if it.used_s < now_s - IDLE_S]:
            del self._exports[name]
        if len(self._exports) >= EXPORTS_MAX:
            raise AuditRefusedError(f"{EXPORTS_MAX} exports are under way; wait for one to end")
        name = secrets.token_hex(16)
        self._exports[name] = _Export(request, now_s)
        return name

    def _sign(self, export: _Export) -> dict[str, Plain]:
        manifest: dict[str, Plain] = {
            "version": 1,
            "node_id": self._node_id,
            "format": export.request.format.value,
            "filter": to_wire(export.request.filter),
            "records": export.records,
            "first": export.first,
            "last": export.after or None,
            "time_us": time.time_ns() // 1000,
            "sha256": export.hash.hexdigest(),
            "key_id": self._signer.key_id,
        }
        return {**manifest, "signature": self._signer.sign_message(_message(manifest)).hex()}


def manifest_problem(
    manifest: Mapping[str, Plain], digest: str, keys: Mapping[str, Ed25519PublicKey]
) -> str:
    """Why a manifest does not vouch for a text with this SHA-256; "" when it does."""
    key = keys.get(str(manifest.get("key_id")))
    if key is None:
        return f"it is signed with the key {manifest.get('key_id')}, which is not a known one"
    content = {name: value for name, value in manifest.items() if name != "signature"}
    try:
        signature = bytes.fromhex(str(manifest.get("signature")))
    except ValueError:
        signature = b""
    if not verify_signature(key, signature, _message(content)):
        return "the signature of its manifest is not by this node"
    if manifest.get("sha256") != digest:
        return "its text is not what was exported"
    return ""


def _message(manifest: Mapping[str, Plain]) -> bytes:
    content = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return _DOMAIN + hashlib.sha256(content.encode("ascii")).digest()


def _render(records: Sequence[AuditRecord], form: ExportFormat) -> str:
    if form is ExportFormat.JSONL:
        return b"".join(encode(record_map(record)) for record in records).decode("ascii")
    return _csv(_cells(record) for record in records)


def _cells(record: AuditRecord) -> list[object]:
    found = {**record_map(record), "fields": fields_text(record.event.fields)}
    found = {"version": record.version, "day": record.day, **found}
    return [_harmless(found[name]) for name in COLUMNS]


def _harmless(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets a quote before it."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
