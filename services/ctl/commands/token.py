"""novacronctl token: who may use the HTTP API, and until when."""

from __future__ import annotations

import time

import click

from protocol.messages.access import Role
from protocol.records import to_wire
from services.config.durations import parse_duration
from services.ctl import output
from services.ctl.errors import UsageError
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.styled import line
from services.ctl.tokens import note_on_created, render_revoked, render_tokens
from services.security.token_model import (
    CreatedToken,
    CreateRequest,
    RevokeRequest,
    TokenEntry,
)
from services.security.tokens import name_problem

_SECURITY = "security"


@click.group("token")
@node_options
def command() -> None:
    """Make, list and revoke the tokens of the HTTP API."""


@command.command(
    "create",
    epilog=examples(
        "novacronctl token create grafana",
        "novacronctl token create ci --role operator --lifetime 7d",
        "TOKEN=$(novacronctl token create ci)",
    ),
)
@node_options
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.VIEWER.value,
    show_default=True,
    help="What its bearer may do.",
)
@click.option("--lifetime", default="30d", show_default=True, help="Until it ends, such as 12h.")
@click.option("--json", "as_json", is_flag=True, help="Print the record, with the token.")
@click.pass_obj
def create(session: Session, name: str, *, role: str, lifetime: str, as_json: bool) -> None:
    """Make a token for NAME, a person or a program, and print it.

    It is shown this once: the node keeps what proves it and not the token itself. A viewer reads,
    an operator also starts, stops and restarts components, an admin may do all.
    """
    if problem := name_problem(name):
        raise UsageError(problem)
    try:
        request = CreateRequest(name=name, role=Role(role), lifetime_s=parse_duration(lifetime))
    except ValueError as exc:
        raise UsageError(f"--lifetime {lifetime}: 60s to 366d, such as 12h or 30d") from exc
    created = session.ask(CreatedToken, _SECURITY, "token.create", to_wire(request))
    if as_json:
        output.show_json(to_json(created), indent=2)
        return
    # Alone on the standard output, so that a script can take it from there.
    output.show([line(created.token)])
    output.note(note_on_created(created, now_s=time.time()))


@command.command(
    "list", epilog=examples("novacronctl token list", "novacronctl token list --json | jq length")
)
@node_options
@click.option("--all", "with_ended", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the records.")
@click.pass_obj
def list_tokens(session: Session, *, with_ended: bool, as_json: bool) -> None:
    """List the tokens, the newest first; of all nodes that share the database."""
    found = session.ask(tuple[TokenEntry, ...], _SECURITY, "token.list")
    shown = [entry for entry in found if with_ended or entry.state == "active"]
    if as_json:
        output.show_json([to_json(entry) for entry in shown], indent=2)
        return
    if not shown:
        output.note("no tokens; 'novacronctl token create NAME' makes one")
        return
    output.show(render_tokens(shown, now_s=time.time(), width=output.width()))


@command.command("revoke", epilog=examples("novacronctl token revoke k3v7x2a5qd"))
@node_options
@click.argument("token_id", metavar="ID")
@click.pass_obj
def revoke(session: Session, token_id: str) -> None:
    """End the token ID at once, on every node.

    Repeating it changes nothing. ID is what 'token list' shows, never the token itself.
    """
    entry = session.ask(TokenEntry, _SECURITY, "token.revoke", to_wire(RevokeRequest(id=token_id)))
    output.show(render_revoked(entry))
