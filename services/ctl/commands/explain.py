"""novacronctl explain: why a component is as it is, and what comes next."""

from __future__ import annotations

import time

import click

from services.ctl import output
from services.ctl.explaining import fetch
from services.ctl.operate import component_argument
from services.ctl.session import Session, examples, node_options


@click.command(
    "explain",
    epilog=examples(
        "novacronctl explain vm",
        "novacronctl explain core/vm --json | jq '.child.exits'",
        "novacronctl explain novacron",
    ),
)
@node_options
@component_argument
@click.option("--json", "as_json", is_flag=True, help="Print the record novacron.explain/1.")
@click.pass_obj
def command(session: Session, name: str, *, as_json: bool) -> None:
    """Explain why the component NAME is in its state, and what its supervisor will do next.

    Shows since when, how its last processes ended, how many of the allowed restarts are used, when
    it is tried again, what it waits for and what waits for it, and what can be done.

    NAME is the component's id or path as 'tree' shows them, or 'novacron' for the root.
    """
    client = session.client()
    try:
        explained = fetch(client, name)
    finally:
        client.close()
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(explained), indent=2)
        return
    from services.ctl.explanation import render_explanation

    output.show(render_explanation(explained, now_s=time.time(), width=output.width()))
