"""Keep showing the status: redrawn on a terminal, a JSON line or a text per change elsewhere."""

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
from services.ctl.styled import Line, Span, Tone, line

# How long a change stays marked: long enough to be found on a screen of fifty lines.
MARKED_S = 3.0

# Status, paths of what has just changed, columns -> what is shown.
Render = Callable[[NodeStatus, frozenset[str], int], list[Line]]
Show = Callable[[NodeStatus], None]
Complain = Callable[[CtlError], None]


class Changes:
    """Which components are another one than a moment ago; pure."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, ...]] | None = None
        self._marked_s: dict[str, float] = {}

    def take(self, status: NodeStatus, now_s: float) -> frozenset[str]:
        """The paths of what has changed within the last MARKED_S; nothing at the first look."""
        found: dict[str, tuple[object, ...]] = {
            c.path: (c.state, c.pid, c.reason) for c in status.components
        }
        if self._known is not None:
            for path, essentials in found.items():
                if self._known.get(path) != essentials:
                    self._marked_s[path] = now_s
        self._known = found
        self._marked_s = {
            path: at_s for path, at_s in self._marked_s.items() if at_s > now_s - MARKED_S
        }
        return frozenset(self._marked_s)


def run(
    session: Session,
    render: Render,
    *,
    interval_s: float,
    as_json: bool = False,
    with_memory: bool = True,
) -> None:
    """Show the status until Ctrl-C; a node that is down is waited for.

    Args:
        session: the node.
        render: how a status looks.
        interval_s: the longest time between two looks; an event in the node ends the wait.
        as_json: a line per change instead of what ``render`` makes.
        with_memory: have the node measure its processes at each look.
    """
    client = session.client()

    def ask() -> NodeStatus:
        return client.status(with_memory=with_memory)

    try:
        if as_json or not output.is_terminal():
            _run_lines(client, ask, render, interval_s, as_json=as_json)
        else:
            _run_screen(client, ask, render, interval_s)
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


def _run_lines(
    client: Client,
    ask: Callable[[], NodeStatus],
    render: Render,
    interval_s: float,
    *,
    as_json: bool,
) -> None:
    last: NodeStatus | None = None
    complained = ""
    changes = Changes()

    def show(status: NodeStatus) -> None:
        nonlocal last, complained
        complained = ""
        marked = changes.take(status, time.monotonic())
        if last == (last := essence(status)):
            return
        if as_json:
            output.show_json(to_json(status))
        else:
            output.show([*render(status, marked, output.width()), ()])

    def complain(error: CtlError) -> None:
        nonlocal last, complained
        last = None
        if complained != (complained := str(error)):
            output.note(f"{error}; waiting for it")

    _look(client, ask, interval_s, show, complain)


def _run_screen(
    client: Client, ask: Callable[[], NodeStatus], render: Render, interval_s: float
) -> None:
    from services.ctl.screen import Screen

    changes = Changes()

    def show(status: NodeStatus) -> None:
        screen.draw(render(status, changes.take(status, time.monotonic()), screen.width))
        end_on_q()

    def complain(error: CtlError) -> None:
        screen.draw([not_running(error)])
        end_on_q()

    def end_on_q() -> None:
        while key := screen.wait(0.0):
            if key == "q":
                raise KeyboardInterrupt

    with Screen() as screen:
        _look(client, ask, interval_s, show, complain)


def not_running(error: CtlError) -> Line:
    """What a screen shows while there is no node to ask."""
    return line(Span("not running", Tone.BAD), f": {error}; waiting for it")


def _look(
    client: Client,
    ask: Callable[[], NodeStatus],
    interval_s: float,
    show: Show,
    complain: Complain,
) -> None:
    """Ask, show, and wait for the next event or the interval, for ever."""
    reader = JournalReader()
    while True:
        started_s = time.monotonic()
        try:
            show(ask())
            reader.take(client.journal(reader.query(wait_s=interval_s)))
        except DeniedError:
            raise
        except (NotRunningError, NodeHungError) as exc:
            client.close()  # the next connection is to the new process
            complain(exc)
            time.sleep(max(0.0, interval_s - (time.monotonic() - started_s)))
