"""What a command line says of the node it means, and what follows from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from protocol import names
from protocol.records import Plain
from services.ctl.client import Client
from services.ctl.errors import denied

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])  # Any: click's commands have any parameters

DEFAULT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The node that a command is about.

    Attributes:
        state_dir_flag, config_dir, environment: as given; None to find it as the node does.
        timeout_s: how long a call may take; None for the command's own choice.
    """

    state_dir_flag: Path | None = None
    config_dir: Path | None = None
    environment: str | None = None
    timeout_s: float | None = None

    @property
    def state_dir(self) -> Path:
        """The node's state directory, found as ``novacron run`` finds it."""
        from services.ctl import places

        return places.state_dir(self.state_dir_flag, os.environ, self.config_dir, self.environment)

    @property
    def run_dir(self) -> Path:
        """The directory of the node's sockets.

        Raises:
            DeniedError: the state directory may not be looked into.
        """
        state = self.state_dir
        try:
            return names.run_dir(state)
        except PermissionError:
            raise denied(state) from None

    @property
    def log_dir(self) -> Path:
        """The directory of the node's log files."""
        from services.ctl import places

        return places.log_dir(self.state_dir, os.environ, self.config_dir, self.environment)

    def client(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Client:
        """A client of the node.

        Args:
            timeout_s: the command's own limit, where the command line names none.
        """
        return Client(self.run_dir, state_dir=self.state_dir, timeout_s=self.timeout_s or timeout_s)

    def ask(
        self,
        record: type[R],
        path: str,
        method: str,
        body: Plain = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> R:
        """Call one method whose reply is a record, over a connection of its own.

        Args:
            record: the type of the reply.
            path: the process.
            method: what to call.
            body: its argument.
            timeout_s: the command's own limit, where the command line names none.
        """
        client = self.client(timeout_s=timeout_s)
        try:
            return client.ask(record, path, method, body)
        finally:
            client.close()


def node_options(command: F) -> F:
    """The options that name a node, for the program and for each of its commands.

    A command's own option wins over the program's. The command gets a ``Session`` as its first
    argument through ``click.pass_obj``.
    """
    for option in reversed(
        (
            click.option(
                "--state-dir",
                type=click.Path(path_type=Path, file_okay=False),
                expose_value=False,
                callback=_keep("state_dir_flag"),
                help="State directory of the node (default: as configured).",
            ),
            click.option(
                "--config-dir",
                type=click.Path(path_type=Path, file_okay=False),
                expose_value=False,
                callback=_keep("config_dir"),
                help="Directory of its configuration files.",
            ),
            click.option(
                "--environment",
                metavar="NAME",
                expose_value=False,
                callback=_keep("environment"),
                help="Environment whose configuration it uses, such as production.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0.05, max=3600),
                metavar="SECONDS",
                expose_value=False,
                callback=_keep("timeout_s"),
                help="How long the node may take to answer.",
            ),
        )
    ):
        command = option(command)
    return command


def examples(*lines: str) -> str:
    """The end of a command's help: examples, not rewrapped."""
    return "\n".join(("\b", "Examples:", *(f"  {text}" for text in lines)))


def _keep(field: str) -> Callable[[click.Context, click.Parameter, object], object]:
    def callback(context: click.Context, _parameter: click.Parameter, value: object) -> object:
        known = context.obj if isinstance(context.obj, Session) else Session()
        changes: dict[str, Any] = {} if value is None else {field: value}  # Any: as click parsed it
        context.obj = replace(known, **changes)
        return value

    return callback
