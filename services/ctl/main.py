"""The program novacronctl: options that name a node, and a command, loaded when it is run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from protocol.errors import NovacronError, RemoteCallError
from services.ctl import output
from services.ctl.errors import CtlError, Exit
from services.ctl.session import node_options
from services.version import VERSION

_PROGRAM = "novacronctl"
# Command name to module; the attribute is always ``command``.
_COMMANDS: Mapping[str, str] = {
    "status": "services.ctl.commands.status",
    "tree": "services.ctl.commands.tree",
    "nodes": "services.ctl.commands.nodes",
    "top": "services.ctl.commands.top",
    "explain": "services.ctl.commands.explain",
    "trace": "services.ctl.commands.trace",
    "restart": "services.ctl.commands.restart",
    "stop": "services.ctl.commands.stop",
    "start": "services.ctl.commands.start",
    "logs": "services.ctl.commands.logs",
    "events": "services.ctl.commands.events",
    "boot": "services.ctl.commands.boot",
    "policy": "services.ctl.commands.policy",
    "identity": "services.ctl.commands.identity",
    "dwcp": "services.ctl.commands.dwcp",
    "db": "services.ctl.commands.db",
    "vm": "services.ctl.commands.vm",
    "net": "services.ctl.commands.net",
    "audit": "services.ctl.commands.audit",
    "keys": "services.ctl.commands.keys",
    "token": "services.ctl.commands.token",
    "credentials": "services.ctl.commands.credentials",
    "secrets": "services.ctl.commands.secrets",
    "completion": "services.ctl.commands.completion",
}
# Codes of a node that knows who asks and does not let them.
_REFUSALS = frozenset(
    ("supervisor.access_refused", "supervisor.identity_revoked", "security.access_denied")
)


class _Program(click.Group):
    """A group that imports a command when it is named, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order in which an operator meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or explain that there is none, with the closest names."""
        module = _COMMANDS.get(cmd_name)
        if module is not None:
            found: click.Command = importlib.import_module(module).command
            return found
        if not ctx.resilient_parsing and not cmd_name.startswith("-"):
            import difflib  # only when somebody mistyped

            close = difflib.get_close_matches(cmd_name, _COMMANDS)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f"no command {cmd_name!r}{hint}")
        return None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what we raise ends in a sentence and an exit code, never a traceback."""
        try:
            return super().invoke(ctx)
        except NovacronError as exc:
            output.note(f"{_PROGRAM}: {exc}")
            ctx.exit(exit_code(exc))
        except KeyboardInterrupt:
            output.note("")
            ctx.exit(128 + 2)


def exit_code(error: NovacronError) -> int:
    """What an error ends the program with."""
    if isinstance(error, CtlError):
        return error.exit_code
    if isinstance(error, RemoteCallError) and error.remote_code in _REFUSALS:
        return Exit.DENIED
    if error.code.startswith("config."):
        return Exit.USAGE
    return Exit.FAILED


@click.command(
    _PROGRAM,
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the node is not running, 4 no permission.
'status' has its own: 0 ready, 1 degraded, 2 not ready or unhealthy, 3 not running.""",
)
@node_options
@click.version_option(VERSION, prog_name=_PROGRAM)
def program() -> None:
    """Ask a running NovaCron node what it does, and tell its components what to do.

    The node is found as 'novacron run' finds it: by --state-dir, by NOVACRON_SYSTEM_DATADIR, or by
    the configuration. Works as root and as any member of the node's group.
    """


def main() -> None:
    """Run the program on the process's arguments; never returns."""
    run: Callable[..., Any] = program  # Any: click decides by standalone_mode
    try:
        run(prog_name=_PROGRAM)
    except BrokenPipeError:  # the reader of our output has gone, such as head
        sys.exit(Exit.OK)
