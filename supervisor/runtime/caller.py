"""Who called a supervisor."""

from __future__ import annotations

from collections.abc import Callable

from protocol.dataclass import dataclass
from protocol.envelope import Envelope
from protocol.errors import NovacronError
from supervisor.guard.gate import unaudited


class BusyError(NovacronError):
    """Too much is under way."""

    code = "supervisor.busy"
    retryable = True


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a reply goes to, and who asked.

    Attributes:
        identity: address on the ROUTER.
        path: of the process, or ``operator/<user name>``, as the key proves it.
        message: the call.
        outcome: takes what became of a recorded call: an error's code, or "" for success.
    """

    identity: bytes
    path: str
    message: Envelope
    outcome: Callable[[str], None] = unaudited
