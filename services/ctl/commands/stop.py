"""novacronctl stop: stop a component and leave it stopped."""

from __future__ import annotations

import click

from services.ctl.operate import component_argument, operate
from services.ctl.session import Session, examples, node_options


@click.command(
    "stop",
    epilog=examples(
        "novacronctl stop workload",
    ),
)
@node_options
@component_argument
@click.pass_obj
def command(session: Session, name: str) -> None:
    """Stop the component NAME; it stays stopped until 'start' or the next boot.

    Stopping a supervisor stops everything below it. The node is degraded or not ready meanwhile,
    and says why.

    NAME is the component's id or path as 'tree' shows them.
    """
    operate(session, "stop", name)
