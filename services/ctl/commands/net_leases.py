"""novacronctl net leases: which addresses were given out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from services.ctl import output
from services.ctl.session import Session, examples, node_options

if TYPE_CHECKING:
    from services.network.serving.messages import LeasesView

_NETWORK = "core/network"


@click.command(
    "leases",
    epilog=examples(
        "novacronctl net leases",
        "novacronctl net leases guests --json | jq -r '.leases[].address'",
    ),
)
@node_options
@click.argument("network", metavar="[NETWORK]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the leases as JSON.")
@click.pass_obj
def command(session: Session, network: str | None, *, as_json: bool) -> None:
    """Show the addresses that the node has given to machines, of NETWORK or of all networks."""
    from services.network.serving.messages import LeasesView

    body = {"network": network or ""}
    found = session.ask(LeasesView, _NETWORK, "networks.leases", body)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(found), indent=2)
        return
    _show(found, time.time())


def _show(found: LeasesView, now_s: float) -> None:
    from services.ctl.leases import render_leases

    output.show(render_leases(found, now_s=now_s, width=output.width()))
