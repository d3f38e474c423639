"""novacronctl tree: the processes of the node as they hang together."""

from __future__ import annotations

import click

from services.ctl import output
from services.ctl.render import render_tree
from services.ctl.session import Session, examples, node_options


@click.command(
    "tree",
    epilog=examples(
        "novacronctl tree",
    ),
)
@node_options
@click.pass_obj
def command(session: Session) -> None:
    """Show the tree of supervisors and components with pids and states."""
    client = session.client()
    try:
        output.show(render_tree(client.status(), width=output.width()))
    finally:
        client.close()
