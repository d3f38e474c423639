"""novacronctl start: start a component that was stopped or given up."""

from __future__ import annotations

import click

from services.ctl.operate import component_argument, operate
from services.ctl.session import Session, examples, node_options


@click.command(
    "start",
    epilog=examples(
        "novacronctl start workload",
    ),
)
@node_options
@component_argument
@click.pass_obj
def command(session: Session, name: str) -> None:
    """Start the component NAME, which was stopped or is degraded and waits for its next try.

    Waits until it is up, and says how it is then.

    NAME is the component's id or path as 'tree' shows them.
    """
    operate(session, "start", name)
