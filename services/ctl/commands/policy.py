"""novacronctl policy: who may call what, from the file; none of it needs a node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from protocol import names
from services.ctl import output
from services.ctl.errors import Exit
from services.ctl.session import Session, examples, node_options

if TYPE_CHECKING:
    from protocol.records import Plain
    from services.policy.source import Source
    from supervisor.guard.policy import Decision, Policy

_GROUP_DEFAULT = "novacron"


@click.group("policy")
@node_options
def command() -> None:
    """Who may call what in a node: read the policy, check it, and try it out.

    The file is security.zeroTrust.policyFile, else policy.yaml beside the configuration, else the
    one that comes with NovaCron.
    """


def _file_option(parameter: str) -> str:
    return f"{parameter} (default: the file that the node uses)."


@command.command("show", epilog=examples("novacronctl policy show", "novacronctl policy show -f p"))
@node_options
@click.option("-f", "--file", type=click.Path(path_type=Path), help=_file_option("Policy to show"))
@click.option("--json", "as_json", is_flag=True, help="Print the compiled policy as JSON.")
@click.pass_obj
def show(session: Session, file: Path | None, *, as_json: bool) -> None:
    """Show the rules in the order in which they are tried."""
    where, found = _load(session, file)
    if as_json:
        output.show_json(_plain(found), indent=2)
        return
    click.echo(f"{where}: {len(found.policy.rules)} rules")
    for role in found.policy.roles:
        click.echo(f"  role {role.name}: users {_some(role.uids)}, groups {_some(role.gids)}")
    for rule in found.policy.rules:
        click.echo(f"  {rule.name}{'  (recorded ahead)' if rule.audit else ''}")
        for title, patterns in (("callers", rule.callers), ("calls", rule.calls), ("of", rule.of)):
            click.echo(f"      {title:<8} {' '.join(patterns)}")


@command.command("check", epilog=examples("novacronctl policy check /etc/novacron/policy.yaml"))
@node_options
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def check(session: Session, file: Path | None, *, as_json: bool) -> None:
    """Find mistakes in a policy file; without FILE, in the one that the node uses."""
    where, found = _load(session, file)
    if as_json:
        rules = len(found.policy.rules)
        output.show_json({"file": str(where), "rules": rules, "notes": list(found.notes)}, indent=2)
        return
    for note in found.notes:
        output.note(note)
    click.echo(f"{where}: {len(found.policy.rules)} rules, no mistakes")


@command.command(
    "test",
    epilog=examples(
        "novacronctl policy test person:anna restart core",
        "novacronctl policy test role:viewer status novacron",
        "novacronctl policy test core/vm restart core",
    ),
)
@node_options
@click.argument("caller")
@click.argument("method")
@click.argument("process", metavar="OF")
@click.option("-f", "--file", type=click.Path(path_type=Path), help=_file_option("Policy to ask"))
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@click.pass_context
def try_out(
    context: click.Context,
    caller: str,
    method: str,
    process: str,
    file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Tell whether CALLER may call METHOD of the process OF, and which rule says so.

    CALLER is a process such as core/vm, person:NAME with the groups that this host has for the
    user, or role:NAME. Exit code 0 allowed, 4 refused.
    """
    _where, found = _load(context.obj, file)
    decision, roles = _decide(found.policy, caller, method, process)
    if as_json:
        output.show_json(
            {
                "allowed": decision.is_allowed,
                "rule": decision.rule or None,
                "line": found.lines.get(decision.rule),
                "audited": decision.is_allowed and decision.is_audited,
                "roles": list(roles),
                "reason": decision.reason or None,
            },
            indent=2,
        )
    elif decision.is_allowed:
        recorded = ", and is recorded ahead" if decision.is_audited else ""
        line = found.lines.get(decision.rule)
        place = f" (line {line})" if line else ""
        click.echo(f"allowed by the rule {decision.rule}{place}{recorded}")
    else:
        click.echo(f"refused: {decision.reason}")
    if not decision.is_allowed:
        context.exit(Exit.DENIED)


def _load(session: Session, file: Path | None) -> tuple[Path, Source]:
    from services.policy import host

    where = file or host.configured_file(os.environ, session.config_dir, session.environment)
    return where, host.load(where, group=_group(session), is_enforced=True, is_audited=True)


def _group(session: Session) -> str:
    """The group that owns the node's directory; what ``@node`` is called does not matter much."""
    import grp

    try:
        return grp.getgrgid(session.run_dir.stat().st_gid).gr_name
    except (OSError, KeyError):
        return _GROUP_DEFAULT


def _decide(
    policy: Policy, caller: str, method: str, process: str
) -> tuple[Decision, tuple[str, ...]]:
    from services.policy import host
    from supervisor.guard.policy import PERSON, ROLE, ROLES, decide, roles_of

    roles: tuple[str, ...] = ()
    if caller.startswith(ROLE) and caller[len(ROLE) :] in ROLES:
        roles = ROLES[: ROLES.index(caller[len(ROLE) :]) + 1]
        caller = names.person_path("somebody")
    elif caller.startswith(PERSON):
        user = caller[len(PERSON) :]
        uid = host.uid_of(user)
        if uid is None:
            output.note(f"this host has no user {user}: without roles, then")
        else:
            roles = roles_of(policy, uid, host.groups_of(user))
        caller = names.person_path(user)
    elif names.is_person(caller) or not names.is_process_path(caller):
        raise click.UsageError(f"CALLER is a process, {PERSON}NAME or {ROLE}NAME: {caller}")
    return decide(policy, caller, roles, method, process), roles


def _plain(found: Source) -> Plain:
    return {
        "roles": {
            role.name: {"uids": list(role.uids), "gids": list(role.gids)}
            for role in found.policy.roles
        },
        "rules": [
            {
                "name": rule.name,
                "line": found.lines.get(rule.name),
                "callers": list(rule.callers),
                "calls": list(rule.calls),
                "of": list(rule.of),
                "audit": rule.audit,
            }
            for rule in found.policy.rules
        ],
        "notes": list(found.notes),
    }


def _some(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids)) or "none"
