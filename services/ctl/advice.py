"""What an operator can do about a component's state; pure."""

from __future__ import annotations

from protocol.messages.health import HealthState
from services.ctl.explaining import Explained

Hint = tuple[str, str]


def advise(explained: Explained) -> list[Hint]:
    """Commands with what they are good for, the most useful first; nothing where all is well."""
    name, child = explained.component.path, explained.child
    logs = (f"novacronctl logs --since 10m {name}", "what it logged")
    if child is None:
        above = explained.above[0].path if explained.above else ""
        return (
            [(f"novacronctl explain {above}", "why its supervisor is not there")] if above else []
        )
    held = next((r.path for r in child.depends_on if r.holds), "")
    match child.decision:
        case "stopped" if child.order is not None and child.order.verb == "stop":
            return [(f"novacronctl start {name}", "have it run again")]
        case "stopped":
            return [(f"novacronctl start {name}", "run it once more"), logs]
        case "waiting" if held:
            return [(f"novacronctl explain {held}", "why that is not up")]
        case "waiting" | "degraded":
            start = (f"novacronctl start {name}", "try now, once the cause is mended")
            return [logs, start] if child.exits else [start]
        case "starting":
            return [(f"novacronctl logs -f {name}", "what it is doing")]
        case "stopping":
            return [(f"novacronctl trace {name}", "what its supervisor does about it")]
        case "up" if child.state is not HealthState.HEALTHY:
            level = (f"novacronctl logs --level warning {name}", "what it complains about")
            return [level, (f"novacronctl restart {name}", "begin anew")]
        case _:
            return []
