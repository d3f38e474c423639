"""The command ``novacron``: run a node, or look at its configuration."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from services.version import VERSION

_RUN_EPILOG = """
\b
Examples:
  novacron run --environment embedded
  novacron run --config-dir /etc/novacron --environment production
  novacron run --environment embedded --state-dir /tmp/node-a --role backend

\b
Exit codes: 0 stopped as asked, 1 preflight, 2 configuration, 3 database, 4 core,
5 too many restarts, 6 health validation, 78 wrong environment.
"""


class _Lazy(click.Group):
    """Imports a subcommand's module only when it is asked for; booting must not wait for others."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return ["config", "run"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "config":
            from services.config.commands import config_group

            return config_group
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Lazy)
@click.version_option(VERSION, prog_name="novacron")
def cli() -> None:
    """NovaCron runs the platform of a virtual machine host."""


@cli.command(epilog=_RUN_EPILOG)
@click.option(
    "--config-dir",
    type=click.Path(path_type=Path),
    help="Directory of the configuration files.  [default: /etc/novacron, else the program's own]",
)
@click.option("--environment", help="Name of the second configuration file: config.NAME.yaml.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Directory of everything that lasts; sets system.dataDir.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["backend", "orchestration"]),
    help="Half of the platform to run; may be repeated.  [default: both]",
)
def run(
    config_dir: Path | None,
    environment: str | None,
    state_dir: Path | None,
    roles: tuple[str, ...],
) -> None:
    """Run a node in the foreground until it is told to stop.

    SIGTERM and SIGINT (Ctrl-C) stop it in order, a second one at once; SIGHUP reads the
    configuration again and restarts only what changed.
    """
    from services.node.prepared import RunOptions
    from services.node.start import run as run_node

    options = RunOptions(
        config_dir=None if config_dir is None else str(config_dir.absolute()),
        environment=environment,
        state_dir=None if state_dir is None else str(state_dir.absolute()),
        roles=roles,
    )
    sys.exit(run_node(options))


def main() -> None:
    """Entry point of ``novacron``."""
    cli.main(prog_name="novacron")
