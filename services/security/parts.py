"""The parts of the security process: each brings up one step and answers for it from then on.

The process opens its parts in the required order, tells their health apart, and closes them in
reverse. A part that needs another one is given it when it is made, so that the order in which they
are opened can be read off ``services.security.service``.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain
from services.security.model import SecuritySettings
from supervisor.child.service import CallHandler, ServiceContext

Work = Coroutine[object, object, None]

END_ATTEMPTS = 8
END_PERIOD_S = 0.1
# From good to bad.
_ORDER = (HealthState.HEALTHY, HealthState.DEGRADED, HealthState.UNHEALTHY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What all parts share.

    Attributes:
        context: of the process.
        settings: of the process.
        directory: ``<state>/security``; there and ours once the credentials are checked.
        on_change: to be called when a part's ``health`` may have changed.
        start: runs work in the background until the process ends; an error in it, or its return,
            ends the process. The task can be ended ahead of that by ``end``.
    """

    context: ServiceContext
    settings: SecuritySettings
    directory: Path
    on_change: Callable[[], None]
    start: Callable[[Work, str], asyncio.Task[None]]


class Part(abc.ABC):
    """A step of the security level, or a part of one.

    Attributes:
        step: which of the five: 1 credentials, 2 encryption, 3 audit, 4 zero trust.
        name: in the log.
    """

    step: int
    name: str

    @abc.abstractmethod
    async def open(self) -> Mapping[str, Plain]:
        """Bring the step up and prove it.

        Returns:
            What the log says about it.

        Raises:
            CriticalError: something is not as it must be and a restart would not help.
            NovacronError: it can't be brought up at the moment.
        """

    def begin(self) -> None:  # noqa: B027 - most parts have nothing to do
        """Start background work; all parts are open and have been checked once."""

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls that this part answers."""
        return {}

    def health(self) -> Health:
        """How it is, as far as is known without asking anybody."""
        return HEALTHY

    async def check(self) -> Health:
        """Prove now that it works; bounded in time."""
        return self.health()

    async def close(self) -> None:  # noqa: B027 - most parts hold nothing
        """Let go of everything; also called when ``open`` failed half way or never ran."""


def worst(healths: list[Health]) -> Health:
    """The health of the whole: the worst state, with the reasons of all that have it."""
    state = max((health.state for health in healths), key=_ORDER.index, default=HEALTHY.state)
    if state is HealthState.HEALTHY:
        return HEALTHY
    return Health(state, "; ".join(health.reason for health in healths if health.state is state))


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel a task until it has ended.

    One cancellation may not do: asyncio.wait_for of Python 3.11 swallows one that arrives
    together with the result (python/cpython#86296), and what a call goes through may use it.
    """
    for _ in range(END_ATTEMPTS):
        if task is None or task.done():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=END_PERIOD_S)
