"""The keyset's states: every change keeps the invariant, whatever the order."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.security.errors import DecryptionError, KeyExhaustedError, KeyRefusedError
from services.security.keys import keyset as changes
from services.security.keys.codec import Verdict, encode, judge
from services.security.keys.keyset import (
    GRACE_S,
    USES_MAX,
    USES_RESERVED,
    USES_ROTATE,
    KeyEntry,
    KeyPurpose,
    Keyset,
    KeyState,
)
from services.security.keys.master import MasterKey, parse_master

MASTER = MasterKey(bytes(range(32)))
DAY_S = 86400.0


def entry(number: int, state: KeyState = KeyState.ACTIVE, **more: object) -> KeyEntry:
    """A data key."""
    bare = KeyEntry(
        id=f"{number:016x}", purpose=KeyPurpose.DATA, state=state, created_s=0.0, wrapped=b""
    )
    wrapped = MASTER.wrap(bytes([number % 256]) * 32, bare, node_id="node", nonce=bytes(12))
    return replace(bare, wrapped=wrapped, **more)  # type: ignore[arg-type]  # fields by name


def keyset(*entries: KeyEntry) -> Keyset:
    """A keyset with an audit key."""
    audit = replace(entry(0xA0D17), purpose=KeyPurpose.AUDIT)
    return Keyset(
        node_id="node",
        generation=1,
        master_id=MASTER.id,
        entries=(audit, *(entries or (entry(1),))),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["rotate", "reserve", "settle", "remove", "backup", "rewrap"]),
            st.integers(0, 30),
            st.floats(0, 30 * DAY_S),
            st.sets(st.integers(1, 12)),
        ),
        max_size=25,
    )
)
def test_no_order_of_changes_breaks_the_invariant(
    steps: list[tuple[str, int, float, set[int]]],
) -> None:
    """One key is active, the generation grows, uses do not shrink, and no used key goes."""
    found, number, now_s = keyset(), 2, 0.0
    for what, pick, pause_s, used_numbers in steps:
        now_s += pause_s
        before = found
        used = {f"{one:016x}" for one in used_numbers}
        idle = {one.id for one in before.data if one.state is not KeyState.ACTIVE}
        match what:
            case "rotate":
                found, number = changes.rotate(found, entry(number)), number + 1
            case "reserve":
                found = changes.reserve(found)
            case "settle":
                found = changes.settle(found, used, idle=idle, now_s=now_s) or found
            case "backup":
                found = changes.note_backup(found, now_s=now_s)
            case "rewrap":
                wrapped = {one.id: b"x" for one in found.entries}
                found = changes.rewrap(found, found.master_id, wrapped)
            case "remove":
                picked = found.data[pick % len(found.data)]
                try:
                    found = changes.remove(found, [picked.id], used=used, now_s=now_s)
                except KeyRefusedError:
                    pass
                else:
                    assert picked.state is KeyState.RETIRED
                    assert picked.id not in used
        assert changes.fault(found) == ""
        assert found is before or found.generation > before.generation
        kept = {one.id: one for one in found.entries}
        for one in before.entries:
            assert what == "remove" or one.id in kept
            assert one.id not in kept or kept[one.id].reserved >= one.reserved
        if what == "settle":
            assert not any(one.state is KeyState.RETIRED for one in found.data if one.id in used)


def test_a_key_that_was_active_during_the_scan_is_not_retired() -> None:
    """What it sealed may lie where the scan had passed already."""
    found = changes.rotate(keyset(), entry(2))

    assert changes.settle(found, (), idle=(), now_s=0.0) is None


def test_a_retired_key_that_is_found_in_use_comes_back() -> None:
    """A restored database may need it again."""
    first = entry(1).id
    found = changes.rotate(keyset(), entry(2))
    retired = changes.settle(found, (), idle=[first], now_s=5.0)
    assert retired is not None

    revived = changes.settle(retired, [first], idle=[first], now_s=9.0)

    assert revived is not None
    again = revived.find(first)
    assert again is not None
    assert (again.state, again.retired_s) == (KeyState.DECRYPT_ONLY, None)


@pytest.mark.parametrize(
    ("since_s", "match"), [(GRACE_S - 1, "can be removed in 0 h"), (GRACE_S, "")]
)
def test_removal_waits_for_the_grace_time(since_s: float, match: str) -> None:
    """A second before its time a key stays, at its time it may go."""
    found = keyset(entry(1, KeyState.RETIRED, retired_s=100.0), entry(2))
    key_id = entry(1).id

    if match:
        with pytest.raises(KeyRefusedError, match=match):
            changes.remove(found, [key_id], used=(), now_s=100.0 + since_s)
    else:
        assert changes.remove(found, [key_id], used=(), now_s=100.0 + since_s).find(key_id) is None


def test_what_can_not_be_removed_says_why() -> None:
    """Unknown, active, decrypt-only and used keys stay."""
    found = keyset(
        entry(1, KeyState.DECRYPT_ONLY), entry(2, KeyState.RETIRED, retired_s=0.0), entry(3)
    )
    for number, used, match in (
        (9, (), "no data key"),
        (1, (), "is decrypt-only"),
        (3, (), "is active"),
        (2, (entry(2).id,), "still sealed"),
    ):
        with pytest.raises(KeyRefusedError, match=match):
            changes.remove(found, [entry(number).id], used=used, now_s=1e9)


@pytest.mark.parametrize(
    ("created_s", "reserved", "reason"),
    [
        (0.0, 0, "age"),
        (1.0, 0, ""),
        (2 * DAY_S, 0, "age"),
        (2 * DAY_S - 1, 0, ""),
        (1.0, USES_ROTATE, "uses"),
        (1.0, USES_ROTATE - 1, ""),
    ],
)
def test_a_new_key_is_due_by_age_and_by_uses(created_s: float, reserved: int, reason: str) -> None:
    """At the interval, at half of the uses, and when the key is from the future."""
    found = keyset(entry(1, created_s=created_s, reserved=reserved))

    assert changes.rotation_reason(found, now_s=DAY_S, interval_s=DAY_S) == reason


def test_uses_end_below_the_bound() -> None:
    """The last reservation fits exactly, the next one is refused, far below 2^32."""
    found = keyset(entry(1, reserved=USES_MAX - USES_RESERVED))
    last = changes.reserve(found)

    assert last.active.reserved == USES_MAX < 2**32
    with pytest.raises(KeyExhaustedError, match="may seal no more"):
        changes.reserve(last)


def test_the_number_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit a rotation says what to do."""
    monkeypatch.setattr(changes, "KEYS_MAX", 3)
    found = changes.rotate(keyset(), entry(2))

    with pytest.raises(KeyRefusedError, match="keys remove --retired"):
        changes.rotate(found, entry(3))


