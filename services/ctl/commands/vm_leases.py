"""novacronctl vm: which node may run which machine, and giving a machine to another node."""

from __future__ import annotations

import click

from services.ctl import output
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import ask


@click.command(
    "leases",
    epilog=examples(
        "novacronctl vm leases",
        "novacronctl vm leases --all",
        "novacronctl vm leases --json | jq '.leases[] | select(.state == \"expired\")'",
    ),
)
@node_options
@click.option("--all", "with_free", is_flag=True, help="Also of machines that do not run.")
@click.option("--json", "as_json", is_flag=True, help="Print the leases as JSON.")
@click.pass_obj
def leases(session: Session, *, with_free: bool, as_json: bool) -> None:
    """List which node may run which machine, of all nodes of the database.

    A lease that has expired is not free: its node is not heard of, and the guest may run on.
    """
    from services.vm.leases.model import LeaseList

    found = ask(session, "vm.leases", {}, LeaseList)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(found), indent=2)
        return
    from services.ctl.vm_lease_render import render_leases

    output.show(render_leases(found, with_free=with_free, width=output.width()))


@click.command(
    "assign",
    epilog=examples(
        "novacronctl vm assign web-1 node-002",
        "novacronctl vm assign --takeover web-1 node-002   (the host that had it is off)",
    ),
)
@node_options
@click.argument("name")
@click.argument("node")
@click.option(
    "--takeover",
    is_flag=True,
    help="You have made sure that the host that had it is off, and its lease has expired.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def assign(session: Session, name: str, node: str, *, takeover: bool, as_json: bool) -> None:
    """Give the document of the stopped machine NAME to another NODE.

    Its disks stay where they are, so they must be where that node has them too. There, 'novacronctl
    vm apply --name NAME' defines and starts it.
    """
    from services.vm.leases.model import AssignReply

    body = {"name": name, "node": node, "takeover": takeover}
    reply = ask(session, "vm.assign", body, AssignReply)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(reply), indent=2)
        return
    from services.ctl.vm_lease_render import render_assigned

    output.show(render_assigned(reply))
