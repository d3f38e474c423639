"""The components of a status as a tree: how they hang together, and which one a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol import names
from protocol.messages.health import HealthState
from protocol.messages.status import ComponentStatus, NodeStatus, Verdict
from services.ctl.errors import NoComponentError

_PROPOSALS_MAX = 3
_ROOT_STATES = {
    Verdict.READY: HealthState.HEALTHY,
    Verdict.DEGRADED: HealthState.DEGRADED,
    Verdict.NOT_READY: HealthState.UNHEALTHY,
}


@dataclass(frozen=True, slots=True)
class Branch:
    """A component with what is drawn before its name to show where it hangs.

    Attributes:
        prefix: drawn before the id.
        below: drawn instead on further lines about the same component.
    """

    component: ComponentStatus
    prefix: str
    below: str


def branches(components: Sequence[ComponentStatus]) -> list[Branch]:
    """Every component in tree order, drawn; children follow their supervisor.

    A component whose supervisor is not listed hangs from the root.
    """
    known = {component.path for component in components}
    children: dict[str, list[ComponentStatus]] = {}
    for component in components:
        parent = names.parent_path(component.path)
        children.setdefault(parent if parent in known else names.ROOT, []).append(component)
    found: list[Branch] = []
    _grow(names.ROOT, "", children, found)
    return found


def _grow(
    parent: str,
    stem: str,
    children: dict[str, list[ComponentStatus]],
    found: list[Branch],
) -> None:
    siblings = children.get(parent, [])
    for component in siblings:
        is_last = component is siblings[-1]
        below = stem + ("   " if is_last else "│  ")
        has_children = component.path in children
        found.append(
            Branch(
                component,
                prefix=stem + ("└─ " if is_last else "├─ "),
                below=below + ("│ " if has_children else "  "),
            )
        )
        _grow(component.path, below, children, found)


def find(components: Sequence[ComponentStatus], name: str) -> ComponentStatus:
    """The component that an operator means: its path, or its id.

    Raises:
        NoComponentError: there is none; the message proposes the closest names.
    """
    wanted = name.strip("/")
    for component in components:
        if wanted == component.path:
            return component
    matching = [component for component in components if component.id == wanted]
    if len(matching) == 1:
        return matching[0]
    if matching:
        paths = ", ".join(component.path for component in matching)
        raise NoComponentError(f"{name} is ambiguous: {paths}")
    raise unknown(name, [text for c in components for text in (c.path, c.id)])


def unknown(name: str, known: Sequence[str]) -> NoComponentError:
    """The error for a name that does not exist, with the closest of those that do."""
    import difflib  # only when somebody mistyped

    close = difflib.get_close_matches(name, dict.fromkeys(known), n=_PROPOSALS_MAX, cutoff=0.5)
    if close:
        return NoComponentError(f"no component {name!r}; did you mean {' or '.join(close)}?")
    return NoComponentError(f"no component {name!r}; 'novacronctl tree' lists them")


def root_status(status: NodeStatus) -> ComponentStatus:
    """The root supervisor as if it were one of the components, which it does not list."""
    platform = status.platform
    return ComponentStatus(
        path=names.ROOT,
        id=names.ROOT,
        level=names.ROOT,
        phase=0,
        failure="critical",
        kind="supervisor",
        reason=status.reason,
        state=_ROOT_STATES[status.verdict],
        pid=platform.pid,
        uptime_s=platform.uptime_s,
    )
