"""Audit records: canonical form, chain and signatures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.records import Plain
from services.security.audit import (
    DEPTH_MAX,
    FIELDS_BYTES_MAX,
    GENESIS,
    TEXT_LENGTH_MAX,
    AuditEvent,
    AuditRecord,
    ChainVerifier,
    canonical,
    make_event,
    seal_event,
)
from services.security.errors import AuditRefusedError
from services.security.keyring import derive_keyring

SIGNER = derive_keyring(bytes(range(32))).signer
STRANGER = derive_keyring(bytes(32)).signer
KEYS = {SIGNER.key_id: SIGNER.public_key}
EVENT = AuditEvent(
    time_us=1_700_000_000_123_456,
    actor="core/vm",
    action="vm:started",
    subject="web-1",
    outcome="success",
    fields={"cpus": 2},
    boot_id="boot",
    journal_seq=7,
)


def chain(count: int) -> list[AuditRecord]:
    """A good chain of records."""
    records: list[AuditRecord] = []
    for seq in range(1, count + 1):
        event = replace(EVENT, journal_seq=seq)
        prev_hash = records[-1].hash if records else GENESIS
        records.append(
            seal_event(event, seq=seq, node_id="node", prev_hash=prev_hash, signer=SIGNER)
        )
    return records


def first_bad(records: list[AuditRecord]) -> tuple[int, str] | None:
    """The first bad record's seq and reason."""
    verifier = ChainVerifier(KEYS, prev_hash=GENESIS)
    for record in records:
        if reason := verifier.check(record):
            return record.seq, reason
    return None


def test_the_canonical_bytes_never_change() -> None:
    """Version 1 of the form is fixed: records of today verify in years."""
    expected = (
        b'{"action":"vm:started","actor":"core/vm","boot_id":"boot","fields":{"cpus":2},'
        b'"journal_seq":7,"key_id":"key","node_id":"node","outcome":"success","seq":3,'
        b'"subject":"web-1","time_us":1700000000123456,"version":1}'
    )

    assert canonical(EVENT, seq=3, node_id="node", key_id="key") == expected


def test_a_good_chain_verifies() -> None:
    """Nothing is found where nothing is wrong."""
    assert first_bad(chain(5)) is None


CHANGES = [
    {"time_us": 1},
    {"actor": "operator"},
    {"action": "vm:stopped"},
    {"subject": "web-2"},
    {"outcome": "failure"},
    {"fields": {"cpus": 3}},
    {"boot_id": "other"},
    {"journal_seq": 99},
]


@pytest.mark.parametrize("change", CHANGES)
def test_each_changed_part_of_an_event_is_found(change: dict[str, Plain]) -> None:
    """No part of an event can be changed in place."""
    records = chain(3)
    records[1] = replace(records[1], event=replace(records[1].event, **change))

    assert first_bad(records) == (2, "its content was changed after it was written")


@pytest.mark.parametrize("change", [{"node_id": "other"}, {"key_id": "0" * 16}, {"seq": 4}])
def test_each_changed_part_of_a_record_is_found(change: dict[str, Plain]) -> None:
    """Nor can a record's place, owner or key."""
    records = chain(3)
    records[1] = replace(records[1], **change)

    found = first_bad(records)
    assert found is not None
    assert found[1] == "its content was changed after it was written"


def test_a_removed_record_is_found_at_the_next_one() -> None:
    """The record after the gap does not link to the one before it."""
    records = chain(4)
    del records[1]

    assert first_bad(records) == (3, "the record before it was removed, replaced or moved")


def test_a_removed_first_record_is_found() -> None:
    """A chain begins with 32 zero bytes and with nothing else."""
    assert first_bad(chain(3)[1:]) == (2, "the record before it was removed, replaced or moved")


