"""What Redis is told about a node."""

from __future__ import annotations

import json

from protocol.messages.journal import JournalPage, JournalRecord
from services.data.node_mirror import NodeMirror


def _page(boot_id: str, *records: JournalRecord, lost: int = 0) -> JournalPage:
    last = records[-1].seq if records else 0
    return JournalPage(boot_id=boot_id, records=records, next=last + 1, lost=lost)


def _record(seq: int, name: str = "component:state", **fields: object) -> JournalRecord:
    component = "data/cache" if name == "component:state" else "novacron"
    return JournalRecord(seq=seq, time_s=9.0, name=name, component=component, fields=dict(fields))


def test_page_becomes_status_components_and_events() -> None:
    """Everything that the page says is stored and published, with its number."""
    mirror = NodeMirror("n1")

    update = mirror.apply(
        _page("b1", _record(1, state="healthy", pid=5), _record(2, "init:complete")), now_s=10.0
    )

    assert json.loads(update.status) == {
        "node_id": "n1", "boot_id": "b1", "state": "ready", "phase": 6, "seq": 2, "updated_s": 10.0,
    }  # fmt: skip
    assert json.loads(update.components["data/cache"])["state"] == "healthy"
    assert [json.loads(event)["seq"] for event in update.events] == [1, 2]
    assert json.loads(update.events[0])["node_id"] == "n1"
    assert update.is_whole
    changes = [json.loads(change) for change in update.changes]
    assert changes == [
        {"node_id": "n1", "component": "data/cache"},
        {"node_id": "n1", "component": ""},
    ]


def test_later_page_stores_what_changed_only() -> None:
    """An empty page renews the status and nothing else."""
    mirror = NodeMirror("n1")
    mirror.apply(_page("b1", _record(1, state="healthy")), now_s=1.0)

    update = mirror.apply(JournalPage(boot_id="b1", records=(), next=2), now_s=2.0)

    assert update.components == {}
    assert update.changes == ()
    assert not update.is_whole
    assert update.events == ()
    assert json.loads(update.status)["updated_s"] == 2.0


def test_whole_mirror_has_every_component_and_no_event() -> None:
    """A Redis that was away gets the state; the events of that time are over."""
    mirror = NodeMirror("n1")
    assert mirror.whole(0.0) is None
    mirror.apply(_page("b1", _record(1, state="healthy")), now_s=1.0)

    update = mirror.whole(2.0)

    assert update is not None
    assert list(update.components) == ["data/cache"]
    assert update.is_whole
    assert update.events == ()


def test_new_boot_forgets_the_components_of_the_earlier_one() -> None:
    """A component that the node no longer has does not linger."""
    mirror = NodeMirror("n1")
    mirror.apply(_page("b1", _record(1, state="healthy")), now_s=1.0)

    update = mirror.apply(_page("b2", _record(1, "init:config-loaded", phase=1)), now_s=2.0)

    assert update.is_whole
    assert update.components == {}


def test_successor_does_not_publish_what_its_predecessor_did() -> None:
    """A restarted process reads the journal from its start and goes on where the other stopped."""
    first = NodeMirror("n1")
    stored = first.apply(_page("b1", _record(1, state="healthy")), now_s=1.0).status
    second = NodeMirror("n1")

    second.published_to(stored)
    update = second.apply(_page("b1", _record(1, state="healthy"), _record(2, "x:y")), now_s=2.0)

    assert [json.loads(event)["seq"] for event in update.events] == [2]


def test_unreadable_predecessor_counts_for_nothing() -> None:
    """Whatever lies in Redis, the mirror starts."""
    mirror = NodeMirror("n1")

    for text in ("", "{", "[]", '{"boot_id": "b1"}', '{"boot_id": "b1", "seq": "x"}'):
        mirror.published_to(text)

    assert mirror.apply(_page("b1", _record(1, state="healthy")), now_s=1.0).events


def test_bytes_in_an_event_become_hexadecimal() -> None:
    """JSON has no bytes, and an event must not stop the mirror."""
    update = NodeMirror("n1").apply(_page("b", _record(1, "x:y", digest=b"\x01\xff")), now_s=1.0)

    assert json.loads(update.events[0])["fields"] == {"digest": "01ff"}
