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
        "novacronctl tree --watch",
    ),
)
@node_options
@click.option("--watch", is_flag=True, help="Keep showing it; Ctrl-C ends.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: the longest time between two looks.",
)
@click.pass_obj
def command(session: Session, *, watch: bool, interval: float) -> None:
    """Show the tree of supervisors and components with pids and states.

    With --watch the screen is redrawn at every event, and what has just changed is marked; where
    the output is no terminal, the tree is printed again at each change.
    """
    if watch:
        from services.ctl import watch as watching

        watching.run(
            session,
            lambda status, changed, width: render_tree(status, width=width, changed=changed),
            interval_s=interval,
            with_memory=False,
        )
        return
    client = session.client()
    try:
        output.show(render_tree(client.status(), width=output.width()))
    finally:
        client.close()
