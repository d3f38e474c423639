"""novacronctl completion: the script that makes a shell complete commands and component names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from services.ctl.session import examples

_VARIABLE = "_NOVACRONCTL_COMPLETE"


@click.command(
    "completion",
    epilog=examples(
        "novacronctl completion bash > /etc/bash_completion.d/novacronctl",
        'novacronctl completion zsh > "${fpath[1]}/_novacronctl"',
        "novacronctl completion fish > ~/.config/fish/completions/novacronctl.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None, "click completes the three shells that the argument allows"
    program = click.get_current_context().find_root().command
    click.echo(kind(program, {}, "novacronctl", _VARIABLE).source())
