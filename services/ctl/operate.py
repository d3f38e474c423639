"""Start, stop and restart one component, by its supervisor; what the three commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from protocol import names
from protocol.messages.health import HealthState
from services.ctl import output
from services.ctl.client import Client
from services.ctl.components import find
from services.ctl.errors import CtlError, UsageError
from services.ctl.render import STATE_TONES
from services.ctl.session import Session
from services.ctl.styled import Span, line, printable

F = TypeVar("F", bound=Callable[..., Any])  # Any: click's commands have any parameters

# A component may take its own stop timeout and then its start timeout; the largest are 30 s each.
COMMAND_TIMEOUT_S = 60.0
# Completion runs while somebody types.
_COMPLETION_TIMEOUT_S = 0.5


def component_argument(command: F) -> F:
    """The argument NAME, completed with what the node has."""
    return click.argument("name", shell_complete=complete_component)(command)


def operate(session: Session, verb: str, name: str) -> None:
    """Have a component's supervisor carry out ``verb``, wait for it, and say what came of it.

    Args:
        session: the node.
        verb: ``start``, ``stop`` or ``restart``.
        name: the component's id or path.

    Raises:
        NoComponentError: there is no such component.
        CtlError: the component did not come up.
    """
    if name == names.ROOT:
        raise UsageError(
            f"{names.ROOT} is the node itself: {verb} it with systemctl, or stop 'novacron run'"
        )
    client = session.client(timeout_s=COMMAND_TIMEOUT_S)
    try:
        path = find(client.status().components, name).path
        state, reason = _outcome(
            client.call(names.parent_path(path), verb, {"id": path.rpartition("/")[2]})
        )
    finally:
        client.close()
    because = f": {printable(reason)}" if reason and state is not HealthState.STOPPED else ""
    output.show([line(f"{path} is ", Span(state.value, STATE_TONES[state]), because)])
    if state is HealthState.UNHEALTHY:
        raise CtlError(f"{path} did not come up")


def complete_component(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The names that begin with what was typed; none while the node can't be asked."""
    from protocol.errors import NovacronError

    session = context.obj if isinstance(context.obj, Session) else Session()
    client: Client | None = None
    try:
        client = Client(session.run_dir, timeout_s=_COMPLETION_TIMEOUT_S)
        components = client.status().components
    except NovacronError:
        return []
    finally:
        if client is not None:
            client.close()
    known = [component.path if "/" in incomplete else component.id for component in components]
    return [name for name in known if name.startswith(incomplete)]


def _outcome(reply: Any) -> tuple[HealthState, str]:  # Any: what came over the wire
    try:
        return HealthState(reply["state"]), str(reply.get("reason", ""))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise CtlError(f"the supervisor's answer is not understood: {reply!r:.80}") from None
