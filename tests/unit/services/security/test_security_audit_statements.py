"""Signed statements: what they cover, their file, and what a chain looks like against them."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.records import Plain
from services.security.audit import AuditRecord, Row, row_of
from services.security.audit_chain import ChainVerifier, Start, Witness
from services.security.audit_checkpoint import (
    ANCHOR,
    PERIOD_S,
    RECORDS,
    Checkpoint,
    from_plain,
    is_due,
    problem_of,
    sign_checkpoint,
    to_plain,
)
from services.security.audit_statements import (
    StatementCopies,
    StatementFile,
    read_keys,
    read_statements,
    remember_key,
)
from services.security.errors import SecurityFileError
from services.security.model import BadRecord, Finding
from tests.fixtures.audit_chains import (
    EVENT,
    KEYS,
    SIGNER,
    STRANGER,
    chain_of,
    checkpoint_at,
    checkpoints_every,
    events,
)

COUNT, STEP = 12, 4
CHANGES = [
    {"node_id": "other"},
    {"seq": 5},
    {"hash": bytes(32)},
    {"day": 1},
    {"time_us": 1},
    {"count": 9},
    {"previous": b"\1" * 32},
    {"kind": ANCHOR},
    {"signature": bytes(64)},
    {"signature": b""},
]


def good() -> tuple[list[AuditRecord], list[Checkpoint]]:
    """A chain and its checkpoints, the last of which is its head."""
    records = chain_of(events(COUNT))
    return records, checkpoints_every(records, STEP)


def rows_of(records: list[AuditRecord]) -> list[Row]:
    """The rows of records."""
    return [row_of(record) for record in records]


def found(
    records: list[AuditRecord],
    checkpoints: list[Checkpoint],
    head: Checkpoint | None,
    witness: Witness = Witness(),  # noqa: B008 - frozen
) -> BadRecord | None:
    """What a verification of a whole chain finds."""
    verifier = ChainVerifier(KEYS, witness=witness)
    last = records[-1].seq if records else 0
    now = [checkpoint for checkpoint in checkpoints if checkpoint.seq <= last]
    later = [checkpoint for checkpoint in checkpoints if checkpoint.seq > last]
    return verifier.check(rows_of(records), now) or verifier.finish(head, later)


def test_a_good_chain_is_covered_by_its_checkpoints() -> None:
    """Nothing is found, and the last checkpoint covers all."""
    records, checkpoints = good()
    verifier = ChainVerifier(KEYS)

    assert verifier.check(rows_of(records[:5]), checkpoints[:1]) is None
    assert verifier.check(rows_of(records[5:]), checkpoints[1:]) is None
    assert verifier.finish(checkpoints[-1]) is None
    assert (verifier.count, verifier.covered_seq) == (COUNT, COUNT)


@pytest.mark.parametrize("change", CHANGES)
def test_no_part_of_a_statement_can_be_changed(change: dict[str, Plain]) -> None:
    """Its signature covers all of it."""
    _records, checkpoints = good()

    assert problem_of(checkpoints[0], KEYS) == ""
    assert problem_of(replace(checkpoints[0], **change), KEYS) != ""


def test_a_statement_by_another_key_is_not_the_nodes() -> None:
    """Only known keys count."""
    records, _checkpoints = good()

    assert "which this node does not have" in problem_of(
        checkpoint_at(records, 4, signer=STRANGER), KEYS
    )


def test_a_statement_survives_json() -> None:
    """What is written is what is read, and anything else is refused."""
    _records, checkpoints = good()
    plain = json.loads(json.dumps(to_plain(checkpoints[1])))

    assert from_plain(plain) == checkpoints[1]
    for name in plain:
        for value in (None, 1.5, "zz", True):
            with pytest.raises(ValueError, match="no checkpoint"):
                from_plain(
                    {**plain, name: value if name not in ("kind", "node_id", "key_id") else 7}
                )


def test_checkpoints_are_due_by_number_time_and_day() -> None:
    """Each bound is tripped by itself, and one below it is not."""
    kept = checkpoint_at(chain_of(events(4)), 4)
    below = replace(
        kept, seq=kept.seq + RECORDS - 1, time_us=kept.time_us + int(PERIOD_S * 1e6) - 1
    )

    assert is_due(kept, None)
    assert not is_due(kept, kept)
    assert not is_due(below, kept)
    assert is_due(replace(below, seq=below.seq + 1), kept)
    assert is_due(replace(below, time_us=below.time_us + 1), kept)
    assert is_due(replace(below, day=kept.day + 1), kept)


def test_a_tail_that_was_cut_is_found() -> None:
    """By the head, by a checkpoint past the end, by the node's own file, each alone."""
    records, checkpoints = good()
    cut = records[:9]
    cut_head = checkpoint_at(cut, 9, checkpoints[1])
    files = Witness(checkpoints={12: checkpoints[2].digest()})
    tail = Witness(tail_seq=12, tail_hash=records[-1].hash)

    by_head = found(cut, checkpoints[:2], checkpoints[2])
    by_checkpoint = found(cut, checkpoints, cut_head)
    by_file = found(cut, checkpoints[:2], cut_head, files)
    by_tail = found(cut, checkpoints[:2], cut_head, tail)

    for bad in (by_head, by_checkpoint, by_file, by_tail):
        assert bad is not None
        assert (bad.seq, bad.kind) == (10, Finding.TRUNCATED)
        assert "records 10 to 12" in bad.reason
    assert found(cut, checkpoints[:2], cut_head) is None  # an old head that somebody kept


