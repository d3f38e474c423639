"""How a component is, as everybody says it."""

from __future__ import annotations

import enum

from protocol.dataclass import dataclass


class HealthState(enum.Enum):
    """What a component can do at the moment."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    STARTING = "starting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Health:
    """A component's state and, unless it is healthy, the reason as a sentence."""

    state: HealthState
    reason: str = ""


HEALTHY = Health(HealthState.HEALTHY)
