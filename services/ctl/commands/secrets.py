"""novacronctl secrets: what the configuration takes from providers of secrets, and rotation.

No value is ever printed: none is sent to a person.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

import click

from protocol.records import to_wire
from services.ctl import output
from services.ctl.amounts import age, took
from services.ctl.errors import Exit
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.security.secrets.model import (
    RotateRequest,
    RotateResult,
    SecretCheck,
    SecretList,
    SecretState,
    SecretView,
)

R = TypeVar("R")

SECURITY = "security"
# Every provider may take its whole time, one secret after the other.
_CHECK_TIMEOUT_S = 60.0
_ROTATE_TIMEOUT_S = 90.0
_TONES = {
    SecretState.FRESH: Tone.GOOD,
    SecretState.FIXED: Tone.GOOD,
    SecretState.UNKNOWN: Tone.FAINT,
    SecretState.STALE: Tone.CAUTION,
    SecretState.FAILED: Tone.BAD,
    SecretState.EXPIRED: Tone.BAD,
}
_WELL = (SecretState.FRESH, SecretState.FIXED)
_COLUMNS = (
    Column("SECRET"),
    Column("STATE"),
    Column("VERSION", rank=3),
    Column("AGE", right=True, rank=2),
    Column("CONFIRMED", right=True, rank=4),
    Column("EXPIRES", right=True, rank=1),
    Column("KEY", rank=5),
)
_VERSION_CHARACTERS = 12


@click.group("secrets")
@node_options
def command() -> None:
    """Secrets that the configuration takes from providers; values are never shown."""


@command.command("list", epilog=examples("novacronctl secrets list"))
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print the secrets as JSON.")
@click.pass_obj
def list_secrets(session: Session, *, as_json: bool) -> None:
    """List each secret with its provider, version, age, end and state."""
    found = session.ask(SecretList, SECURITY, "secrets.list", timeout_s=_CHECK_TIMEOUT_S)
    if as_json:
        output.show_json(to_json(found), indent=2)
    else:
        output.show(render_secrets(found.secrets, now_s=time.time(), width=output.width()))


@command.command(
    "check", epilog=examples("novacronctl secrets check", "novacronctl secrets check --json")
)
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_obj
def check(session: Session, *, as_json: bool) -> None:
    """Ask every provider for every secret now; exit 1 when one can't be had."""
    found = session.ask(SecretCheck, SECURITY, "secrets.check", timeout_s=_CHECK_TIMEOUT_S)
    if as_json:
        output.show_json(to_json(found), indent=2)
    else:
        output.show(render_check(found, now_s=time.time(), width=output.width()))
    is_well = all(view.state in _WELL for view in found.secrets)
    if not is_well or any(provider.problem for provider in found.providers):
        raise click.exceptions.Exit(Exit.FAILED)


@command.command(
    "rotate",
    epilog=examples(
        "novacronctl secrets rotate vault/novacron/db",
        "novacronctl secrets rotate --newest aws/novacron/redis#password",
    ),
)
@node_options
@click.argument("name", metavar="PROVIDER/NAME")
@click.option("--newest", is_flag=True, help="Take what the provider has by now, and no new value.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def rotate(session: Session, name: str, *, newest: bool, as_json: bool) -> None:
    """Change the secret PROVIDER/NAME, and restart what uses it.

    Without --newest the node makes a new password for its own role in PostgreSQL, stores it with
    the provider and sets it in the database. Every other secret is changed by whoever checks it,
    and taken over with --newest.

    The components that use the secret are restarted, in order, with the new value; machines go on.
    """
    body = to_wire(RotateRequest(name=name, newest=newest))
    found = session.ask(RotateResult, SECURITY, "secrets.rotate", body, timeout_s=_ROTATE_TIMEOUT_S)
    if as_json:
        output.show_json(to_json(found), indent=2)
        return
    version = printable(found.version)
    if found.is_changed:
        click.echo(f"{found.name} has version {version}; what uses it is being restarted")
    else:
        click.echo(f"{found.name} has version {version}, which the node uses already")


def render_secrets(views: Sequence[SecretView], *, now_s: float, width: int) -> list[Line]:
    """A table of secrets; what is not fresh is followed by the reason."""
    if not views:
        return [line("the configuration refers to no secrets")]
    head, *rows = table(_COLUMNS, [_row(view, now_s) for view in views], width=width)
    lines = [head]
    for view, row in zip(views, rows, strict=True):
        lines.append(row)
        if view.reason:
            lines.append(line("    ", Span(printable(view.reason), Tone.CAUTION)))
        if not view.is_applied:
            text = "the node runs with another value; a reload is under way, or was refused"
            lines.append(line("    ", Span(text, Tone.CAUTION)))
    return lines


def render_check(found: SecretCheck, *, now_s: float, width: int) -> list[Line]:
    """How each provider answered, and the table of secrets."""
    lines: list[Line] = []
    for provider in found.providers:
        tone = Tone.BAD if provider.problem else Tone.GOOD
        state = Span(printable(provider.problem) or "well", tone)
        lines.append(line(f"{provider.provider:10}", state, f"  in {took(provider.took_s)}"))
    return [*lines, (), *render_secrets(found.secrets, now_s=now_s, width=width)]


def _row(view: SecretView, now_s: float) -> tuple[Span, ...]:
    return (
        Span(printable(view.name)),
        Span(view.state.value, _TONES[view.state]),
        Span(printable(view.version)[:_VERSION_CHARACTERS] or "-"),
        Span(_since(view.created_s, now_s)),
        Span(_since(view.confirmed_s, now_s)),
        Span("never" if view.expires_s is None else f"in {age(max(0.0, view.expires_s - now_s))}"),
        Span(", ".join(view.keys), Tone.FAINT),
    )


def _since(at_s: float | None, now_s: float) -> str:
    return "-" if at_s is None else age(max(0.0, now_s - at_s))
