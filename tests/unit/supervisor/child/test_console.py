"""Log lines as a person at a terminal reads them."""

from __future__ import annotations

import json

import pytest

from supervisor.child.console import render

STATE = {
    "record": {
        "seq": 1,
        "time_s": 1.0,
        "name": "component:state",
        "component": "data/database",
        "fields": {"state": "healthy", "reason": "", "pid": 42, "phase": 3, "level": "data"},
    },
    "event": "journal",
    "pid": 1,
    "component": "novacron",
    "level": "info",
    "timestamp": "2026-01-02T03:04:05.678900Z",
}
PLAIN = {
    "event": "tick",
    "component": "ticker",
    "pid": 7,
    "level": "error",
    "timestamp": "2026-01-02T03:04:05.678900Z",
    "reason": "two words",
    "count": 3,
}


def test_journal_records_are_unpacked() -> None:
    """A record of the journal is shown as what it tells of, not as a record."""
    line = render(json.dumps(STATE), colours=False)

    assert line[12:] == " data/database    component:state state=healthy pid=42"
    assert line[6:12] == "05.678"


def test_fields_follow_the_event() -> None:
    """An event's own fields are shown, quoted where they need it, and in colour where severe."""
    plain = render(json.dumps(PLAIN), colours=False)
    coloured = render(json.dumps(PLAIN), colours=True)

    assert plain[12:] == ' ticker           tick reason="two words" count=3'
    assert "\x1b[31mtick\x1b[0m" in coloured


def test_a_traceback_keeps_its_lines() -> None:
    """What went wrong follows below."""
    line = render(json.dumps({**PLAIN, "exception": "Traceback\n  here"}), colours=False)

    assert line.endswith("count=3\nTraceback\n  here")


@pytest.mark.parametrize("text", ["no JSON", "3", '{"event": "bare"}'])
def test_anything_can_be_rendered(text: str) -> None:
    """What is no entry stays as it is, and one without a time is shown all the same."""
    line = render(text, colours=False)

    assert line == text or "bare" in line
