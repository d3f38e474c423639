"""novacronctl net: the networks of the node, and which packets may pass between guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.ctl import output
from services.ctl.commands.net_leases import leases
from services.ctl.commands.net_networks import NETWORK_COMMANDS
from services.ctl.errors import UsageError
from services.ctl.network_calls import ask_network, show_record
from services.ctl.session import Session, examples, node_options

if TYPE_CHECKING:
    from protocol.records import Plain
    from services.network.segments.model import SegmentDocument
    from services.network.segments.trace import TraceAnswer

# A change of a thousand interfaces on a busy machine, its check, and taking it back.
_APPLY_TIMEOUT_S = 60.0


@click.group("net")
@node_options
def command() -> None:
    """The networks of the node: what it has, and what may pass between guests."""


for network_command in (*NETWORK_COMMANDS, leases):
    command.add_command(network_command)


@command.group("segments")
@node_options
def segments() -> None:
    """Which interface may speak with whom; everything else is dropped.

    The document is a YAML or JSON file, see docs/network-segments.md; '-' reads standard input.
    """


@segments.command(
    "plan",
    epilog=examples(
        "novacronctl net segments plan segments.yaml",
        "novacronctl net segments plan --json segments.yaml | jq '.steps[].subject'",
    ),
)
@node_options
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def plan(session: Session, file: str, *, as_json: bool) -> None:
    """Show what applying FILE would change; nothing is changed."""
    from services.network.segments.plan import SegmentPlan

    body = {"document": _document(file)}
    found = ask_network(session, "segments.plan", body, SegmentPlan)
    if as_json:
        show_record(found)
        return
    from services.ctl.segments import render_plan

    output.show(render_plan(found))


@segments.command(
    "apply",
    epilog=examples(
        "novacronctl net segments apply segments.yaml",
        "novacronctl net segments apply --reachable 10.20.0.11:443 segments.yaml",
        "novacronctl net segments apply      (puts back what was applied last)",
    ),
)
@node_options
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--reachable",
    "targets",
    multiple=True,
    metavar="ADDRESS:PORT",
    help="Must answer a TCP connection from the node before and after the change; repeatable.",
)
@click.option(
    "--within",
    type=click.FloatRange(min=0.1, max=60),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long they may take to answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def apply(
    session: Session, file: str | None, targets: tuple[str, ...], *, within: float, as_json: bool
) -> None:
    """Put FILE in force in one step, or what was applied last where none is named.

    If a target does not answer afterwards, or the node's process dies before it has checked, the
    previous set is restored.
    """
    from services.network.segments.messages import Applied

    body: dict[str, Plain] = {"check": {"targets": list(targets), "timeout_s": within}}
    if file is not None:
        body["document"] = _document(file)
    found = ask_network(
        session, "segments.apply", body, Applied, timeout_s=_APPLY_TIMEOUT_S + 2 * within
    )
    if as_json:
        show_record(found)
        return
    from services.ctl.segments import render_applied

    output.show([render_applied(found)])


@segments.command(
    "show",
    epilog=examples(
        "novacronctl net segments show",
        "novacronctl net segments show --json | jq .document > segments.json",
    ),
)
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print state, document and drops as JSON.")
@click.pass_obj
def show(session: Session, *, as_json: bool) -> None:
    """Show what is in force, and how many packets each interface had dropped."""
    from services.network.segments.messages import SegmentsView

    found = ask_network(session, "segments.show", {}, SegmentsView)
    if as_json:
        show_record(found)
        return
    from services.ctl.segments import render_view

    output.show(render_view(found, width=output.width()))


@segments.command(
    "trace",
    epilog=examples(
        "novacronctl net trace vnet0 vnet1 --port 443",
        "novacronctl net trace vnet0 host --protocol udp --port 53 --to 10.20.0.1",
        "novacronctl net trace eth1 vnet0 --from 192.0.2.7 --port 22 -f next.yaml",
    ),
)
@node_options
@click.argument("source")
@click.argument("destination")
@click.option(
    "--protocol",
    type=click.Choice(["tcp", "udp", "sctp", "icmp"]),
    default="tcp",
    show_default=True,
    help="icmp is an echo.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Destination port.")
@click.option("--from", "source_address", metavar="ADDRESS", default="", help="Source address.")
@click.option("--to", "destination_address", metavar="ADDRESS", default="", help="And destination.")
@click.option("--from-mac", "source_mac", metavar="MAC", default="", help="Source MAC.")
@click.option("--to-mac", "destination_mac", metavar="MAC", default="", help="And destination's.")
@click.option("--established", is_flag=True, help="It answers in a flow that was accepted before.")
@click.option("-f", "--file", metavar="FILE", help="Ask about this document, not what is in force.")
@click.option("--json", "as_json", is_flag=True, help="Print packet, steps and verdict as JSON.")
@click.pass_obj
def trace_packet(
    session: Session, /, *, file: str | None, as_json: bool, **question: Plain
) -> None:
    """Say which rule lets a packet from SOURCE to DESTINATION pass, or drops it.

    Both are interfaces, or 'host' for the node itself. Addresses that are not said are those of
    the listed interfaces. The packet is not sent; with --file no node is asked.
    """
    found = _trace(session, question) if file is None else _trace_file(file, question)
    if as_json:
        show_record(found)
        return
    from services.ctl.segments import render_trace

    output.show(render_trace(found))


# Whoever looks for a packet does not look below segments first.
command.add_command(trace_packet)


def _trace(session: Session, question: Plain) -> TraceAnswer:
    from services.network.segments.trace import TraceAnswer

    return ask_network(session, "segments.trace", {"question": question}, TraceAnswer)


def _trace_file(file: str, question: Plain) -> TraceAnswer:
    from protocol.errors import RemoteProtocolError
    from protocol.records import from_wire
    from services.ctl.segments import read_document
    from services.network.segments.trace import TraceQuestion, trace

    document = read_document(file)
    try:
        return trace(document, from_wire(TraceQuestion, question))
    except (RemoteProtocolError, ValueError) as exc:
        raise UsageError(str(exc)) from exc


def _document(file: str) -> Plain:
    from protocol.records import to_wire
    from services.ctl.segments import read_document

    found: SegmentDocument = read_document(file)
    return to_wire(found)
