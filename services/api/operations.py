"""What the gateway does to components on behalf of who asks: start, stop, restart."""

from __future__ import annotations

import contextlib
import enum
import time
from typing import NoReturn

from protocol import names
from protocol.errors import (
    CallTimeoutError,
    NovacronError,
    PeerUnavailableError,
    RemoteCallError,
)
from protocol.messages.access import Role
from protocol.messages.health import HealthState
from protocol.records import Plain
from services.api.access import Access
from services.api.errors import (
    ComponentAnswerError,
    ComponentUnavailableError,
    ForbiddenError,
    NotRecordedError,
    UnknownComponentError,
)
from services.api.identity import Identity
from services.api.rate import RateLimiter
from services.api.schemas import Operation
from services.security.model import Outcome
from supervisor.child.service import ServiceContext

# A component may take its own stop timeout and then its start timeout; the largest are 30 s each.
OPERATION_TIMEOUT_S = 60.0
ROLE = Role.OPERATOR
REFUSALS_PER_MINUTE = 10


class Verb(enum.Enum):
    """What can be done to a component."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class Operator:
    """Carries operations out by the components' supervisors, each recorded ahead.

    Args:
        context: to call with.
        access: takes the records.
    """

    def __init__(self, context: ServiceContext, access: Access) -> None:
        self._context = context
        self._access = access
        # Who keeps trying fills no log.
        self._refusals = RateLimiter(REFUSALS_PER_MINUTE)

    async def carry_out(self, identity: Identity, verb: Verb, path: str) -> Operation:
        """Have a component's supervisor do something, and wait until it is done.

        Args:
            identity: who asks.
            verb: what.
            path: of a component that the node has.

        Raises:
            ForbiddenError: who asks may not; recorded too.
            NotRecordedError: the audit log does not take it; nothing was done.
            UnknownComponentError: the supervisor has no such component.
            ComponentUnavailableError: the supervisor does not answer; it may be done later.
            ComponentAnswerError: the supervisor refuses.
        """
        action = f"api:{verb.value}"
        await self.admit(identity, action, path)
        try:
            done = await self._order(verb, path)
        except NovacronError as exc:
            await self.record_end(identity, action, path, Outcome.FAILURE, code=exc.code)
            raise
        await self.record_end(identity, action, path, Outcome.SUCCESS, state=done.state.value)
        return done

    async def admit(self, identity: Identity, action: str, subject: str) -> None:
        """Let through who may order something, once it is recorded.

        Raises:
            ForbiddenError: who asks may not; recorded too.
            NotRecordedError: the audit log does not take it, and nothing must be done.
        """
        if not identity.role.includes(ROLE):
            await self._refuse(identity, action, subject)
        await self._access.record(identity, action, subject, Outcome.REQUESTED)

    async def _order(self, verb: Verb, path: str) -> Operation:
        supervisor, child_id = names.parent_path(path), path.rpartition("/")[2]
        try:
            answer = await self._context.call(
                supervisor, verb.value, {"id": child_id}, timeout_s=OPERATION_TIMEOUT_S
            )
        except (PeerUnavailableError, CallTimeoutError) as exc:
            raise ComponentUnavailableError(str(exc), component=supervisor) from exc
        except RemoteCallError as exc:
            raise _refusal(exc, path) from exc
        return _operation(path, answer)

    async def record_end(
        self, identity: Identity, action: str, path: str, outcome: Outcome, **fields: Plain
    ) -> None:
        """Record how something ended that was recorded ahead."""
        # It is recorded as requested, and can't be taken back.
        with contextlib.suppress(NotRecordedError):
            await self._access.record(identity, action, path, outcome, **fields)

    async def _refuse(self, identity: Identity, action: str, path: str) -> NoReturn:
        if self._refusals.take(identity.key, now_s=time.monotonic()).is_granted:
            # Refused all the same where the record is not taken.
            with contextlib.suppress(NotRecordedError):
                await self._access.record(identity, action, path, Outcome.DENIED)
        raise ForbiddenError(f"this takes the role {ROLE.value}; yours is {identity.role.value}")


def _refusal(error: RemoteCallError, path: str) -> NovacronError:
    if error.remote_code == "supervisor.no_such_child":
        return UnknownComponentError(f"the node has no component {path}")
    if error.remote_retryable:
        return ComponentUnavailableError(str(error), component=path)
    return ComponentAnswerError(str(error), remote_code=error.remote_code)


def _operation(path: str, answer: Plain) -> Operation:
    if isinstance(answer, dict):
        try:
            state = HealthState(str(answer.get("state")))
        except ValueError:
            pass
        else:
            return Operation(path=path, state=state, reason=str(answer.get("reason", "")))
    raise ComponentAnswerError(f"the answer about {path} is not understood: {answer!r:.80}")