def test_a_chain_written_anew_is_found() -> None:
    """At the first checkpoint that it does not fit, which names the records in question."""
    records, checkpoints = good()
    anew = chain_of([replace(EVENT, actor="nobody")] * 8, first=5, prev_hash=records[3].hash)
    stranger = checkpoint_at([*records[:4], *anew], 12, checkpoints[0], STRANGER)

    old_ones = found([*records[:4], *anew], checkpoints, checkpoints[-1])
    own_ones = found([*records[:4], *anew], [checkpoints[0], stranger], stranger)

    assert old_ones is not None
    assert (old_ones.seq, old_ones.kind) == (5, Finding.REWRITTEN)
    assert "records 5 to 8" in old_ones.reason
    assert own_ones is not None
    assert (own_ones.seq, own_ones.kind) == (5, Finding.CHECKPOINT_FORGED)


def test_a_tail_written_anew_is_found_by_the_head() -> None:
    """Also what no checkpoint covers yet is signed."""
    records, checkpoints = good()
    anew = chain_of([replace(EVENT, actor="nobody")] * 4, first=9, prev_hash=records[7].hash)

    bad = found([*records[:8], *anew], checkpoints[:2], checkpoints[2])

    assert bad is not None
    assert (bad.seq, bad.kind) == (9, Finding.REWRITTEN)


def test_a_checkpoint_that_was_left_out_is_found() -> None:
    """The next one names it, or the node's own file has it."""
    records, checkpoints = good()
    files = Witness(checkpoints={it.seq: it.digest() for it in checkpoints})
    fewer = [checkpoints[0], checkpoints[2]]

    by_link = found(records, fewer, checkpoints[2])
    by_file = found(records, fewer, checkpoints[2], files)

    assert by_link is not None
    assert (by_link.seq, by_link.kind) == (5, Finding.CHECKPOINT_MISSING)
    assert by_file is not None
    assert (by_file.seq, by_file.kind) == (8, Finding.CHECKPOINT_MISSING)


def test_a_checkpoint_that_differs_from_the_files_is_found() -> None:
    """Even a good one: somebody has the key, or the file was changed."""
    records, checkpoints = good()
    other = Witness(checkpoints={8: bytes(32)})

    bad = found(records, checkpoints, checkpoints[-1], other)

    assert bad is not None
    assert (bad.seq, bad.kind) == (8, Finding.CHECKPOINT_FORGED)


