"""Step 4, proven: a call that the policy forbids is refused by the process that is called."""

from __future__ import annotations

import time
from collections.abc import Mapping

from protocol.errors import CallTimeoutError, PeerUnavailableError, RemoteCallError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain
from services.security.parts import Level, Part

# Nobody offers it and no rule allows it to a process, so that nothing happens if it is let
# through: then the answer is another error.
PROBED_PROCESS = "data/database"
FORBIDDEN_METHOD = "policy.probe"
REFUSED = "supervisor.access_refused"
# Each refusal is recorded, so it is not asked for with every probe of the health.
PERIOD_S = 600.0
TIMEOUT_S = 2.0


class GuardPart(Part):
    """Tries what must be refused.

    Args:
        level: what all parts share.
    """

    step = 4
    name = "guard"

    def __init__(self, level: Level) -> None:
        self._level = level
        self._health = HEALTHY
        self._tried_s: float | None = None

    async def open(self) -> Mapping[str, Plain]:
        """Say whether there is a policy to try."""
        return {"policy": self._level.settings.has_policy}

    def health(self) -> Health:
        """As it was found last."""
        return self._health

    async def check(self) -> Health:
        """Make a call that must be refused, when the last one was long ago."""
        now_s = time.monotonic()
        is_due = self._tried_s is None or now_s - self._tried_s >= PERIOD_S
        if self._level.settings.has_policy and is_due:
            health = await self._try()
            if health is not None:
                self._health, self._tried_s = health, now_s
        return self._health

    async def _try(self) -> Health | None:
        """What a forbidden call came to; None when it came to nothing."""
        context = self._level.context
        try:
            await context.call(PROBED_PROCESS, FORBIDDEN_METHOD, timeout_s=TIMEOUT_S)
        except RemoteCallError as exc:
            if exc.remote_code == REFUSED:
                return HEALTHY
            answer = exc.remote_code
        except (PeerUnavailableError, CallTimeoutError) as exc:
            context.log.info("guard_not_tried", reason=exc.message)
            return None
        else:
            answer = "success"
        reason = f"{PROBED_PROCESS} did not refuse a call that no policy allows ({answer})"
        context.log.error("guard_let_through", method=FORBIDDEN_METHOD, answer=answer)
        return Health(HealthState.UNHEALTHY, reason)
