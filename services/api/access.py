"""What the gateway asks the security process: whose a token is, and to record what is done."""

from __future__ import annotations

from protocol.errors import (
    CallTimeoutError,
    NovacronError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.records import Plain, from_wire, to_wire
from services.api.errors import (
    IdentityRefusedError,
    IdentityUnavailableError,
    NotRecordedError,
)
from services.api.identity import Identity, Means
from services.security.model import AppendRequest, Outcome
from services.security.token_model import Bearer
from services.security.tokens import Presented
from supervisor.child.logs import correlation_id
from supervisor.child.service import ServiceContext

SECURITY = "security"
REFUSED = "security.token_refused"


class Access:
    """The security process, as the gateway uses it.

    Args:
        context: to call with.
        call_timeout_s: for an answer.
    """

    def __init__(self, context: ServiceContext, *, call_timeout_s: float) -> None:
        self._context = context
        self._call_timeout_s = call_timeout_s

    async def verify(self, shown: Presented) -> Identity:
        """Whose a token is.

        Raises:
            IdentityRefusedError: it is nobody's, or not any more.
            IdentityUnavailableError: the security process does not know at the moment.
        """
        try:
            answer = await self._call("token.verify", to_wire(shown))
            bearer = from_wire(Bearer, answer)
        except RemoteCallError as exc:
            if exc.remote_code == REFUSED:
                raise IdentityRefusedError(exc.message.partition(": ")[2]) from exc
            raise IdentityUnavailableError(f"tokens can't be tried: {exc}") from exc
        except (PeerUnavailableError, CallTimeoutError, RemoteProtocolError) as exc:
            raise IdentityUnavailableError(f"tokens can't be tried: {exc}") from exc
        key = f"token:{bearer.id}"
        return Identity(name=bearer.name, role=bearer.role, means=Means.TOKEN, key=key)

    async def record(
        self, identity: Identity, action: str, subject: str, outcome: Outcome, **fields: Plain
    ) -> None:
        """Have the audit log take a record; it is safe when this returns.

        Raises:
            NotRecordedError: it does not take it, and what was to be recorded must not be done.
        """
        about: dict[str, Plain] = {"by": identity.actor, "role": identity.role.value, **fields}
        about["correlation"] = correlation_id.get()
        request = AppendRequest(action=action, subject=subject, outcome=outcome, fields=about)
        try:
            await self._call("audit.append", to_wire(request))
        except NovacronError as exc:
            raise NotRecordedError(f"not done, as the audit log does not take it: {exc}") from exc

    async def _call(self, method: str, body: Plain) -> Plain:
        return await self._context.call(SECURITY, method, body, timeout_s=self._call_timeout_s)
