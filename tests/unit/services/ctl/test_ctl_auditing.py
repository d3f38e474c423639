"""Audit records and reports as lines for a person."""

from __future__ import annotations

from protocol.records import Plain
from services.ctl.auditing import paired, render, render_progress, render_report
from services.ctl.styled import to_plain
from services.security.model import BadRecord, Finding, VerifyReport

BASE_US = 1_700_000_000_000_000


def record(seq: int, outcome: str, call: str | None = None, **fields: Plain) -> dict[str, Plain]:
    """A record as the security process answers."""
    return {
        "seq": seq, "time_us": BASE_US + seq * 1000, "actor": "operator/alice",
        "action": "call:restart", "subject": "core/vm", "outcome": outcome, "boot_id": "spool:1",
        "fields": fields if call is None else {"correlation": call, "process": "core", **fields},
    }  # fmt: skip


def test_a_request_and_its_end_are_one_line() -> None:
    """At the place of the request, with how long it took; others stay by themselves."""
    records = [
        record(1, "requested", "a"),
        record(2, "requested", "b"),
        record(3, "denied", "c"),
        record(4, "success", "a", state="healthy"),
        record(5, "success"),
    ]

    entries = paired(records)
    texts = [to_plain(render(entry)) for entry in entries]

    assert [entry.record["seq"] for entry in entries] == [1, 2, 3, 5]
    assert "success in 3 ms" in texts[0]
    assert "state=healthy" in texts[0]
    assert "correlation=" not in texts[0]
    assert "requested" in texts[1]
    assert "denied" in texts[2]


def test_calls_of_other_processes_are_not_mixed_up() -> None:
    """One correlation may go through several."""
    other = record(2, "success", "a")
    other["fields"]["process"] = "core/dwcp"

    assert len(paired([record(1, "requested", "a"), other])) == 2


def test_nothing_in_a_record_steers_the_terminal() -> None:
    """Texts of others are shown harmlessly."""
    evil = {**record(1, "denied"), "actor": "a\x1b[2J", "subject": "b\nc"}

    text = to_plain(render(paired([evil])[0]))

    assert "\x1b" not in text
    assert "\n" not in text


def report(**change: Plain) -> VerifyReport:
    """A report."""
    return VerifyReport(**{"records": 10, "first_bad": None, "next": None, "seq": 10, **change})


def test_a_report_says_what_is_good_and_what_is_not() -> None:
    """The range, the anchor, what no checkpoint covers, or the first bad record."""
    bad = BadRecord(7, Finding.EDITED, "its content was changed")

    def text(found: VerifyReport, *, is_offline: bool = False) -> str:
        return "\n".join(to_plain(line) for line in render_report(found, is_offline=is_offline))

    assert text(report(covered=10)) == "10 records are good, 1 to 10"
    assert "dropped by retention" in text(report(seq=30, anchor=20))
    assert "newest 4" in text(report(covered=6), is_offline=True)
    assert "newest" not in text(report(covered=6))
    assert "record 7: edited: its content was changed" in text(report(first_bad=bad))
    assert "no records" in text(report(records=0, seq=0))


def test_progress_tells_the_time_left() -> None:
    """Once there is something to reckon with."""
    assert render_progress(0.001, 5.0) == "verified 0%"
    assert render_progress(0.25, 10.0) == "verified 25%, 30 s left"
    assert render_progress(2.0, 10.0) == "verified 100%, 0 s left"
