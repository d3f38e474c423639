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
    TEXT_LENGTH_MAX,
    AuditRecord,
    canonical,
    chain_event,
    event_of_row,
    make_event,
    record_of,
    row_of,
)
from services.security.audit_chain import ChainVerifier
from services.security.errors import AuditRefusedError
from tests.fixtures.audit_chains import (
    EVENT,
    KEYS,
    STRANGER,
    chain_1,
    chain_of,
    events,
    sealed_1,
)

GENESIS = bytes(32)
VERSIONS = [1, 2]


def chain(count: int, version: int) -> list[AuditRecord]:
    """A good chain of a version."""
    return chain_1(count) if version == 1 else chain_of(events(count))


def first_bad(records: list[AuditRecord]) -> tuple[int, str] | None:
    """The first bad record's seq and reason."""
    bad = ChainVerifier(KEYS).check([row_of(record) for record in records])
    return None if bad is None else (bad.seq, bad.reason)


def test_the_canonical_bytes_never_change() -> None:
    """Version 1 of the form is fixed: records of today verify in years."""
    expected = (
        b'{"action":"vm:started","actor":"core/vm","boot_id":"boot","fields":{"cpus":2},'
        b'"journal_seq":7,"key_id":"key","node_id":"node","outcome":"success","seq":3,'
        b'"subject":"web-1","time_us":1700000000123456,"version":1}'
    )

    assert canonical(EVENT, seq=3, node_id="node", key_id="key") == expected


def test_the_hash_of_version_2_never_changes() -> None:
    """Version 2 is as fixed."""
    record = chain_event(EVENT, seq=3, node_id="node", prev_hash=GENESIS, day=20_000)

    assert record.hash.hex() == ("4799f918cd259cedcd847142cc7dc10c19c8a2639f0a43dabcd9862673891c84")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_good_chain_verifies(version: int) -> None:
    """Nothing is found where nothing is wrong, and a record survives the way to a row and back."""
    records = chain(5, version)

    assert first_bad(records) is None
    assert [record_of(row_of(record)) for record in records] == records


def test_a_chain_goes_on_from_the_older_version() -> None:
    """Records of version 2 follow those of version 1 by their hashes."""
    old = chain_1(3)
    new = chain_of(events(3, first=4), first=4, prev_hash=old[-1].hash)

    assert first_bad([*old, *new]) is None
    assert first_bad([*old[:2], *new]) == (3, "was removed")


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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("change", CHANGES)
def test_each_changed_part_of_an_event_is_found(change: dict[str, Plain], version: int) -> None:
    """No part of an event can be changed in place."""
    records = chain(3, version)
    records[1] = replace(records[1], event=replace(records[1].event, **change))

    assert first_bad(records) == (2, "its content was changed after it was written")


@pytest.mark.parametrize(
    ("version", "change"),
    [
        (1, {"node_id": "other"}),
        (1, {"key_id": "0" * 16}),
        (1, {"version": 2}),
        (2, {"node_id": "other"}),
        (2, {"day": 20_001}),
        (2, {"version": 1}),
        (2, {"version": 3}),
    ],
)
def test_each_changed_part_of_a_record_is_found(version: int, change: dict[str, Plain]) -> None:
    """Nor can a record's place, owner, key or version."""
    records = chain(3, version)
    records[1] = replace(records[1], **change)

    assert first_bad(records) == (2, "its content was changed after it was written")


@pytest.mark.parametrize("change", [{"key_id": "0" * 16}, {"signature": b"x"}])
def test_what_version_2_has_not_is_found(change: dict[str, Plain]) -> None:
    """No column can be used for anything else."""
    records = chain(3, 2)
    records[1] = replace(records[1], **change)

    assert first_bad(records) == (2, "has a signature, which its version has not")


def test_texts_cannot_be_moved_from_one_part_to_the_next() -> None:
    """A zero byte, which separates the parts, is no part of any: a file may hold one."""
    record = chain(1, 2)[0]
    moved = replace(record.event, actor="core/vm\0vm:started", action="web-1", subject="")

    assert first_bad([replace(record, event=moved)]) is not None


def test_a_removed_record_is_found() -> None:
    """By its number, or in version 1 at the next one, which does not link to the one before it."""
    old, new = chain(4, 1), chain(4, 2)
    del old[1], new[1]

    assert first_bad(old) == (3, "the record before it was removed, replaced or moved")
    assert first_bad(new) == (2, "was removed")
    assert first_bad(chain(9, 2)[4:]) == (1, "records 1 to 4 were removed")


def test_a_removed_first_record_is_found() -> None:
    """A chain begins with 32 zero bytes and with nothing else."""
    reason = "the record before it was removed, replaced or moved"
    assert first_bad(chain(3, 1)[1:]) == (2, reason)


def test_reordered_records_are_found() -> None:
    """Two records that changed places keep neither numbers nor links."""
    records = chain(4, 2)
    swapped = [records[0], records[2], records[1], records[3]]
    renumbered = [replace(record, seq=seq) for seq, record in enumerate(swapped, 1)]

    assert first_bad(swapped) == (2, "was removed")
    assert first_bad(renumbered) == (2, "is record 3, which was moved here")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_repeated_record_is_found(version: int) -> None:
    """Numbers grow."""
    records = chain(2, version)

    assert first_bad([*records, records[1]]) == (2, "follows record 2: out of order")


def test_a_chain_rewritten_with_another_key_is_found() -> None:
    """Who can write the database but has no key of the node can't make a record of version 1."""
    forged = sealed_1(EVENT, seq=1, prev_hash=GENESIS, signer=STRANGER)
    own = sealed_1(EVENT, seq=1, prev_hash=GENESIS)
    disguised = replace(own, signature=forged.signature)

    unknown = first_bad([forged])
    assert unknown is not None
    assert "which this node does not have" in unknown[1]
    assert first_bad([disguised]) == (1, "its signature is not by this node")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_malformed_signatures_are_found(signature: bytes) -> None:
    """A signature of any length is judged, never an exception."""
    records = [replace(chain(1, 1)[0], signature=signature)]

    assert first_bad(records) == (1, "its signature is not by this node")


@pytest.mark.parametrize("text", ["", "[1]", "{", "9" * 5000, "[" * 5000])
def test_fields_of_any_text_are_judged(text: str) -> None:
    """What somebody wrote into a row is named and never an exception."""
    for version in VERSIONS:
        row = row_of(chain(1, version)[0])._replace(fields=text)

        bad = ChainVerifier(KEYS).check([row])

        assert bad is not None
        assert event_of_row(row).fields


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
