"""Keep showing the status: redrawn on a terminal, a JSON line per change anywhere else."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from protocol.messages.status import NodeStatus
from services.ctl import output
from services.ctl.client import Client
from services.ctl.errors import CtlError, DeniedError, NodeHungError, NotRunningError
from services.ctl.journal import JournalReader
from services.ctl.schema import to_json
from services.ctl.session import Session

Show = Callable[[NodeStatus], None]
Complain = Callable[[CtlError], None]


def run(session: Session, *, interval_s: float, as_json: bool) -> None:
    """Show the status until Ctrl-C; a node that is down is waited for.

    Args:
        session: the node.
        interval_s: the longest time between two looks; an event in the node ends the wait.
        as_json: a line per change instead of a screen.
    """
    client = session.client()
    try:
        if as_json:
            _run_lines(client, interval_s)
        else:
            _run_screen(client, interval_s)
    except KeyboardInterrupt:
        return  # the way to end it
    finally:
        client.close()


def essence(status: NodeStatus) -> NodeStatus:
    """The status without what changes all by itself: ages, memory, the time until a retry."""
    components = tuple(
        dataclasses.replace(component, uptime_s=None, memory_bytes=None, retry_in_s=None)
        for component in status.components
    )
    platform = dataclasses.replace(status.platform, uptime_s=0.0)
    return dataclasses.replace(status, platform=platform, components=components)


def _run_lines(client: Client, interval_s: float) -> None:
    last: NodeStatus | None = None
    complained = ""

    def show(status: NodeStatus) -> None:
        nonlocal last, complained
        complained = ""
        if last != (last := essence(status)):
            output.show_json(to_json(status))

    def complain(error: CtlError) -> None:
        nonlocal last, complained
        last = None
        if complained != (complained := str(error)):
            output.note(f"{error}; waiting for it")

    _look(client, interval_s, show, complain)


def _run_screen(client: Client, interval_s: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from services.ctl.render import render_status
    from services.ctl.styled import Line, Span, Tone, line, to_ansi

    def draw(lines: list[Line]) -> None:
        text = Text.from_ansi("\n".join(to_ansi(spans) for spans in lines))
        text.no_wrap = True
        live.update(text, refresh=True)

    def show(status: NodeStatus) -> None:
        draw(render_status(status, width=output.width()))

    def complain(error: CtlError) -> None:
        draw([line(Span("not running", Tone.BAD), f": {error}; waiting for it")])

    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        _look(client, interval_s, show, complain)


def _look(client: Client, interval_s: float, show: Show, complain: Complain) -> None:
    """Ask, show, and wait for the next event or the interval, for ever."""
    reader = JournalReader()
    while True:
        started_s = time.monotonic()
        try:
            show(client.status(with_memory=True))
            reader.take(client.journal(reader.query(wait_s=interval_s)))
        except DeniedError:
            raise
        except (NotRunningError, NodeHungError) as exc:
            client.close()  # the next connection is to the new process
            complain(exc)
            time.sleep(max(0.0, interval_s - (time.monotonic() - started_s)))
