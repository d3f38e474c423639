"""The readiness probe: the node's status, and the components that answer for themselves.

What a component last said of itself arrives on its own and within milliseconds, also when its
process has died. What it can't show is a process that is alive and answers nobody, so the
components are asked as well, live. One round of questions serves everybody who asks while it runs
and a second longer, whatever the number of probes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from protocol.errors import NovacronError
from services.telemetry import plan
from services.telemetry.model import CheckResult, Reading, TelemetrySettings
from services.telemetry.reader import AGE_MAX_S, StatusReader
from supervisor.child.service import ServiceContext

Finding = tuple[Reading, tuple[CheckResult, ...]]


class ReadinessProbe:
    """Runs the checks of ``/health/ready``.

    Args:
        context: to call the components with.
        reader: of the node's status.
        settings: which checks apply, and the time for all of them.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        context: ServiceContext,
        reader: StatusReader,
        settings: TelemetrySettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._reader = reader
        self._settings = settings
        self._clock = clock
        self._found: Finding | None = None
        self._found_s = 0.0
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> Finding:
        """The node's status and the results of all checks, at most a second old."""
        while self._found is None or self._clock() - self._found_s >= AGE_MAX_S:
            if self._running is None:
                self._running = asyncio.get_running_loop().create_task(self._round())
            await asyncio.shield(self._running)
        return self._found

    async def _round(self) -> None:
        deadline_s = self._clock() + self._settings.probe_timeout_s
        try:
            reading = await self._reader.read()
            checks = plan.checks_of(self._settings)
            results = await asyncio.gather(
                *(self._check(check, reading, deadline_s, is_here=here) for check, here in checks)
            )
            self._found = reading, tuple(results)
            self._found_s = self._clock()
        finally:
            self._running = None

    async def _check(
        self, check: plan.Check, reading: Reading, deadline_s: float, *, is_here: bool
    ) -> CheckResult:
        if not is_here:
            return CheckResult(check.name, "disabled")
        error = ""
        if plan.is_worth_asking(check, reading):
            left_s = max(round(deadline_s - self._clock(), 1), 0.1)
            try:
                answer = await self._context.call(check.path, check.method, timeout_s=left_s)
                error = plan.objection(answer)
            except NovacronError as exc:
                error = str(exc)
        return plan.judge(check, reading, error)
