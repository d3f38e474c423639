"""Who called a supervisor."""

from __future__ import annotations

from protocol import names
from protocol.dataclass import dataclass
from protocol.envelope import Envelope
from protocol.errors import NovacronError


class AccessRefusedError(NovacronError):
    """The caller's key does not allow this call."""

    code = "supervisor.access_refused"


class BusyError(NovacronError):
    """Too much is under way."""

    code = "supervisor.busy"
    retryable = True


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a reply goes to, and who asked."""

    identity: bytes
    path: str
    message: Envelope


def require_operator(caller: Caller) -> None:
    """Refuse a caller that is not an operator.

    Raises:
        AccessRefusedError: its key is one of the tree's processes.
    """
    if caller.path != names.OPERATOR:
        raise AccessRefusedError(f"{caller.path} may not {caller.message.name}")
