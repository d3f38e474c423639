"""novacronctl boot: where the time of the last boot went."""

from __future__ import annotations

import click

from services.ctl import output
from services.ctl.session import Session, examples, node_options


@click.command(
    "boot",
    epilog=examples(
        "novacronctl boot",
    ),
)
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.pass_obj
def command(session: Session, *, as_json: bool) -> None:
    """Show how long each phase and each component of the last boot took.

    Bars lie on one time line from the start of the program to the end of the boot, so that what ran
    in parallel is seen side by side.
    """
    client = session.client()
    try:
        report = client.boot()
    finally:
        client.close()
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(report), indent=2)
        return
    from services.ctl.render import render_boot

    output.show(render_boot(report, width=output.width()))
