"""novacronctl identity: who can call the node at the moment, and taking that away."""

from __future__ import annotations

import click

from protocol import names
from protocol.errors import RemoteProtocolError
from protocol.records import Plain
from services.ctl import output
from services.ctl.errors import UsageError
from services.ctl.session import Session, examples, node_options


@click.group("identity")
@node_options
def command() -> None:
    """Who can call the node at the moment, and taking that away.

    Each process and each person has keys of some minutes. A revoked name is refused by every
    process from its next message on, until it is restored or the node stops.
    """


@command.command("list", epilog=examples("novacronctl identity list"))
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print the identities as JSON.")
@click.pass_obj
def show(session: Session, *, as_json: bool) -> None:
    """Show the names that have keys, and until when unless they are renewed."""
    client = session.client()
    try:
        answer = client.call(names.ROOT, "identity.list")
    finally:
        client.close()
    found = _identities(answer)
    if as_json:
        output.show_json(found, indent=2)
        return
    for entry in found:
        left_s = entry["expires_in_s"]
        ends = "no key" if left_s is None else f"{left_s:.0f} s left"
        click.echo(f"{entry['name']:<32} {'revoked' if entry['is_revoked'] else ends}")


@command.command(
    "revoke",
    epilog=examples("novacronctl identity revoke person:anna", "novacronctl identity revoke api"),
)
@node_options
@click.argument("name")
@click.pass_obj
def revoke(session: Session, name: str) -> None:
    """Refuse NAME, a process such as core/vm or a person, from the next message on.

    A person is operator/USER, or person:USER.
    """
    _change(session, "identity.revoke", name, "is revoked")


@command.command("restore", epilog=examples("novacronctl identity restore person:anna"))
@node_options
@click.argument("name")
@click.pass_obj
def restore(session: Session, name: str) -> None:
    """Let NAME call again."""
    _change(session, "identity.restore", name, "may call again")


def _change(session: Session, method: str, name: str, what: str) -> None:
    if name.startswith("person:"):
        name = names.person_path(name.removeprefix("person:"))
    if not names.is_person(name) and not names.is_process_path(name):
        raise UsageError(f"{name!r} is neither a process nor person:USER")
    client = session.client()
    try:
        client.call(names.ROOT, method, {"name": name})
    finally:
        client.close()
    click.echo(f"{name} {what}")


def _identities(answer: Plain) -> list[dict[str, Plain]]:
    match answer:
        case {"identities": list(found)} if all(isinstance(entry, dict) for entry in found):
            return found
        case _:
            raise RemoteProtocolError("the node answers identity.list as another version would")
