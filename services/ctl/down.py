"""What can still be said of a node that does not run: when it was last heard of, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol import names
from protocol.records import Plain
from services.ctl import logfiles
from services.ctl.amounts import age
from services.ctl.errors import DeniedError
from services.ctl.logentry import Entry
from services.ctl.logline import clock, render_log, unpacked
from services.ctl.styled import Line, Span, Tone, line, printable

_LINES = 6
_ENDS = ("node:stopped", "node:failed", "init:failed")


@dataclass(frozen=True, slots=True)
class Traces:
    """What a node left behind.

    Attributes:
        state_dir: where it was looked for.
        exists: whether there is such a directory.
        heard_s: Unix time of the last line of its root; 0 where none can be read.
        end: the record with which it ended, or empty when it was cut off.
        last: the last lines of interest, oldest first.
    """

    state_dir: Path
    exists: bool
    heard_s: float = 0.0
    end: Mapping[str, Plain] | None = None
    last: tuple[Entry, ...] = ()


def look(state_dir: Path, log_dir: Path) -> Traces:
    """Read what the node left in its directories; what may not be read is taken as absent."""
    try:
        exists = state_dir.is_dir()
        logs = logfiles.sources(log_dir)
        roots = logfiles.newest(logs, 1, lambda entry: entry.component == names.ROOT)
        last = tuple(logfiles.newest(logs, _LINES, _is_of_interest))
    except (DeniedError, PermissionError):
        return Traces(state_dir, exists=True)
    if not roots:
        return Traces(state_dir, exists, last[-1].time_s if last else 0.0, None, last)
    said = unpacked(roots[0].fields)
    end = said if said.get("event") in _ENDS else None
    return Traces(state_dir, exists, roots[0].time_s, end, last)


def render(traces: Traces, *, now_s: float) -> list[Line]:
    """The lines that say so; the first one stands alone."""
    head = Span("not running", Tone.BAD)
    if not traces.exists:
        return [line(head, f": no node has run in {traces.state_dir}, which does not exist")]
    if not traces.heard_s:
        return [line(head, f": {traces.state_dir} has no log of an earlier run that can be read")]
    lines = [
        line(head, f": {_end(traces.end)} {age(now_s - traces.heard_s)} ago in {traces.state_dir}")
    ]
    if traces.last:
        lines += [(), line(Span("Last log lines:", Tone.FAINT))]
    for entry in traces.last:
        lines += render_log(entry.fields, stamp=clock(entry.time_s, is_dated=True))[:1]
    return lines


def _end(end: Mapping[str, Plain] | None) -> str:
    if end is None:
        return "last heard of (it was not stopped in order)"
    reason = f" ({printable(str(end['reason']))})" if end.get("reason") else ""
    if end.get("event") == "node:stopped":
        return f"stopped{reason}"
    code = f" with exit code {end['exit_code']}" if "exit_code" in end else ""
    return f"failed{code}{reason}"


def _is_of_interest(entry: Entry) -> bool:
    """What the node said as a whole, and everybody's complaints."""
    if not entry.time_s:
        return False
    event = str(unpacked(entry.fields).get("event", ""))
    is_detail = event.startswith(("component:", "operator:"))
    return entry.severity >= 30 or (entry.component == names.ROOT and not is_detail)
