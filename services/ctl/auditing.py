"""Audit records and what a verification found, as lines for a person; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.records import Plain
from services.ctl.logline import clock, field_spans
from services.ctl.styled import Line, Span, Tone, line, pad, printable
from services.security.model import VerifyReport

Record = Mapping[str, Plain]

_ACTOR_CELLS = 17
_TONES = {
    "success": Tone.GOOD,
    "failure": Tone.BAD,
    "denied": Tone.BAD,
    "requested": Tone.NOTE,
}
# What says which records belong together, which their being on one line says to a person.
_PAIRING = "correlation"


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, with the one that says how it ended when both are known."""

    record: Record
    ended: Record | None = None


def paired(records: Iterable[Record]) -> list[Entry]:
    """Put what was requested and how it ended together, at the place of the request."""
    entries: list[Entry] = []
    requested: dict[tuple[Plain, ...], int] = {}
    for record in records:
        key = _key(record)
        if key is not None and record["outcome"] == "requested":
            requested[key] = len(entries)
        elif key in requested:
            at = requested.pop(key)
            entries[at] = Entry(entries[at].record, record)
            continue
        entries.append(Entry(record))
    return entries


def render(entry: Entry) -> Line:
    """One entry: time, actor, what, of what, how it ended, details."""
    record = entry.record
    outcome = str(record["outcome"])
    fields = {**record["fields"], **({} if entry.ended is None else entry.ended["fields"])}
    shown = [Span(outcome, _TONES.get(outcome, Tone.PLAIN))]
    if entry.ended is not None:
        ended = str(entry.ended["outcome"])
        took_ms = (entry.ended["time_us"] - record["time_us"]) / 1000
        shown = [
            Span(ended, _TONES.get(ended, Tone.PLAIN)),
            Span(f" in {took_ms:.0f} ms", Tone.FAINT),
        ]
    return line(
        Span(f"{record['seq']:>7}  {clock(record['time_us'] / 1e6, is_dated=True)}  ", Tone.FAINT),
        Span(pad(printable(str(record["actor"])), _ACTOR_CELLS), Tone.NOTE),
        "  ",
        Span(printable(str(record["action"])), Tone.STRONG),
        f"  {printable(str(record['subject']))}  ",
        *shown,
        *field_spans({name: value for name, value in fields.items() if name != _PAIRING}),
    )


def render_report(report: VerifyReport, *, is_offline: bool) -> list[Line]:
    """What a verification found."""
    if (bad := report.first_bad) is not None:
        where = f"record {bad.seq}"
        return [
            line(Span(f"{where}: {bad.kind.value}", Tone.BAD), f": {printable(bad.reason)}"),
            line(Span(f"{report.records:,} records before it are good", Tone.FAINT)),
        ]
    if not report.records:
        return [line("there are no records", _since_anchor(report))]
    first = report.seq - report.records + 1
    lines = [
        line(
            Span(f"{report.records:,} records are good", Tone.GOOD),
            f", up to record {report.seq:,}" if first < 1 else f", {first:,} to {report.seq:,}",
            _since_anchor(report),
        )
    ]
    if is_offline and report.covered < report.seq:
        count = report.seq - report.covered
        text = f"the newest {count:,} fit together and are not covered by a checkpoint yet"
        lines.append(line(Span(text, Tone.CAUTION)))
    return lines


def render_progress(done: float, elapsed_s: float) -> str:
    """How far a verification is, and how long it takes yet.

    Args:
        done: share, 0 to 1.
        elapsed_s: since it began.
    """
    share = min(max(done, 0.0), 1.0)
    if share < 0.01 or elapsed_s < 1:
        return f"verified {share:.0%}"
    return f"verified {share:.0%}, {elapsed_s / share - elapsed_s:.0f} s left"


def _since_anchor(report: VerifyReport) -> str:
    return f" (what is up to {report.anchor:,} was dropped by retention)" if report.anchor else ""


def _key(record: Record) -> tuple[Plain, ...] | None:
    fields = record["fields"]
    correlation = fields.get(_PAIRING) if isinstance(fields, Mapping) else None
    if not correlation:
        return None
    # Not by their spool: between the two its process may have begun another one.
    names = ("actor", "action", "subject")
    return (correlation, fields.get("process"), *(record[name] for name in names))
