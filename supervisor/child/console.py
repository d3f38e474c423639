"""A log line for a person at a terminal: when, who, what, and the fields, on one line."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from typing import Any

_LEFT_OUT = frozenset({"event", "level", "timestamp", "component", "pid", "record", "exception"})
# Of a record of the journal: what a person at a terminal does not ask for.
_ALWAYS_KNOWN = frozenset({"phase", "level", "failure", "phase_name", "correlation"})
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def wants_lines(descriptor: int) -> bool:
    """Whether a person reads what is written there."""
    return os.isatty(descriptor)


def has_colours() -> bool:
    """Whether the person wants colours; see https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(text: str, *, colours: bool) -> str:
    """A JSON line as a person reads it; what is none stays as it is.

    Args:
        text: one line of the log.
        colours: whether severe lines are coloured.
    """
    try:
        entry = json.loads(text)
    except ValueError:
        return text
    if not isinstance(entry, dict):
        return text
    record = entry.get("record")
    if isinstance(record, dict):
        name, event = str(record.get("component", "")), str(record.get("name", ""))
        fields = _shown(record.get("fields", {}), _ALWAYS_KNOWN)
    else:
        name, event = str(entry.get("component", "")), str(entry.get("event", ""))
        fields = _shown(entry, _LEFT_OUT)
    level = str(entry.get("level", ""))
    start, end = (_COLOURS.get(level, ""), _PLAIN) if colours else ("", "")
    dim = _DIM if colours else ""
    line = f"{dim}{_clock(entry)}{end} {name:<16} {start}{event}{end if start else ''} {fields}"
    exception = entry.get("exception")
    return f"{line.rstrip()}\n{exception}" if exception else line.rstrip()


def _shown(fields: Mapping[str, Any], left_out: frozenset[str]) -> str:  # Any: JSON
    return " ".join(
        f"{name}={_value(value)}"
        for name, value in fields.items()
        if name not in left_out and value not in ("", None, [], {})
    )


def _value(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and " " not in value:
        return value
    return json.dumps(value, default=repr, ensure_ascii=False)


def _clock(entry: Mapping[str, Any]) -> str:  # Any: JSON
    try:
        at = dt.datetime.fromisoformat(str(entry.get("timestamp", "")))
    except ValueError:
        return "--:--:--.---"
    return at.astimezone().strftime("%H:%M:%S.%f")[:-3]
