"""Asking why a component is as it is: its own supervisor, and those above it."""

from __future__ import annotations

from dataclasses import dataclass

from protocol import names
from protocol.messages.explain import ChildExplanation, ExplainQuery, Explanation, Supervision
from protocol.messages.status import ComponentStatus
from protocol.records import to_wire
from services.ctl.client import Client
from services.ctl.components import find, root_status
from services.ctl.errors import CtlError, DeniedError, NodeHungError, NotRunningError

SCHEMA = "novacron.explain/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """All that is known of one component's state: novacronctl explain --json prints this record.

    Attributes:
        schema: name and version of this format.
        component: its status.
        child: what its supervisor says of it; None for the root, and where the supervisor can't
            be asked.
        supervisor: what its supervisor says of itself; None as ``child`` is.
        own: of a supervisor that runs, what it says of itself.
        above: what is said of the supervisors above it, the nearest first.
        problem: why its supervisor can't be asked, or "".
    """

    schema: str = SCHEMA
    component: ComponentStatus
    child: ChildExplanation | None = None
    supervisor: Supervision | None = None
    own: Supervision | None = None
    above: tuple[ChildExplanation, ...] = ()
    problem: str = ""


def fetch(client: Client, name: str) -> Explained:
    """Ask the node about a component, or about itself; errors as in ``Client.call``.

    Raises:
        NoComponentError: there is no such component.
    """
    status = client.status()
    if name == names.ROOT:
        return Explained(component=root_status(status), own=_ask(client, names.ROOT).supervisor)
    component = find(status.components, name)
    above, problem = [], ""
    found: Explanation | None = None
    try:
        found = _ask(client, names.parent_path(component.path), component.id)
    except (NotRunningError, NodeHungError, DeniedError):
        raise
    except CtlError as exc:
        problem = str(exc)
    for path in _supervisors_above(component.path):
        answer = _ask_gently(client, names.parent_path(path), path.rpartition("/")[2])
        if answer is not None and answer.child is not None:
            above.append(answer.child)
    own = None
    if component.kind == "supervisor" and component.pid is not None:
        own = _ask_gently(client, component.path)
    return Explained(
        component=component,
        child=None if found is None else found.child,
        supervisor=None if found is None else found.supervisor,
        own=None if own is None else own.supervisor,
        above=tuple(above),
        problem=problem,
    )


def _supervisors_above(path: str) -> list[str]:
    found = []
    while (path := names.parent_path(path)) != names.ROOT:
        found.append(path)
    return found


def _ask(client: Client, supervisor: str, child_id: str = "") -> Explanation:
    return client.ask(Explanation, supervisor, "explain", to_wire(ExplainQuery(id=child_id)))


def _ask_gently(client: Client, supervisor: str, child_id: str = "") -> Explanation | None:
    """As ``_ask``; None where the supervisor can't be asked, which is not what was wanted most."""
    try:
        return _ask(client, supervisor, child_id)
    except (NotRunningError, NodeHungError, DeniedError):
        raise
    except CtlError:
        return None
