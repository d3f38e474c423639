"""Log lines and journal records as lines for a person; pure."""

from __future__ import annotations

import time
from collections.abc import Mapping

from protocol.messages.journal import JournalRecord
from protocol.records import Plain
from services.ctl.styled import Line, Span, Tone, line, pad, printable

LEVEL_TONES: Mapping[str, Tone] = {
    "debug": Tone.FAINT,
    "info": Tone.GOOD,
    "warning": Tone.CAUTION,
    "error": Tone.BAD,
    "critical": Tone.BAD,
}
# A value longer than this is data, and is in the file.
_FIELD_LENGTH_MAX = 500
_COMPONENT_CELLS = 17
# What never changes about a component is in its status; here it would hide what did.
_CONSTANT = frozenset(("phase", "level", "failure"))
_HIDDEN = frozenset(("timestamp", "level", "event", "component", "pid", "exception", "correlation"))


def clock(time_s: float, *, is_dated: bool = False) -> str:
    """The local time of day to the millisecond, with the date where it is asked for."""
    moment = time.localtime(time_s)
    text = time.strftime("%Y-%m-%d %H:%M:%S" if is_dated else "%H:%M:%S", moment)
    return f"{text}.{int(time_s % 1 * 1000):03d}"


def render_event(record: JournalRecord) -> Line:
    """One record of the journal on one line: time of day, component, name, fields."""
    return line(
        Span(f"{clock(record.time_s)}  ", Tone.FAINT),
        Span(pad(printable(record.component), _COMPONENT_CELLS), Tone.NOTE),
        "  ",
        Span(printable(record.name), Tone.STRONG),
        *field_spans(_telling(record.name, record.fields)),
    )


def render_log(fields: Mapping[str, Plain], *, stamp: str) -> list[Line]:
    """One log record: time, level, component, event, fields; a traceback on lines of its own.

    A record that carries one of the journal is shown as what happened, not as its carrier.

    Args:
        fields: what the process logged, as JSON carries it.
        stamp: the time as it is to be shown.
    """
    fields = unpacked(fields)
    level = str(fields.get("level", "info"))
    head = line(
        Span(f"{stamp}  ", Tone.FAINT),
        Span(pad(printable(level), 8), LEVEL_TONES.get(level, Tone.PLAIN)),
        " ",
        Span(pad(printable(str(fields.get("component", "-"))), _COMPONENT_CELLS), Tone.NOTE),
        "  ",
        Span(printable(str(fields.get("event", ""))), Tone.STRONG),
        *field_spans({name: value for name, value in fields.items() if name not in _HIDDEN}),
    )
    traceback = str(fields.get("exception") or "").splitlines()
    return [head, *(line(Span(f"    {printable(text)}", Tone.FAINT)) for text in traceback)]


def unpacked(fields: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """The journal record that a log record carries as a log record itself; any other unchanged."""
    record = fields.get("record")
    if fields.get("event") != "journal" or not isinstance(record, Mapping):
        return fields
    details, name = record.get("fields"), str(record.get("name", "journal"))
    return {
        **(_telling(name, details) if isinstance(details, Mapping) else {}),
        "level": fields.get("level", "info"),
        "component": record.get("component", fields.get("component", "-")),
        "event": name,
    }


def _telling(name: str, fields: Mapping[str, Plain]) -> Mapping[str, Plain]:
    if name != "component:state":
        return fields
    return {key: value for key, value in fields.items() if key not in _CONSTANT}


def field_spans(fields: Mapping[str, Plain]) -> list[Span]:
    """``name=value`` for each field, long values cut."""
    spans = []
    for name, value in fields.items():
        if value in ("", None):
            continue
        spans.append(Span(f"  {printable(name)}=", Tone.FAINT))
        spans.append(Span(_value(value)))
    return spans


def _value(value: Plain) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else printable(str(value))
    if len(text) > _FIELD_LENGTH_MAX:
        return f"{text[:_FIELD_LENGTH_MAX]}…"
    return text