def test_a_keyset_comes_back_from_its_bytes() -> None:
    """Encoding and judging are inverse, and keys unwrap."""
    found = changes.rotate(keyset(), entry(2))

    judged = judge(encode(found, MASTER), {MASTER.id: MASTER})

    assert judged.verdict is Verdict.GOOD
    assert judged.keyset == found
    assert MASTER.unwrap(found.active, node_id="node") == bytes([2]) * 32


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_change_of_the_bytes_passes(data: st.DataObject) -> None:
    """Whatever single byte is changed, or wherever it is cut off, it is not taken for good."""
    content = encode(keyset(entry(1, KeyState.DECRYPT_ONLY), entry(2)), MASTER)
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        changed = content[:position]
    else:
        byte = data.draw(st.integers(0, 255).filter(lambda one: one != content[position]))
        changed = content[:position] + bytes([byte]) + content[position + 1 :]

    judged = judge(changed, {MASTER.id: MASTER})

    assert (
        judged.verdict is not Verdict.GOOD
        or judged.keyset == judge(content, {MASTER.id: MASTER}).keyset
    )
    if len(changed) < len(content):
        assert judged.verdict is Verdict.TORN


def test_an_entry_taken_out_is_an_edit() -> None:
    """A keyset without one of its keys is whole and not authentic."""
    fields = json.loads(encode(keyset(entry(1, KeyState.DECRYPT_ONLY), entry(2)), MASTER))
    del fields["entries"][1]
    content = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    assert judge(content, {MASTER.id: MASTER}).verdict is Verdict.EDITED
    assert judge(content, {}).verdict is Verdict.FOREIGN
    assert judge(None, {}).verdict is Verdict.MISSING
    assert judge(bytes(4096), {}).verdict is Verdict.TORN


def test_what_breaks_the_invariant_is_not_written() -> None:
    """A fault of ours ends before the disk."""
    with pytest.raises(ValueError, match="not exactly one"):
        encode(keyset(entry(1, KeyState.DECRYPT_ONLY)), MASTER)
    with pytest.raises(ValueError, match="can't be written under"):
        encode(keyset(), MasterKey(bytes(32)))


def test_a_wrapped_key_opens_for_its_entry_alone() -> None:
    """Another id, purpose, node or master key does not unwrap it."""
    one = entry(1)
    for master, other, node_id in (
        (MASTER, replace(one, id="f" * 16), "node"),
        (MASTER, replace(one, purpose=KeyPurpose.AUDIT), "node"),
        (MASTER, one, "other"),
        (MasterKey(bytes(32)), one, "node"),
        (MASTER, replace(one, wrapped=b""), "node"),
    ):
        with pytest.raises(DecryptionError):
            master.unwrap(other, node_id=node_id)


@pytest.mark.parametrize(
    ("content", "is_key"),
    [
        (bytes(32), True),
        (b"0f" * 32, True),
        (b" " + b"0F" * 32 + b"\n", True),
        (bytes(31), False),
        (b"0f" * 31, False),
        (b"0g" * 32, False),
        (b"", False),
    ],
)
def test_a_master_key_from_outside_is_bytes_or_digits(content: bytes, is_key: bool) -> None:
    """Two forms are taken and nothing else."""
    assert (parse_master(content) is not None) is is_key


def test_a_master_key_does_not_show_itself() -> None:
    """Neither its text nor its id contains the key."""
    assert bytes(range(32)).hex() not in repr(MASTER)
    assert "00010203" not in MASTER.id
