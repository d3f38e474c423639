"""novacronctl nodes: the nodes that share a database, and what is not well on them."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from protocol.records import to_wire
from services.ctl import output
from services.ctl.client import Client
from services.ctl.errors import CtlError, DeniedError
from services.ctl.nodes import DATABASE, essence, render_nodes
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.watch import not_running
from services.data.health_records import NodesPage, WatchQuery

# The longest time between two looks of a watch, in which ages grow on the screen.
_WAIT_S = 1.0
# How often a database process that is away is asked again.
_RETRY_S = 1.0

Show = Callable[[NodesPage], None]
Complain = Callable[[CtlError], None]


@click.command(
    "nodes",
    epilog=examples(
        "novacronctl nodes",
        "novacronctl nodes --watch",
        "novacronctl nodes --json | jq '.nodes[] | select(.standing != \"ready\")'",
    ),
)
@node_options
@click.option("--watch", is_flag=True, help="Keep showing them; Ctrl-C ends.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print them as JSON; with --watch one line per change.",
)
@click.pass_obj
def command(session: Session, *, watch: bool, as_json: bool) -> None:
    """Show the nodes that share this node's database: how they are and since when.

    A node that has not renewed its lease is unknown, whatever it said last. Below a node stand
    its components that are not healthy. The node that answers is marked with *.
    """
    client = session.client()
    try:
        if watch:
            _watch(client, as_json=as_json)
            return
        page = _ask(client, WatchQuery())
    finally:
        client.close()
    if as_json:
        output.show_json(to_json(page), indent=2)
    else:
        output.show(render_nodes(page, width=output.width()))


def _watch(client: Client, *, as_json: bool) -> None:
    try:
        if as_json or not output.is_terminal():
            _watch_lines(client, as_json=as_json)
        else:
            _watch_screen(client)
    except KeyboardInterrupt:
        return  # the way to end it


def _watch_lines(client: Client, *, as_json: bool) -> None:
    last: NodesPage | None = None
    complained = ""

    def show(page: NodesPage) -> None:
        nonlocal last, complained
        complained = ""
        if last == (last := essence(page)):
            return
        if as_json:
            output.show_json(to_json(page))
        else:
            output.show([*render_nodes(page, width=output.width()), ()])

    def complain(error: CtlError) -> None:
        nonlocal complained
        if complained != (complained := str(error)):
            output.note(f"{error}; waiting for it")

    _look(client, show, complain)


def _watch_screen(client: Client) -> None:
    from services.ctl.screen import Screen

    def show(page: NodesPage) -> None:
        screen.draw(render_nodes(page, width=screen.width))
        end_on_q()

    def complain(error: CtlError) -> None:
        screen.draw([not_running(error)])
        end_on_q()

    def end_on_q() -> None:
        while key := screen.wait(0.0):
            if key == "q":
                raise KeyboardInterrupt

    with Screen() as screen:
        _look(client, show, complain)


def _look(client: Client, show: Show, complain: Complain) -> None:
    """Ask, show, and wait for the next change, for ever."""
    mark = ""
    while True:
        try:
            page = _ask(client, WatchQuery(mark=mark, wait_s=_WAIT_S if mark else 0.0))
        except DeniedError:
            raise
        except CtlError as exc:
            client.close()  # the next connection is to the new process
            mark = ""
            complain(exc)
            time.sleep(_RETRY_S)
            continue
        mark = page.mark
        show(page)


def _ask(client: Client, query: WatchQuery) -> NodesPage:
    timeout_s = query.wait_s + 5.0 if query.wait_s else None
    return client.ask(NodesPage, DATABASE, "health.watch", to_wire(query), timeout_s)
