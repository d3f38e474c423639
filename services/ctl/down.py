"""What can still be said of a node that does not run: when it was last heard of, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from protocol import names
from services.ctl import logfiles
from services.ctl.amounts import age
from services.ctl.errors import DeniedError
from services.ctl.logentry import Entry
from services.ctl.logline import clock, render_log
from services.ctl.styled import Line, Span, Tone, line

_LINES = 6


@dataclass(frozen=True, slots=True)
class Traces:
    """What a node left behind.

    Attributes:
        state_dir: where it was looked for.
        exists: whether there is such a directory.
        last: its last log entries, oldest first; empty where none can be read.
    """

    state_dir: Path
    exists: bool
    last: tuple[Entry, ...]


def look(state_dir: Path, log_dir: Path) -> Traces:
    """Read what the node left in its directories; what may not be read is taken as absent."""
    try:
        exists = state_dir.is_dir()
        found = logfiles.newest(logfiles.sources(log_dir), _LINES, _is_of_interest)
    except (DeniedError, PermissionError):
        return Traces(state_dir, exists=True, last=())
    return Traces(state_dir, exists, tuple(found))


def render(traces: Traces, *, now_s: float) -> list[Line]:
    """The lines that say so; the first one stands alone."""
    head = Span("not running", Tone.BAD)
    if not traces.exists:
        return [line(head, f": no node has run in {traces.state_dir}, which does not exist")]
    if not traces.last:
        return [line(head, f": {traces.state_dir} has no log of an earlier run")]
    last = traces.last[-1]
    lines = [
        line(head, f": last heard of {age(now_s - last.time_s)} ago (in {traces.state_dir})"),
        (),
        line(Span("Last log lines:", Tone.FAINT)),
    ]
    for entry in traces.last:
        lines += render_log(entry.fields, stamp=clock(entry.time_s, is_dated=True))[:1]
    return lines


def _is_of_interest(entry: Entry) -> bool:
    """The root's own lines, and everybody's complaints."""
    return bool(entry.time_s) and (entry.component == names.ROOT or entry.severity >= 30)
