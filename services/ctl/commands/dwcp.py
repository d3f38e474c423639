"""novacronctl dwcp: send files to other nodes, and see and end such transfers."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from protocol.records import Plain, to_wire
from services.ctl import output
from services.ctl.client import Client
from services.ctl.errors import CtlError, UsageError
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.styled import to_plain
from services.ctl.transfers import (
    MANAGER,
    find_transfer,
    parse_address,
    render_dwcp,
    render_end,
    render_progress,
)
from services.dwcp.model import (
    ENDED,
    Direction,
    DwcpStatus,
    SendRequest,
    StatusRequest,
    TransferRequest,
    TransferState,
    TransferStatus,
)

# A transfer is accepted once the other node has answered.
_SEND_TIMEOUT_S = 30.0
_LOOK_PERIOD_S = 0.25


@click.group("dwcp")
@node_options
def command() -> None:
    """Move files between nodes over DWCP."""


@command.command(
    "send",
    epilog=examples(
        "novacronctl dwcp send disk.qcow2 host2.example:7800",
        "novacronctl dwcp send --streams 8 --no-wait /srv/images/base.raw [2001:db8::2]:7800",
    ),
)
@node_options
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--streams", type=click.IntRange(min=1), metavar="N", help="Fix the number of streams."
)
@click.option("--no-wait", is_flag=True, help="Print the transfer's id and return at once.")
@click.pass_obj
def send(session: Session, file: Path, address: str, *, streams: int | None, no_wait: bool) -> None:
    """Send FILE to the node at HOST:PORT; it appears in that node's incoming directory.

    The node reads the file, so it is its rights that count. Ctrl-C stops the waiting and not the
    transfer; 'dwcp cancel' does that.
    """
    host, port = parse_address(address)
    try:
        request = SendRequest(file=str(file.absolute()), host=host, port=port, streams=streams)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    client = session.client(timeout_s=_SEND_TIMEOUT_S)
    try:
        transfer = _transfer_id(client.call(MANAGER, "dwcp.send", to_wire(request)))
        if no_wait:
            click.echo(transfer)
        else:
            _wait(client, transfer)
    finally:
        client.close()


@command.command("status", epilog=examples("novacronctl dwcp status"))
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print the transfers as JSON.")
@click.pass_obj
def status(session: Session, *, as_json: bool) -> None:
    """Show the transfers under way and those that ended lately."""
    client = session.client()
    try:
        found = _ask(client)
    finally:
        client.close()
    if as_json:
        output.show_json(to_json(found), indent=2)
    else:
        output.show(render_dwcp(found, width=output.width()))


@command.command("cancel", epilog=examples("novacronctl dwcp cancel 3fa9c1d2"))
@node_options
@click.argument("transfer", metavar="ID")
@click.pass_obj
def cancel(session: Session, transfer: str) -> None:
    """End the transfer ID, or the only one whose id begins with it."""
    client = session.client()
    try:
        found = find_transfer(_ask(client).transfers, transfer).transfer
        client.call(MANAGER, "dwcp.cancel", to_wire(TransferRequest(transfer=found)))
    finally:
        client.close()
    click.echo(f"{found} is cancelled")


def _wait(client: Client, transfer: str) -> None:
    """Show how a transfer goes until it ends.

    Raises:
        CtlError: it failed.
    """
    is_drawing = sys.stderr.isatty()
    try:
        while (found := _sent(client, transfer)).state not in ENDED:
            if is_drawing:
                click.echo(f"\r\x1b[K{to_plain(render_progress(found))}", nl=False, err=True)
            time.sleep(_LOOK_PERIOD_S)
    except KeyboardInterrupt:
        output.note(f"\nthe transfer goes on; 'novacronctl dwcp cancel {transfer[:8]}' ends it")
        raise
    if is_drawing:
        click.echo("\r\x1b[K", nl=False, err=True)
    if found.state is TransferState.FAILED:
        raise CtlError(to_plain(render_end(found)))
    output.show([render_end(found)])


def _sent(client: Client, transfer: str) -> TransferStatus:
    """The sending end of a transfer of ours."""
    for found in _ask(client, transfer).transfers:
        if found.direction is Direction.SEND:
            return found
    raise CtlError(f"the node no longer knows the transfer {transfer}")


def _ask(client: Client, transfer: str = "") -> DwcpStatus:
    """The manager's status, of one transfer or of all."""
    request = to_wire(StatusRequest(transfer=transfer))
    return client.ask(DwcpStatus, MANAGER, "dwcp.status", request)


def _transfer_id(reply: Plain) -> str:
    match reply:
        case {"transfer": str(transfer)}:
            return transfer
        case _:
            raise CtlError(f"the DWCP manager's answer is not understood: {reply!r:.80}")
