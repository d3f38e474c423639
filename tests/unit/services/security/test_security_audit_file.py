"""The audit log's files: what they survive, and what they refuse."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from services.security.audit import AuditRecord
from services.security.audit_file import AuditFile, WaitingFile
from services.security.errors import SecurityFileError
from tests.fixtures import audit_chains
from tests.fixtures.audit_chains import events


def records(count: int) -> list[AuditRecord]:
    """A good chain."""
    return audit_chains.chain_of([replace(event, subject="ä") for event in events(count)])


def test_records_are_written_once_and_the_tail_is_found_again(tmp_path: Path) -> None:
    """Each record is one line; a repeated one is left out; a new process finds the end."""
    path = tmp_path / "audit.jsonl"
    chain = records(3)
    file = AuditFile(path)

    file.append(chain[:2])
    file.append(chain)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert lines[2]["hash"] == chain[2].hash.hex()
    assert lines[2]["subject"] == "ä"
    again = AuditFile(path)
    assert (again.tail_seq, again.tail_hash) == (3, chain[2].hash)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_a_line_is_cut_and_written_again(tmp_path: Path) -> None:
    """A crash in the middle of a write costs the half line only."""
    path = tmp_path / "audit.jsonl"
    chain = records(3)
    AuditFile(path).append(chain[:2])
    with path.open("ab") as file:
        file.write(b'{"seq":3,"no')

    again = AuditFile(path)
    assert again.tail_seq == 2
    again.append(chain)

    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_first_half_line_leaves_an_empty_file(tmp_path: Path) -> None:
    """A crash during the first write leaves nothing to begin with."""
    path = tmp_path / "audit.jsonl"
    path.write_text('{"seq":1')
    path.chmod(0o600)

    file = AuditFile(path)

    assert (file.tail_seq, file.is_readable, path.read_text()) == (0, True, "")


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"seq":1}', '{"seq":"x","hash":"00"}'])
def test_a_foreign_last_line_is_told(tmp_path: Path, line: str) -> None:
    """A file that we did not write this way says so instead of raising."""
    path = tmp_path / "audit.jsonl"
    path.write_text(line + "\n")
    path.chmod(0o600)

    assert not AuditFile(path).is_readable


def test_a_failed_write_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a record leaves the file as it was."""
    path = tmp_path / "audit.jsonl"
    chain = records(2)
    file = AuditFile(path)
    file.append(chain[:1])
    before = path.read_bytes()
    write = os.write
    room = [10]

    def fill_up(fd: int, data: bytes) -> int:
        taken = min(room.pop(), len(data)) if room else 0
        if not taken:
            raise OSError(28, "No space left on device")
        return write(fd, bytes(data[:taken]))

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(OSError, match="No space"):
        file.append(chain)
    monkeypatch.undo()

    assert path.read_bytes() == before
    assert file.tail_seq == 1
    file.append(chain)
    assert AuditFile(path).tail_seq == 2


@pytest.mark.parametrize("kind", [AuditFile, WaitingFile])
def test_files_of_others_are_refused(
    tmp_path: Path, kind: type[AuditFile] | type[WaitingFile]
) -> None:
    """A link, an open mode, a pipe or another owner ends the start."""
    target = tmp_path / "target"
    target.touch(mode=0o600)
    link = tmp_path / "link"
    link.symlink_to(target)
    wide = tmp_path / "wide"
    wide.touch()
    wide.chmod(0o640)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)

    for path, reason in ((link, "symbolic links"), (wide, "mode 0640"), (pipe, "regular file")):
        with pytest.raises(SecurityFileError, match=reason):
            kind(path)


def test_waiting_events_come_back_in_order(tmp_path: Path) -> None:
    """What was added is read by the next process as it was."""
    path = tmp_path / "waiting.jsonl"
    file = WaitingFile(path)
    file.add(events(2))
    file.add(events(3)[2:])

    assert WaitingFile(path).read() == tuple(events(3))
    file.clear()
    assert WaitingFile(path).read() == ()


def test_unreadable_waiting_lines_are_counted_and_kept_aside(tmp_path: Path) -> None:
    """A broken line costs no other line, and is kept for a person."""
    path = tmp_path / "waiting.jsonl"
    WaitingFile(path).add(events(1))
    with path.open("ab") as file:
        file.write(b'nonsense\n{"time_us":"x"}\n{"half":')

    waiting = WaitingFile(path)
    assert waiting.read() == tuple(events(1))
    assert waiting.unreadable == 2
    aside = waiting.set_aside()

    assert b"nonsense" in aside.read_bytes()
    assert path.read_bytes() == b""
    waiting.add(events(1))
    assert WaitingFile(path).read() == tuple(events(1))
