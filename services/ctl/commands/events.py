"""novacronctl events: what happened in the node since it booted."""

from __future__ import annotations

import time
from collections import deque

import click

from protocol.messages.journal import JournalQuery, JournalRecord
from services.ctl import output
from services.ctl.client import Client
from services.ctl.errors import NodeHungError, NotRunningError
from services.ctl.journal import JournalReader
from services.ctl.logline import render_event
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options

# How long the root holds an answer back; it wakes us at once when something happens.
_WAIT_S = 10.0
# How often to look whether a node that went away is back.
_RETRY_S = 1.0


@click.command(
    "events",
    epilog=examples(
        "novacronctl events -n 20",
        "novacronctl events -f --json | jq 'select(.name == \"component:exited\")'",
    ),
)
@node_options
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Only the last N (default all)."
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as a JSON line.")
@click.pass_obj
def command(session: Session, *, follow: bool, lines: int | None, as_json: bool) -> None:
    """Show the journal of this boot: phases, states, restarts, what operators did.

    With --follow it goes on, across a restart of the node, until Ctrl-C.
    """
    client = session.client()
    reader = JournalReader()
    try:
        _show_past(client, reader, lines, as_json=as_json)
        while follow:
            try:
                _show(_next_page(client, reader, _WAIT_S), as_json=as_json)
            except (NotRunningError, NodeHungError) as exc:
                output.note(f"{exc}; waiting for it")
                _wait_until_back(client, reader)
    except KeyboardInterrupt:
        if not follow:
            raise
    finally:
        client.close()


def _show_past(client: Client, reader: JournalReader, lines: int | None, *, as_json: bool) -> None:
    """What the journal holds now; with a limit, nothing before the last page is printed."""
    last: deque[JournalRecord] = deque(maxlen=lines)
    while records := _next_page(client, reader, 0.0):
        if lines is None:
            _show(records, as_json=as_json)
        else:
            last.extend(records)
    _show(tuple(last), as_json=as_json)


def _next_page(client: Client, reader: JournalReader, wait_s: float) -> tuple[JournalRecord, ...]:
    page = client.journal(reader.query(wait_s=wait_s))
    records, lost = reader.take(page)
    if lost:
        output.note(f"{lost} earlier events are no longer kept")
    return records


def _wait_until_back(client: Client, reader: JournalReader) -> None:
    while True:
        time.sleep(_RETRY_S)
        client.close()  # the next connection is to the new process
        try:
            client.journal(JournalQuery(since=reader.since, limit=1))
        except (NotRunningError, NodeHungError):
            continue
        return


def _show(records: tuple[JournalRecord, ...], *, as_json: bool) -> None:
    for record in records:
        if as_json:
            output.show_json(to_json(record))
        else:
            output.show([render_event(record)])
