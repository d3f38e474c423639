"""Exports: what they say, and that nothing in them can be changed."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.records import Plain
from services.ctl import auditfiles
from services.ctl.errors import CtlError, UsageError
from services.security import audit_export
from services.security.audit_checkpoint import to_plain
from services.security.audit_export import COLUMNS, Exporter
from services.security.audit_lines import encode, record_map
from services.security.audit_statements import CHECKPOINT_FILE_NAME, KEYS_FILE_NAME, remember_key
from services.security.errors import AuditRefusedError
from services.security.memory import MemoryAuditStore
from services.security.model import (
    ExportFormat,
    ExportRequest,
    Finding,
    RecordFilter,
    VerifyReport,
)
from tests.fixtures.audit_chains import EVENT, SIGNER, chain_of, checkpoints_every, events

PUBLIC_KEY = SIGNER.public_bytes.hex()
COUNT = 450


def export(request: ExportRequest, count: int = COUNT) -> tuple[str, dict[str, Plain]]:
    """The text and the manifest of an export, read to its end."""

    async def scenario() -> tuple[str, dict[str, Plain]]:
        store = MemoryAuditStore(node_id="node", signer=SIGNER)
        await store.append(
            [replace(event, actor="=cmd()" if event.journal_seq % 2 else "b")
             for event in events(count)]
        )  # fmt: skip
        exporter = Exporter(lambda: store, SIGNER, "node")
        text = ""
        page = await exporter.next_piece(request, time_s=0.0)
        while page.export:
            text += page.text
            page = await exporter.next_piece(ExportRequest(export=page.export), time_s=10.0)
        assert page.manifest is not None
        return text + page.text, page.manifest

    return asyncio.run(scenario())


def write_jsonl(path: Path, text: str, manifest: dict[str, Plain]) -> Path:
    """An export as novacronctl writes it."""
    path.write_text(text + json.dumps({"manifest": manifest}) + "\n")
    return path


def verify(path: Path, public_key: str | None = PUBLIC_KEY) -> VerifyReport:
    """Verify a file as novacronctl does."""
    return auditfiles.verify(
        path, public_key=public_key, checkpoints=None, progress=lambda _done, _total: None
    )


def test_an_export_verifies_by_itself(tmp_path: Path) -> None:
    """All records are there, and the node's signature is over them."""
    text, manifest = export(ExportRequest())

    report = verify(write_jsonl(tmp_path / "export", text, manifest))

    assert (report.first_bad, report.records, report.seq) == (None, COUNT, COUNT)
    assert [json.loads(line)["seq"] for line in text.splitlines()] == [*range(1, COUNT + 1)]
    assert (manifest["first"], manifest["last"], manifest["node_id"]) == (1, COUNT, "node")


