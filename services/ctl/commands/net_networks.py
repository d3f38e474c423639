"""novacronctl net plan, apply and show: bridges, VLANs, VXLAN segments, addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.ctl import output
from services.ctl.errors import Exit
from services.ctl.network_calls import ask_network, show_record
from services.ctl.session import Session, examples, node_options

if TYPE_CHECKING:
    from protocol.records import Plain

# A thousand links made and taken back on a busy host, and the check between.
_APPLY_TIMEOUT_S = 150.0
_FORCE = "Detach somebody else's ports of bridges that are deleted."


@click.command(
    "plan",
    epilog=examples(
        "novacronctl net plan networks.yaml",
        "novacronctl net plan               (what differs from what was applied last)",
        "novacronctl net plan --json networks.yaml | jq '.steps[].link'",
    ),
)
@node_options
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--force", is_flag=True, help=_FORCE)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def plan(session: Session, file: str | None, *, force: bool, as_json: bool) -> None:
    """Show the steps from what the node has to what FILE says; nothing is changed.

    FILE is a YAML or JSON document, see docs/networks.md; '-' reads standard input. Exits with 1
    when something stands in the way.
    """
    from services.network.networks.records import PlanReply

    found = ask_network(session, "networks.plan", _body(file, force=force), PlanReply)
    if as_json:
        show_record(found)
    else:
        from services.ctl.networks import render_plan

        output.show(render_plan(found))
    if found.conflicts:
        raise click.exceptions.Exit(Exit.FAILED)


@click.command(
    "apply",
    epilog=examples(
        "novacronctl net apply networks.yaml",
        "novacronctl net apply --reachable 192.0.2.1:22 --within 10 networks.yaml",
        "novacronctl net apply              (puts back what was applied last)",
        "echo 'networks: []' | novacronctl net apply -",
    ),
)
@node_options
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--reachable",
    "targets",
    multiple=True,
    metavar="ADDRESS:PORT",
    help="Must answer a TCP connection from the node before and after the change, in place of the "
    "default gateways; repeatable.",
)
@click.option(
    "--within",
    type=click.FloatRange(min=0.1, max=60),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long they may take to answer.",
)
@click.option("--force", is_flag=True, help=_FORCE)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def apply(
    session: Session,
    file: str | None,
    targets: tuple[str, ...],
    *,
    within: float,
    force: bool,
    as_json: bool,
) -> None:
    """Give the node the networks in FILE, or those that were applied last where none is named.

    What FILE no longer names is deleted. If a default gateway that answered before does not answer
    afterwards, or the node's process dies before it has asked, everything is taken back.
    """
    from services.network.networks.records import Applied

    body = _body(file, force=force) | {"check": {"targets": list(targets), "timeout_s": within}}
    if output.is_terminal() and not as_json:
        output.note(f"applying; what does not answer within {within:g} s is taken back")
    found = ask_network(
        session, "networks.apply", body, Applied, timeout_s=_APPLY_TIMEOUT_S + 2 * within
    )
    if as_json:
        show_record(found)
        return
    from services.ctl.networks import render_applied

    output.show(render_applied(found))


@click.command(
    "show",
    epilog=examples(
        "novacronctl net show",
        "novacronctl net show --document > networks.yaml",
        "novacronctl net show --json | jq '.links[].name'",
    ),
)
@node_options
@click.option("--document", "as_document", is_flag=True, help="Print the document alone, as YAML.")
@click.option("--json", "as_json", is_flag=True, help="Print state, document and links as JSON.")
@click.pass_obj
def show(session: Session, *, as_document: bool, as_json: bool) -> None:
    """Show the networks that were applied, and the links as the node has them."""
    from services.network.networks.model import NetworksDocument
    from services.network.networks.records import NetworksView

    found = ask_network(session, "networks.show", {}, NetworksView)
    if as_json:
        show_record(found)
        return
    if as_document:
        from services.network.networks.parse import render_networks

        click.echo(render_networks(found.document or NetworksDocument()), nl=False)
        return
    from services.ctl.networks import render_view

    output.show(render_view(found, width=output.width()))


NETWORK_COMMANDS = (plan, apply, show)


def _body(file: str | None, *, force: bool) -> dict[str, Plain]:
    body: dict[str, Plain] = {"force": force}
    if file is not None:
        from protocol.records import to_wire
        from services.ctl.networks import read_networks

        body["document"] = to_wire(read_networks(file))
    return body
