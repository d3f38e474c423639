"""Small trees for the tests of the state machine."""

from __future__ import annotations

import pytest

from supervisor.core import events
from supervisor.core.errors import (
    CommandRefusedError,
)
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import (
    Backoff,
    ChildSpec,
    ChildType,
    RestartIntensity,
    RestartStrategy,
    RestartType,
    SupervisorSpec,
)
from supervisor.testing.driver import Behaviour, Driver

NORMAL = ExitReason(kind=ExitKind.NORMAL)
DECLINED = ExitReason(kind=ExitKind.DECLINED)
ESCALATED = ExitReason(kind=ExitKind.ESCALATED)
SHUTDOWN = events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN))
AT_ONCE = Backoff(initial_s=0.0, max_s=0.0)
ONE, ALL, REST, POOL = (
    RestartStrategy.ONE_FOR_ONE,
    RestartStrategy.ONE_FOR_ALL,
    RestartStrategy.REST_FOR_ONE,
    RestartStrategy.SIMPLE_ONE_FOR_ONE,
)
PERMANENT, TRANSIENT, TEMPORARY = (
    RestartType.PERMANENT,
    RestartType.TRANSIENT,
    RestartType.TEMPORARY,
)


def child(name: str, restart: RestartType = PERMANENT, **fields: object) -> ChildSpec:
    """A child with a start."""
    return ChildSpec(id=name, start="package:Name", restart=restart, **fields)  # type: ignore[arg-type]  # test data


def tree(
    *children: ChildSpec | str,
    strategy: RestartStrategy = ONE,
    intensity: int = 3,
    period_s: float = 60.0,
    **fields: object,
) -> SupervisorSpec:
    """A supervisor that restarts at once, as OTP's does, where the test says nothing else."""
    fields.setdefault("backoff", AT_ONCE)
    return SupervisorSpec(
        strategy=strategy,
        intensity=RestartIntensity(intensity=intensity, period_s=period_s),
        children=tuple(child(c) if isinstance(c, str) else c for c in children),
        **fields,  # type: ignore[arg-type]  # test data
    )


def nested(name: str, inner: SupervisorSpec, restart: RestartType = PERMANENT) -> ChildSpec:
    """A supervisor as a child."""
    return ChildSpec(id=name, type=ChildType.SUPERVISOR, children=inner, restart=restart)


def up(spec: SupervisorSpec, **behaviours: Behaviour) -> Driver:
    """A driver whose children have all come up, one second in."""
    driver = Driver(spec, behaviours).begin().run(1.0)
    driver.transcript.clear()
    return driver


def refused(driver: Driver, event: events.Event) -> str:
    """The code of the error that refuses a command."""
    with pytest.raises(CommandRefusedError) as caught:
        driver.send(event)
    return caught.value.code


def pool(size: int, **fields: object) -> Driver:
    """A pool with some instances, up."""
    driver = Driver(tree(child("w", **fields), strategy=POOL), {}).begin()  # type: ignore[arg-type]  # test data
    for number in range(size):
        driver.send(events.AddInstance({"number": number}))
    driver.run(1.0)
    driver.transcript.clear()
    return driver