def test_an_export_of_some_records_says_of_which(tmp_path: Path) -> None:
    """The filter is part of what is signed."""
    wanted = RecordFilter(actor="=*", from_us=EVENT.time_us)
    text, manifest = export(ExportRequest(filter=wanted))
    path = write_jsonl(tmp_path / "export", text, manifest)

    report = verify(path)
    manifest["filter"] = {}
    forged = verify(write_jsonl(path, text, manifest))

    assert (report.first_bad, report.records) == (None, COUNT // 2)
    assert forged.first_bad is not None
    assert forged.first_bad.kind is Finding.DIFFERS


def test_every_change_to_an_export_is_found(tmp_path: Path) -> None:
    """Edited records are named; what was removed or added shows in the hash of the text."""
    text, manifest = export(ExportRequest())
    lines = text.splitlines(keepends=True)
    edited = [*lines[:6], lines[6].replace('"vm:started"', '"vm:stopped"'), *lines[7:]]
    broken = [*lines[:6], "{}\n", *lines[7:]]
    path = tmp_path / "export"

    bad = verify(write_jsonl(path, "".join(edited), manifest)).first_bad
    assert bad is not None
    assert (bad.seq, bad.kind) == (7, Finding.EDITED)
    bad = verify(write_jsonl(path, "".join(broken), manifest)).first_bad
    assert bad is not None
    assert (bad.seq, bad.kind) == (7, Finding.EDITED)
    for changed in (lines[1:], lines[:-1], [*lines, lines[-1]], [lines[1], lines[0], *lines[2:]]):
        bad = verify(write_jsonl(path, "".join(changed), manifest)).first_bad
        assert bad is not None
        assert bad.kind is Finding.DIFFERS
    for change in ({"signature": "00"}, {"records": 3}, {"key_id": "x"}, {"sha256": "0"}):
        bad = verify(write_jsonl(path, text, {**manifest, **change})).first_bad
        assert bad is not None
        assert bad.kind is Finding.DIFFERS


def test_a_csv_export_has_its_manifest_beside_it(tmp_path: Path) -> None:
    """One column per field, formulas made harmless, and any change found."""
    text, manifest = export(ExportRequest(format=ExportFormat.CSV))
    path = tmp_path / "export.csv"
    path.write_text(text, newline="")
    beside = tmp_path / f"export.csv{auditfiles.MANIFEST_SUFFIX}"
    beside.write_text(json.dumps({"manifest": manifest}))

    rows = list(csv.DictReader(io.StringIO(text)))
    report = verify(path)
    path.write_text(text.replace("web-1", "web-2", 1), newline="")
    changed = verify(path)

    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == COUNT
    assert (rows[0]["actor"], rows[1]["actor"], rows[0]["fields"]) == ("'=cmd()", "b", '{"cpus":2}')
    assert (report.first_bad, report.records) == (None, COUNT)
    assert changed.first_bad is not None


def test_an_empty_export_is_one(tmp_path: Path) -> None:
    """Nothing found is signed too."""
    text, manifest = export(ExportRequest(filter=RecordFilter(actor="nobody")))

    report = verify(write_jsonl(tmp_path / "export", text, manifest))

    assert (text, report.records, report.first_bad) == ("", 0, None)


def test_exports_are_bounded_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few at a time, and one that nobody reads makes room."""

    async def scenario() -> None:
        store = MemoryAuditStore(node_id="node", signer=SIGNER)
        await store.append(events(COUNT))
        exporter = Exporter(lambda: store, SIGNER, "node")
        for _ in range(audit_export.EXPORTS_MAX):
            await exporter.next_piece(ExportRequest(), time_s=0.0)
        with pytest.raises(AuditRefusedError, match="under way"):
            await exporter.next_piece(ExportRequest(), time_s=0.0)
        monkeypatch.setattr(audit_export, "IDLE_S", -1.0)
        page = await exporter.next_piece(ExportRequest(), time_s=0.0)
        with pytest.raises(AuditRefusedError, match="no export"):
            await exporter.next_piece(ExportRequest(export="x"), time_s=0.0)
        assert page.export

    asyncio.run(scenario())


def node_files(directory: Path, count: int = 12) -> Path:
    """The audit files of a node, of two days."""
    records = chain_of(events(count))
    lines = [encode(record_map(record)) for record in records]
    (directory / "audit.000000000001.jsonl").write_bytes(b"".join(lines[:5]))
    (directory / "audit.jsonl").write_bytes(b"".join(lines[5:]) + b'{"torn')
    statements = audit_export_statements(count)
    (directory / CHECKPOINT_FILE_NAME).write_bytes(statements)
    remember_key(directory / KEYS_FILE_NAME, SIGNER, now_us=1)
    return directory


def audit_export_statements(count: int) -> bytes:
    """Checkpoints of such a chain as lines."""
    checkpoints = checkpoints_every(chain_of(events(count)), 5)
    return b"".join(encode(to_plain(found)) for found in checkpoints)


def test_files_verify_without_the_node(tmp_path: Path) -> None:
    """The chain goes through all files; what no checkpoint covers yet is said."""
    report = verify(node_files(tmp_path), None)

    assert (report.first_bad, report.records) == (None, 12)
    assert (report.covered, report.seq) == (10, 12)


CHANGES = [
    ("audit.000000000001.jsonl", lambda text: text.replace("web-1", "web-2", 1), 1, Finding.EDITED),
    ("audit.jsonl", lambda text: text.replace("web-1", "web-2", 1), 6, Finding.EDITED),
    ("audit.jsonl", lambda text: "\n".join(text.splitlines()[1:]), 6, Finding.DELETED),
    ("audit.jsonl", lambda text: "\n".join(text.splitlines()[:3]), 8, Finding.TRUNCATED),
    ("audit.jsonl", lambda text: "what\n" + text, 6, Finding.EDITED),
    ("audit.000000000001.jsonl", lambda text: "", 1, Finding.DELETED),
    (CHECKPOINT_FILE_NAME, lambda text: text.replace('"count":5', '"count":6'), 1,
     Finding.CHECKPOINT_FORGED),
    (CHECKPOINT_FILE_NAME, lambda text: text + "what\n", 1, Finding.CHECKPOINT_FORGED),
    (CHECKPOINT_FILE_NAME, lambda text: "\n".join(text.splitlines()[1:]) + "\n", 1,
     Finding.CHECKPOINT_MISSING),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "seq", "kind"), CHANGES)
def test_changed_files_are_found(
    tmp_path: Path, name: str, change: object, seq: int, kind: Finding
) -> None:
    """Whatever is done to the files, the first bad record is named."""
    path = node_files(tmp_path) / name
    assert callable(change)
    path.write_text(change(path.read_text()))

    bad = verify(tmp_path, None).first_bad

    assert bad is not None
    assert (bad.seq, bad.kind) == (seq, kind)


def test_what_is_no_audit_file_is_an_error(tmp_path: Path) -> None:
    """Each error says what to do."""
    with pytest.raises(CtlError, match=r"no audit\.jsonl"):
        verify(tmp_path)
    (tmp_path / "audit.jsonl").write_text("")
    with pytest.raises(UsageError, match="--public-key"):
        verify(tmp_path, None)
    with pytest.raises(UsageError, match="64 hexadecimal"):
        verify(tmp_path, "nothing")
    with pytest.raises(CtlError, match="can't read"):
        verify(tmp_path / "missing", PUBLIC_KEY)
