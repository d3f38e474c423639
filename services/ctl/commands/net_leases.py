"""novacronctl net leases: which addresses were given out."""

from __future__ import annotations

import click

from services.ctl import output
from services.ctl.network_calls import ask_network, show_record
from services.ctl.session import Session, examples, node_options


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
def leases(session: Session, network: str | None, *, as_json: bool) -> None:
    """Show the addresses that the node has given to machines, of NETWORK or of all networks."""
    from services.network.serving.messages import LeasesView

    found = ask_network(session, "networks.leases", {"network": network or ""}, LeasesView)
    if as_json:
        show_record(found)
        return
    import time

    from services.ctl.leases import render_leases

    output.show(render_leases(found, now_s=time.time(), width=output.width()))
