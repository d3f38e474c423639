"""Files, nft's answers, the kernel's messages and health checks as the pure parts read them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from services.network.segments.changes import concerns_table
from services.network.segments.errors import NftFailedError, SegmentsStateError
from services.network.segments.nft import parse_listing, take_snapshot
from services.network.segments.probe import SegmentCheck
from services.network.segments.render import Present, restore
from services.network.segments.store import FORMAT, Confirmed, Journal, SegmentStore
from tests.unit.services.network.segments.segments_samples import document, interface, rule

DOCUMENT = document(interface(1, rule("in", "any")))


def test_what_is_written_is_read_and_the_journal_ends(tmp_path: Path) -> None:
    """Both files survive, are private, and leave nothing beside them."""
    store = SegmentStore(tmp_path / "network")
    confirmed = Confirmed(format=FORMAT, revision=3, document=DOCUMENT, fingerprint="ab")
    journal = Journal(format=FORMAT, revision=4, previous=DOCUMENT)

    store.write_confirmed(confirmed)
    store.write_journal(journal)

    assert (store.read_confirmed(), store.read_journal()) == (confirmed, journal)
    files = sorted((tmp_path / "network").iterdir())
    assert [file.name for file in files] == ["segments.journal", "segments.json"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    store.end_journal()
    store.end_journal()
    assert store.read_journal() is None


def test_a_store_without_files_is_empty(tmp_path: Path) -> None:
    """And reading makes no directory."""
    store = SegmentStore(tmp_path / "network")

    assert (store.read_confirmed(), store.read_journal()) == (None, None)
    assert not (tmp_path / "network").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "expected a map"),
        ('{"format": 2, "revision": 1}', "its format is 2, not 1"),
        ('{"revision": 1}', "its format is None"),
        ('{"format": 1, "revision": 1}', "lacks document"),
        ('{"format": 1, "revision": 1, "document": {"guarded": ["*"]}}', "guarded has"),
    ],
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    """It is never taken for an empty one."""
    (tmp_path / "segments.json").write_text(text)

    with pytest.raises(SegmentsStateError) as caught:
        SegmentStore(tmp_path).read_confirmed()

    assert message in str(caught.value)
    assert "move it away" in str(caught.value)


def listing(*items: dict[str, Any]) -> bytes:
    """Nft's answer with these items."""
    return json.dumps({"nftables": [{"metainfo": {"version": "1"}}, *items]}).encode()


CHAIN = {"chain": {"name": "c", "handle": 1}}
RULES = [{"rule": {"chain": "c", "handle": n, "expr": [n]}} for n in (2, 3)]
DROPS = {
    "set": {
        "name": "dropped-in",
        "handle": 4,
        "elem": [{"elem": {"val": "vnet1", "counter": {"packets": 7, "bytes": 99}}}],
    }
}
FLOWS = {"set": {"name": "flows4", "handle": 5, "timeout": 60, "elem": [1, 2, 3]}}


def test_a_listing_gives_names_counts_and_flows() -> None:
    """Everything that the service needs comes from one run of nft."""
    found = parse_listing(listing(CHAIN, *RULES, DROPS, FLOWS))

    assert found.present == Present(
        frozenset({"dropped-in", "flows4"}), frozenset(), frozenset({"c"})
    )
    assert found.drops == {("dropped-in", "vnet1"): 7}
    assert found.flows == 3


def test_counts_flows_handles_and_order_of_objects_are_no_difference() -> None:
    """Traffic must not look like drift."""
    counted = json.loads(json.dumps(DROPS).replace("7", "8").replace('"handle": 4', '"handle": 9'))
    flowing = {"set": {**FLOWS["set"], "elem": [4]}}

    one = parse_listing(listing(CHAIN, *RULES, DROPS, FLOWS))
    other = parse_listing(listing(flowing, CHAIN, counted, *RULES))

    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    "items",
    [
        (CHAIN, RULES[0], DROPS, FLOWS),
        (CHAIN, RULES[1], RULES[0], DROPS, FLOWS),
        (CHAIN, *RULES, FLOWS),
        (CHAIN, *RULES, {"set": {**DROPS["set"], "elem": []}}, FLOWS),
    ],
)
def test_rules_their_order_and_elements_are_a_difference(items: tuple[dict[str, Any], ...]) -> None:
    """Everything that decides about a packet counts."""
    expected = parse_listing(listing(CHAIN, *RULES, DROPS, FLOWS)).fingerprint

    assert parse_listing(listing(*items)).fingerprint != expected


@pytest.mark.parametrize("text", [b"", b"[]", b'{"nftables": [1]}', b'{"nftables": [{"set": {}}]}'])
def test_an_answer_that_is_none_is_refused(text: bytes) -> None:
    """Another version of nft is not half understood."""
    with pytest.raises(NftFailedError, match="not understood"):
        parse_listing(text)


def test_a_snapshot_is_restored_in_an_order_that_nft_takes() -> None:
    """Chains before the maps that name them, rules last, flows left where they are."""
    mapping = {"map": {"name": "m", "elem": [["a", {"jump": {"target": "c"}}]]}}
    snapshot = take_snapshot(listing(mapping, FLOWS, DROPS, *RULES, CHAIN))
    present = Present(frozenset({"flows4", "other"}), frozenset({"m"}), frozenset({"c"}))

    bodies = [command.body for command in restore(present, snapshot)]

    verbs = [f"{verb} {next(iter(body))}" for item in bodies for verb, body in item.items()]
    assert verbs == [
        *("add table", "flush chain", "delete map", "delete chain", "delete set"),
        *("add chain", "add set", "add map", "add rule", "add rule"),
    ]
    assert "handle" not in json.dumps(bodies)


def message(table: bytes, *, kind: int = 1) -> bytes:
    """A netlink message about a table."""
    value = table + b"\0"
    attribute = struct.pack("=HH", 4 + len(value), kind) + value
    body = bytes(4) + attribute + bytes(-len(attribute) % 4)
    return struct.pack("=IHHII", 16 + len(body), 0x0A00, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(b"novacron-segments"), True),
        (message(b"other") + message(b"novacron-segments"), True),
        (message(b"other"), False),
        (message(b"novacron-segments2"), False),
        (message(b"novacron-segments", kind=2), False),
        (message(b"novacron-segments")[:20], False),
        (b"", False),
        (struct.pack("=IHHII", 0, 0, 0, 0, 0), True),
    ],
)
def test_only_messages_about_our_table_count(data: bytes, *, expected: bool) -> None:
    """What is cut off is ignored, and what can't be a message means: look."""
    assert concerns_table(data) is expected


@pytest.mark.parametrize(
    ("target", "is_valid"),
    [
        ("10.0.0.1:80", True),
        ("[fd00::1]:80", True),
        ("fd00::1:80", False),
        ("host:80", False),
        ("10.0.0.1", False),
        ("10.0.0.1:0", False),
        ("10.0.0.1:65536", False),
    ],
)
def test_a_target_is_an_address_and_a_port(target: str, *, is_valid: bool) -> None:
    """Names would need a resolver, which the change may cut off."""
    if is_valid:
        SegmentCheck(targets=(target,))
    else:
        with pytest.raises(ValueError, match="targets has"):
            SegmentCheck(targets=(target,))


@pytest.mark.parametrize(("timeout_s", "count"), [(0.05, 1), (61.0, 1), (5.0, 33)])
def test_a_check_is_bounded(timeout_s: float, count: int) -> None:
    """Neither its time nor its targets are without a limit."""
    with pytest.raises(ValueError, match="allowed"):
        SegmentCheck(targets=("10.0.0.1:80",) * count, timeout_s=timeout_s)
