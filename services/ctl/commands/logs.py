"""novacronctl logs: what all processes logged, in order of time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

import click

from services.ctl import logfiles, output
from services.ctl.components import unknown
from services.ctl.errors import CtlError
from services.ctl.logentry import SEVERITIES, Entry
from services.ctl.logfiles import Source
from services.ctl.logline import clock, render_log
from services.ctl.moments import Moment
from services.ctl.operate import complete_component
from services.ctl.session import Session, examples, node_options
from services.ctl.styled import Line, Span, Tone, line, printable

_LINES_DEFAULT = 50
# Files have no event to wait for that the standard library offers; a person does not see 0.2 s.
_FOLLOW_PERIOD_S = 0.2


@click.command(
    "logs",
    epilog=examples(
        "novacronctl logs",
        "novacronctl logs -f vm",
        "novacronctl logs --since 10m --level warning",
        "novacronctl logs --json -n 1000 data | jq .event",
    ),
)
@node_options
@click.argument("name", required=False, shell_complete=complete_component)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0, max=100_000),
    metavar="N",
    help=f"The last N entries (default {_LINES_DEFAULT}; all, with --since).",
)
@click.option(
    "--since", type=Moment(), metavar="WHEN", help="From then on: 90s, 5m, 4h, 2d, or an ISO time."
)
@click.option(
    "--level",
    type=click.Choice(list(SEVERITIES), case_sensitive=False),
    default="debug",
    help="Only entries at least this severe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, as they were logged.")
@click.pass_obj
def command(
    session: Session,
    *,
    name: str | None,
    follow: bool,
    lines: int | None,
    since: float | None,
    level: str,
    as_json: bool,
) -> None:
    """Show the log of the component NAME and those below it, or of the whole node.

    Reads the log files, so it works while the node is down.
    """
    directory = session.log_dir
    found = logfiles.sources(directory)
    if not found:
        raise CtlError(f"no logs in {directory}")
    chosen = _choose(found, name)
    severity = SEVERITIES[level]

    def keep(entry: Entry) -> bool:
        return entry.severity >= severity and (since is None or entry.time_s >= since)

    if follow:
        _follow(session, name, _begin(chosen, lines, since, keep), keep, as_json=as_json)
    else:
        _print(_begin(chosen, lines, since, keep), as_json=as_json)


def _begin(
    chosen: list[Source], lines: int | None, since: float | None, keep: Callable[[Entry], bool]
) -> Iterable[Entry]:
    if since is not None and lines is None:
        return logfiles.since(chosen, since, keep)
    return logfiles.newest(chosen, _LINES_DEFAULT if lines is None else lines, keep)


def _follow(
    session: Session,
    name: str | None,
    first: Iterable[Entry],
    keep: Callable[[Entry], bool],
    *,
    as_json: bool,
) -> None:
    from services.ctl.logfollow import Follower

    directory = session.log_dir
    follower = Follower()
    try:
        follower.turn(_choose(logfiles.sources(directory), name))  # ends of files, before reading
        _print(first, as_json=as_json)
        while True:
            time.sleep(_FOLLOW_PERIOD_S)
            chosen = _choose(logfiles.sources(directory), name)
            _print(filter(keep, follower.turn(chosen)), as_json=as_json)
    except KeyboardInterrupt:
        return  # the way to end it
    finally:
        follower.close()


def _choose(found: list[Source], name: str | None) -> list[Source]:
    """The logs of a component and of those below it."""
    if name is None:
        return found
    wanted = name.strip("/")
    chosen = [
        source
        for source in found
        if wanted in (source.component, source.component.rpartition("/")[2])
        or source.component.startswith(f"{wanted}/")
        or f"/{wanted}/" in f"/{source.component}"
    ]
    if not chosen:
        components = [source.component for source in found]
        raise unknown(name, [*components, *(path.rpartition("/")[2] for path in components)])
    return chosen


def _print(entries: Iterable[Entry], *, as_json: bool) -> None:
    for entry in entries:
        if as_json:
            click.echo(_as_json(entry))
        else:
            output.show(_lines(entry))


def _lines(entry: Entry) -> list[Line]:
    more = [line(Span(f"    {printable(text)}", Tone.FAINT)) for text in entry.more]
    return [*render_log(entry.fields, stamp=clock(entry.time_s, is_dated=True)), *more]


def _as_json(entry: Entry) -> str:
    """The line as it was logged; a raw line becomes a record of the same shape."""
    if entry.raw.startswith("{") and not entry.more:
        return entry.raw
    import datetime as dt

    moment = dt.datetime.fromtimestamp(entry.time_s, dt.UTC).isoformat().replace("+00:00", "Z")
    text = "\n".join((str(entry.fields.get("event", "")), *entry.more))
    return json.dumps({**entry.fields, "timestamp": moment, "event": text}, ensure_ascii=False)
