"""One entry of a log: a JSON line of ours, or a raw line of PostgreSQL or Redis; pure."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from protocol.records import Plain

# Lines of one entry; a stack trace has fewer, and a program that prints no time has more.
ENTRY_LINES_MAX = 200
SEVERITIES: Mapping[str, int] = {
    "debug": 10,
    "info": 20,
    "warning": 30,
    "error": 40,
    "critical": 50,
}
# 2026-03-01 12:00:00.123 UTC [17] LOG:  text     (PostgreSQL, log_line_prefix '%m [%p] ')
_POSTGRES = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?)"
    r"(?P<zone> ?(?:[A-Z]{1,5}|[+-]\d\d(?::?\d\d)?))?"
    r"(?: \[\d+\])?(?: (?P<level>[A-Z]+\d?):)?\s*(?P<text>.*)"
)
# 17:M 01 Mar 2026 12:00:00.123 * text            (Redis)
_REDIS = re.compile(
    r"\d+:[XCSM] (?P<time>\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\.\d+)"
    r" (?P<level>[.\-*#]) (?P<text>.*)"
)
# LOG:  text                                       (PostgreSQL without a log_line_prefix)
_UNTIMED = re.compile(r"(?P<level>[A-Z]+\d?):  (?P<text>.*)")
_RAW_LEVELS: Mapping[str, str] = {
    "WARNING": "warning",
    "ERROR": "error",
    "FATAL": "critical",
    "PANIC": "critical",
    "#": "warning",
    ".": "debug",
    "-": "debug",
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Entry:
    """What was logged at one moment.

    Attributes:
        time_s: Unix time; 0 where the line names none.
        component: path of the process.
        level: one of SEVERITIES.
        fields: the JSON record; for a raw line, its text as ``event``.
        raw: the line as it is in the file.
        more: further raw lines that belong to it.
    """

    time_s: float
    component: str
    level: str
    fields: Mapping[str, Plain]
    raw: str
    more: tuple[str, ...] = field(default=())

    @property
    def severity(self) -> int:
        """The level as a number that grows with how bad it is."""
        return SEVERITIES.get(self.level, SEVERITIES["info"])

    def at(self, time_s: float) -> Entry:
        """This entry at a time that is known from elsewhere; its own wins."""
        return self if self.time_s else replace(self, time_s=time_s)

    def with_more(self, *entries: Entry) -> Entry:
        """This entry, continued by lines that have no time of their own."""
        if not entries:
            return self
        lines = [text for entry in entries for text in (entry.raw, *entry.more)]
        return replace(self, more=(*self.more, *lines)[:ENTRY_LINES_MAX])


def parse_json(text: str, component: str) -> Entry:
    """Read a line of a process of ours; what is not a JSON object is taken as raw text."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return parse_raw(text, component)
    if not isinstance(fields, dict):
        return parse_raw(text, component)
    return Entry(
        time_s=parse_moment(fields.get("timestamp")),
        component=str(fields.get("component", component)),
        level=str(fields.get("level", "info")),
        fields=fields,
        raw=text,
    )


def parse_raw(text: str, component: str) -> Entry:
    """Read a line of a program's own log."""
    time_s, level, message = 0.0, "info", text
    if found := _POSTGRES.match(text):
        time_s = _iso_moment(found["time"], (found["zone"] or "").strip())
        level, message = _RAW_LEVELS.get(found["level"] or "", "info"), found["text"]
    elif found := _REDIS.match(text):
        time_s = _redis_moment(found["time"])
        level, message = _RAW_LEVELS.get(found["level"], "info"), found["text"]
    elif found := _UNTIMED.match(text):
        level, message = _RAW_LEVELS.get(found["level"], "info"), found["text"]
    fields: dict[str, Plain] = {"level": level, "component": component, "event": message}
    return Entry(time_s, component, level, fields, text)


def parse_moment(value: Plain) -> float:
    """Unix time of a logged ``timestamp``, a number or an ISO moment; 0 for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return _iso_moment(value, "")
    return 0.0


def _iso_moment(text: str, zone: str) -> float:
    """Unix time of an ISO moment; a zone that is only a name is taken for the local one."""
    try:
        moment = dt.datetime.fromisoformat(text.replace(",", "."))
        if moment.tzinfo is None and zone in ("UTC", "GMT", "Z"):
            moment = moment.replace(tzinfo=dt.UTC)
        elif moment.tzinfo is None and zone[:1] in ("+", "-"):
            moment = dt.datetime.fromisoformat(f"{text.replace(',', '.')}{zone}")
        return moment.timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _redis_moment(text: str) -> float:
    day, month, year, clock = text.split(" ")
    if month not in _MONTHS:
        return 0.0
    return _iso_moment(f"{year}-{_MONTHS.index(month) + 1:02d}-{day} {clock}", "")