def test_the_record_that_the_file_ends_with_must_be_there() -> None:
    """The newest record of the copy is compared."""
    records, checkpoints = good()

    bad = found(records, checkpoints, checkpoints[-1], Witness(tail_seq=7, tail_hash=bytes(32)))

    assert bad is not None
    assert (bad.seq, bad.kind) == (7, Finding.DIFFERS)


def test_a_chain_can_begin_after_an_anchor() -> None:
    """What is dropped is not missed, and the next record must follow it."""
    records, checkpoints = good()
    start = Start(seq=5, hash=records[4].hash, checkpoint=None, checkpoint_seq=5)

    verifier = ChainVerifier(KEYS, start=start)

    assert verifier.check(rows_of(records[5:]), checkpoints[1:]) is None
    bad = ChainVerifier(KEYS, start=start).check(rows_of(records[6:]))
    assert bad is not None
    assert (bad.seq, bad.kind) == (6, Finding.DELETED)


def test_the_file_keeps_each_statement_once(tmp_path: Path) -> None:
    """A new process finds what is there; half a line of a crash is written again."""
    _records, checkpoints = good()
    path = tmp_path / "checkpoints"
    StatementFile(path).append(checkpoints[:2])
    with path.open("ab") as file:
        file.write(b'{"kind":"che')

    again = StatementFile(path)
    again.append(checkpoints)

    assert read_statements(path) == (checkpoints, 0)
    assert (again.tail_seq, again.unreadable) == (12, 0)
    assert again.digests == {it.seq: it.digest() for it in checkpoints}


def test_the_file_forgets_what_an_anchor_replaces(tmp_path: Path) -> None:
    """Pruning leaves the anchor and what comes after it, in a new process too."""
    _records, checkpoints = good()
    path = tmp_path / "checkpoints"
    anchor = sign_checkpoint(replace(checkpoints[1], kind=ANCHOR), SIGNER)
    file = StatementFile(path)
    file.append([*checkpoints, anchor])

    file.prune(8)

    again = StatementFile(path)
    assert read_statements(path)[0] == [checkpoints[1], checkpoints[2], anchor]
    assert file.anchor == again.anchor == anchor
    assert set(file.digests) == set(again.digests) == {12}
    file.append(checkpoints[2:])
    assert len(read_statements(path)[0]) == 3


def test_lines_that_are_no_statements_are_counted(tmp_path: Path) -> None:
    """What somebody else wrote is told and does not stop the node."""
    path = tmp_path / "checkpoints"
    path.write_text('{"kind": "checkpoint"}\n[]\nnothing\n')
    path.chmod(0o600)

    assert StatementFile(path).unreadable == 3


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """As every file of the level."""
    path = tmp_path / "checkpoints"
    path.write_text("")
    path.chmod(0o666)

    with pytest.raises(SecurityFileError, match="0666"):
        StatementFile(path)


def test_copies_go_where_the_operator_wants_them(tmp_path: Path) -> None:
    """Each statement is appended to the node's file there; what fails is told and tried again."""
    _records, checkpoints = good()
    told: list[str] = []
    arrived = threading.Event()

    def tell(trouble: str) -> None:
        told.append(trouble)
        arrived.set()

    missing = tmp_path / "there"
    copies = StatementCopies(node_id="rack/1", directory=missing, to_syslog=False, on_trouble=tell)
    copies.put(checkpoints[:1])
    assert arrived.wait(10)
    missing.mkdir()
    copies.put(checkpoints[1:])
    copies.close()

    assert "No such file" in told[0]
    assert told[-1] == ""
    assert copies.path == missing / "rack_1.checkpoints.jsonl"
    assert read_statements(copies.path) == (checkpoints, 0)


def test_keys_are_remembered(tmp_path: Path) -> None:
    """A key that signs no more can still be verified with."""
    path = tmp_path / "keys"

    remember_key(path, STRANGER, now_us=1)
    remember_key(path, SIGNER, now_us=2)
    known = remember_key(path, SIGNER, now_us=3)

    assert set(known) == set(read_keys(path)) == {SIGNER.key_id, STRANGER.key_id}
    assert len(path.read_text().splitlines()) == 2
