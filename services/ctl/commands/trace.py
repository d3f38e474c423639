"""novacronctl trace: what the supervisors decide, as they decide it."""

from __future__ import annotations

import contextlib
import math
import time

import click

from protocol import names
from protocol.errors import NovacronError
from protocol.messages.status import ComponentStatus
from protocol.messages.trace import Decision
from services.ctl import output
from services.ctl.client import Client
from services.ctl.components import find
from services.ctl.errors import NodeHungError, NotRunningError
from services.ctl.operate import complete_component
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.traceline import render_decision
from services.ctl.tracing import Gatherer, is_about, supervisors_of

# How often to look for supervisors that are new or have gone.
_REFRESH_S = 2.0
_TURN_S = 0.05
_RETRY_S = 1.0
_LAST_LOOK_S = 0.1


@click.command(
    "trace",
    epilog=examples(
        "novacronctl trace",
        "novacronctl trace vm",
        "novacronctl trace --duration 60 --json > decisions.jsonl",
        "novacronctl trace --json | jq 'select(.event.name == \"exited\")'",
    ),
)
@node_options
@click.argument("name", required=False, shell_complete=complete_component)
@click.option(
    "--duration",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="End after that time (default: at Ctrl-C).",
)
@click.option("--json", "as_json", is_flag=True, help="Print each decision as a JSON line.")
@click.pass_obj
def command(session: Session, name: str | None, *, duration: float | None, as_json: bool) -> None:
    """Show the decisions of all supervisors live: what happened, and what was decided upon it.

    With NAME only what is about that component, or about it and all below it. Supervisors record
    their decisions only while somebody traces them, so this shows what happens from now on;
    'events' and 'explain' know the past. A node that goes away is waited for.
    """
    ends_s = math.inf if duration is None else time.monotonic() + duration
    client = session.client()
    tracer = _Tracer(session, client, name, as_json=as_json)
    try:
        while time.monotonic() < ends_s:
            try:
                tracer.follow(ends_s)
            except (NotRunningError, NodeHungError) as exc:
                if not tracer.has_begun:
                    raise
                output.note(f"{exc}; waiting for it")
                _wait_until_back(client, ends_s)
    except KeyboardInterrupt:
        return  # the way to end it
    finally:
        client.close()


class _Tracer:
    """Follows the supervisors of one boot of the node.

    Args:
        session, client: the node.
        name: the component of interest; None for all.
        as_json: print JSON lines.
    """

    def __init__(
        self, session: Session, client: Client, name: str | None, *, as_json: bool
    ) -> None:
        self.has_begun = False
        self._session = session
        self._client = client
        self._name = name
        self._as_json = as_json
        self._path = names.ROOT
        self._told: list[str] = []

    def follow(self, ends_s: float) -> None:
        """Print what is decided until a time.

        Raises:
            NotRunningError, NodeHungError: the node can't be asked any more.
        """
        components = self._client.status().components
        if self._name is not None and self._name != names.ROOT:
            self._path = find(components, self._name).path
        gatherer = Gatherer(self._session.run_dir)
        self.has_begun = True
        next_s = time.monotonic() + _REFRESH_S
        try:
            self._ask(gatherer, components)
            while (now_s := time.monotonic()) < ends_s:
                if next_s <= now_s:
                    next_s = now_s + _REFRESH_S
                    self._ask(gatherer, self._client.status().components)
                for decision in gatherer.gather(min(_TURN_S, ends_s - now_s), now_s):
                    if decision.event.name == "spawned":
                        child_id = str(decision.event.fields.get("id"))
                        gatherer.ask_again(names.child_path(decision.supervisor, child_id), now_s)
                self._show(gatherer.release(time.monotonic()))
        finally:
            with contextlib.suppress(NovacronError):
                self._look_once_more(gatherer)
            self._show(gatherer.release(math.inf))
            gatherer.close()

    def _look_once_more(self, gatherer: Gatherer) -> None:
        """Take in what has been decided up to now; supervisors hold answers back for a moment."""
        ends_s = time.monotonic() + _LAST_LOOK_S
        while (now_s := time.monotonic()) < ends_s:
            gatherer.gather(ends_s - now_s, now_s)

    def _ask(self, gatherer: Gatherer, components: tuple[ComponentStatus, ...]) -> None:
        gatherer.ask(supervisors_of(components, self._path), time.monotonic())
        if self._told != gatherer.supervisors:
            self._told = gatherer.supervisors
            output.note(f"tracing {', '.join(self._told)}")
        if gatherer.lost:
            output.note(f"{gatherer.lost} decisions came too fast and were lost")
            gatherer.lost = 0

    def _show(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if not is_about(decision, self._path):
                continue
            if self._as_json:
                output.show_json(to_json(decision))
            else:
                output.show(render_decision(decision, width=output.width()))


def _wait_until_back(client: Client, ends_s: float) -> None:
    while time.monotonic() < ends_s:
        time.sleep(_RETRY_S)
        client.close()  # the next connection is to the new process
        try:
            client.status()
        except (NotRunningError, NodeHungError):
            continue
        return