def test_reordered_records_are_found() -> None:
    """Two records that changed places keep neither numbers nor links."""
    records = chain(4)
    swapped = [records[0], records[2], records[1], records[3]]
    renumbered = [replace(record, seq=seq) for seq, record in enumerate(swapped, 1)]

    assert first_bad(swapped) == (3, "the record before it was removed, replaced or moved")
    assert first_bad(renumbered) == (2, "its content was changed after it was written")


def test_a_repeated_record_is_found() -> None:
    """Numbers grow."""
    records = chain(2)

    assert first_bad([*records, records[1]]) == (2, "follows record 2: out of order")


def test_a_chain_rewritten_with_another_key_is_found() -> None:
    """Who can write the database but has no key of the node can't make a record."""
    forged = seal_event(EVENT, seq=1, node_id="node", prev_hash=GENESIS, signer=STRANGER)
    disguised = replace(
        seal_event(EVENT, seq=1, node_id="node", prev_hash=GENESIS, signer=SIGNER),
        signature=STRANGER.sign(forged.hash),
    )

    unknown = first_bad([forged])
    assert unknown is not None
    assert "which this node does not have" in unknown[1]
    assert first_bad([disguised]) == (1, "its signature is not by this node")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_malformed_signatures_are_found(signature: bytes) -> None:
    """A signature of any length is judged, never an exception."""
    records = [replace(chain(1)[0], signature=signature)]

    assert first_bad(records) == (1, "its signature is not by this node")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.text(), plain, max_size=4))
@settings(max_examples=100)
def test_every_plain_value_has_a_form_that_json_keeps(fields: dict[str, Plain]) -> None:
    """Fields of any plain value are taken, and come back from JSON as they went in."""
    event = make_event(replace(EVENT, fields=fields))

    assert json.loads(json.dumps(event.fields)) == event.fields
    assert make_event(event) == event


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"\x01\xff", "01ff"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (1e22, 10**22),
        (0.5, 0.5),
        ("a\0b", "a\\x00b"),
        ("\ud800", "\\ud800"),
        ((1, (2,)), [1, [2]]),
    ],
)
def test_values_that_jsonb_cannot_hold_get_a_fixed_form(value: Plain, kept: Plain) -> None:
    """Bytes, special numbers, NUL and half characters become text or whole numbers."""
    assert make_event(replace(EVENT, fields={"x": value})).fields == {"x": kept}


def test_fields_are_bounded_in_size() -> None:
    """Fields of exactly the limit are taken and one byte more is not."""
    room = FIELDS_BYTES_MAX - len('{"x":""}')

    assert make_event(replace(EVENT, fields={"x": "a" * room}))
    with pytest.raises(AuditRefusedError, match=str(FIELDS_BYTES_MAX)):
        make_event(replace(EVENT, fields={"x": "a" * (room + 1)}))


def test_fields_are_bounded_in_depth() -> None:
    """Fields nest as deep as the limit and no deeper."""
    value: Plain = 0
    for _ in range(DEPTH_MAX - 1):
        value = [value]

    assert make_event(replace(EVENT, fields={"x": value}))
    with pytest.raises(AuditRefusedError, match="nest"):
        make_event(replace(EVENT, fields={"x": [value]}))


@pytest.mark.parametrize("name", ["actor", "subject", "boot_id"])
def test_texts_are_bounded(name: str) -> None:
    """A text of the limit is taken and a longer one is not."""
    assert make_event(replace(EVENT, **{name: "x" * TEXT_LENGTH_MAX}))
    with pytest.raises(AuditRefusedError, match=name):
        make_event(replace(EVENT, **{name: "x" * (TEXT_LENGTH_MAX + 1)}))


@pytest.mark.parametrize("action", ["", "vm", "vm:", ":started", "VM:started", "vm:a b", "a:b:c"])
def test_actions_have_one_form(action: str) -> None:
    """An action is a noun and a verb."""
    with pytest.raises(AuditRefusedError, match="<noun>:<verb>"):
        make_event(replace(EVENT, action=action))
