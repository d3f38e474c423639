"""Log lines, ours and those of PostgreSQL and Redis, as entries."""

from __future__ import annotations

import datetime as dt

import pytest

from protocol.messages.journal import JournalRecord
from services.ctl.logentry import ENTRY_LINES_MAX, parse_json, parse_moment, parse_raw
from services.ctl.logline import clock, render_event, render_log
from services.ctl.styled import to_plain

NOON_S = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC).timestamp()
LOCAL_NOON_S = dt.datetime(2026, 3, 1, 12).timestamp()  # noqa: DTZ001 - Redis logs local time


def test_json_line() -> None:
    """A line of a process of ours carries its time, level and component."""
    entry = parse_json(
        '{"timestamp": "2026-03-01T12:00:00.500000Z", "level": "warning", "component": "core/vm",'
        ' "event": "slow"}',
        "vm",
    )

    assert (entry.time_s, entry.level, entry.component) == (NOON_S + 0.5, "warning", "core/vm")
    assert entry.severity == 30


@pytest.mark.parametrize("text", ["not json", "[1, 2]", '"text"', "{" * 5000, '{"a": '])
def test_line_that_is_no_record_is_raw_text(text: str) -> None:
    """A broken line is shown as it is, and ends nothing."""
    entry = parse_json(text, "data/cache")

    assert (entry.time_s, entry.component, entry.fields["event"]) == (0.0, "data/cache", text)


@pytest.mark.parametrize(
    ("text", "time_s", "level", "event"),
    [
        ("2026-03-01 12:00:00.000 UTC [17] LOG:  ready", NOON_S, "info", "ready"),
        ("2026-03-01 13:00:00.000 +01 [17] FATAL:  no", NOON_S, "critical", "no"),
        ("2026-03-01 12:00:00 UTC ERROR:  bad query", NOON_S, "error", "bad query"),
        ("7:M 01 Mar 2026 12:00:00.250 * Ready", LOCAL_NOON_S + 0.25, "info", "Ready"),
        ("7:M 01 Mar 2026 12:00:00.250 # Memory", LOCAL_NOON_S + 0.25, "warning", "Memory"),
        ("7:M 01 Xyz 2026 12:00:00.250 # Memory", 0.0, "warning", "Memory"),
        ("2026-99-01 12:00:00.000 UTC [17] LOG:  x", 0.0, "info", "x"),
        ("\tselect 1", 0.0, "info", "\tselect 1"),
    ],
)
def test_raw_line(text: str, time_s: float, level: str, event: str) -> None:
    """PostgreSQL's and Redis's own lines have a time and a level too."""
    entry = parse_raw(text, "data/postgres")

    assert (entry.time_s, entry.level, entry.fields["event"]) == (time_s, level, event)


@pytest.mark.parametrize(
    ("value", "time_s"),
    [(NOON_S, NOON_S), ("2026-03-01T12:00:00Z", NOON_S), ("noon", 0.0), (True, 0.0), (None, 0.0)],
)
def test_moment(value: object, time_s: float) -> None:
    """A timestamp is a number or an ISO moment; nothing else is guessed at."""
    assert parse_moment(value) == time_s


def test_continuation_is_bounded() -> None:
    """An entry keeps a bounded number of further lines."""
    entry = parse_raw("2026-03-01 12:00:00.000 UTC [17] LOG:  x", "p")
    more = parse_raw("\ty", "p")

    assert entry.with_more(more, more).more == ("\ty", "\ty")
    assert len(entry.with_more(*[more] * (ENTRY_LINES_MAX + 5)).more) == ENTRY_LINES_MAX
    assert entry.with_more() is entry


def test_log_line() -> None:
    """Time, level, component, event and fields on one line; a traceback below it."""
    lines = render_log(
        {
            "timestamp": "x",
            "level": "error",
            "component": "core/vm",
            "event": "domain\x1b[2J_lost",
            "name": "vm1",
            "wait_s": 0.123456789,
            "nothing": None,
            "exception": "Traceback:\n  boom",
        },
        stamp="12:00:00.000",
    )

    assert [to_plain(spans) for spans in lines] == [
        "12:00:00.000  error    core/vm            domain\\x1b[2J_lost  name=vm1  wait_s=0.123457",
        "    Traceback:",
        "      boom",
    ]


def test_journal_record_in_the_log_is_shown_as_what_happened() -> None:
    """The root logs each journal record; a reader sees the event, not its wrapping."""
    record = {
        "seq": 7,
        "time_s": 0.0,
        "name": "component:exited",
        "component": "core/vm",
        "fields": {"kind": "crashed"},
    }

    (text,) = render_log({"level": "info", "event": "journal", "record": record}, stamp="now")

    assert to_plain(text) == "now  info     core/vm            component:exited  kind=crashed"


def test_long_value_is_cut() -> None:
    """One value can't flood the screen."""
    (text,) = (to_plain(spans) for spans in render_log({"event": "e", "v": "x" * 9000}, stamp=""))

    assert len(text) < 600
    assert text.endswith("…")


def test_event_line() -> None:
    """A journal record shows when, what, which component and its fields."""
    record = JournalRecord(
        seq=1,
        time_s=LOCAL_NOON_S + 0.25,
        name="component:state",
        component="core/vm",
        fields={"state": "healthy", "reason": "", "restarts": 0, "phase": 4, "level": "vm"},
    )

    text = to_plain(render_event(record))

    assert text == "12:00:00.250  core/vm            component:state  state=healthy  restarts=0"
    assert clock(LOCAL_NOON_S, is_dated=True) == "2026-03-01 12:00:00.000"
