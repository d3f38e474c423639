"""novacronctl restart: stop a component and start it anew."""

from __future__ import annotations

import click

from services.ctl.operate import component_argument, operate
from services.ctl.session import Session, examples, node_options


@click.command(
    "restart",
    epilog=examples(
        "novacronctl restart vm",
        "novacronctl restart core/dwcp/transport.0",
    ),
)
@node_options
@component_argument
@click.pass_obj
def command(session: Session, name: str) -> None:
    """Stop the component NAME and start it anew.

    What depends on it is restarted with it where its supervisor's strategy says so. Waits until the
    component is up, and says how it is then.

    NAME is the component's id or path as 'tree' shows them.
    """
    operate(session, "restart", name)
