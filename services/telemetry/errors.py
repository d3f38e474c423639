"""What keeps a server from listening."""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import NovacronError
from supervisor.child.service import CriticalError


class PortInUseError(NovacronError):
    """Another process listens on the port.

    Trying again helps when that process is about to end, as the last run of this node may be;
    past the restart intensity the supervisor gives up with this sentence.
    """

    code: ClassVar[str] = "telemetry.port_in_use"
    retryable: ClassVar[bool] = True


class CannotListenError(CriticalError):
    """The address or port can't be listened on, and trying again would not change that."""

    code: ClassVar[str] = "telemetry.cannot_listen"
