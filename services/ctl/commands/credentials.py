"""novacronctl credentials: certificates, keys, the database's role and tokens, and their ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from services.ctl import output
from services.ctl.amounts import age
from services.ctl.errors import Exit
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.security.credentials_model import Credential, CredentialList, Severity

SECURITY = "security"
_TIMEOUT_S = 30.0
_TONES = {Severity.WARNING: Tone.CAUTION, Severity.DEGRADED: Tone.BAD, Severity.ERROR: Tone.BAD}
_COLUMNS = (
    Column("CREDENTIAL"),
    Column("KIND", rank=2),
    Column("STATE"),
    Column("EXPIRES", right=True),
    Column("SUBJECT", rank=1),
)


@click.command(
    "credentials",
    epilog=examples(
        "novacronctl credentials",
        "novacronctl credentials --check",
        "novacronctl credentials --json | jq '.credentials[].expires_s'",
    ),
)
@node_options
@click.option("--check", "with_check", is_flag=True, help="Look at everything now, not lately.")
@click.option("--json", "as_json", is_flag=True, help="Print the credentials as JSON.")
@click.pass_obj
def command(session: Session, *, with_check: bool, as_json: bool) -> None:
    """List certificates, keys, the database's role and API tokens, with ends and findings.

    The node looks at them every five minutes, and at certificates when a file changes. Exit 1 when
    something can't be used, has run out, or will within a day.
    """
    method = "credentials.check" if with_check else "credentials.list"
    found = session.ask(CredentialList, SECURITY, method, timeout_s=_TIMEOUT_S)
    if as_json:
        output.show_json(to_json(found), indent=2)
    else:
        lines = render_credentials(found.credentials, now_s=time.time(), width=output.width())
        output.show(lines)
    if any(_is_bad(it) for it in found.credentials):
        raise click.exceptions.Exit(Exit.FAILED)


def render_credentials(
    credentials: Sequence[Credential], *, now_s: float, width: int
) -> list[Line]:
    """A table of credentials, each followed by its findings."""
    if not credentials:
        return [line("the node uses no credentials")]
    head, *rows = table(_COLUMNS, [_row(it, now_s) for it in credentials], width=width)
    lines = [head]
    for credential, row in zip(credentials, rows, strict=True):
        lines.append(row)
        for finding in credential.findings:
            text = Span(printable(finding.message), _TONES[finding.severity])
            lines.append(line("    ", text))
    return lines


def _row(credential: Credential, now_s: float) -> tuple[Span, ...]:
    worst = credential.findings[0].severity if credential.findings else None
    state = Span("good", Tone.GOOD) if worst is None else Span(worst.value, _TONES[worst])
    return (
        Span(printable(credential.name)),
        Span(credential.kind, Tone.FAINT),
        state,
        Span(_end(credential.expires_s, now_s)),
        Span(printable(credential.subject), Tone.FAINT),
    )


def _end(expires_s: float | None, now_s: float) -> str:
    if expires_s is None:
        return "never"
    left_s = expires_s - now_s
    return f"in {age(left_s)}" if left_s > 0 else f"{age(-left_s)} ago"


def _is_bad(credential: Credential) -> bool:
    return any(it.severity is not Severity.WARNING for it in credential.findings)
