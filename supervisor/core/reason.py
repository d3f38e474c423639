"""Why a process ended, in OTP's words and two of our own."""

from __future__ import annotations

import enum

from protocol.dataclass import dataclass

# What a Python child of ours exits with; a command's codes are its own.
EXIT_NORMAL = 0
EXIT_CRASHED = 1
EXIT_CRITICAL = 100
EXIT_ESCALATED = 101
EXIT_DECLINED = 102


class ExitKind(enum.Enum):
    """The kinds of end.

    NORMAL is exit code 0 without being asked, SHUTDOWN any end after our own request, CRASHED
    another exit code, KILLED a signal. START_FAILED ended, or ran out of time, before it was
    ready; UNRESPONSIVE had stopped beating and was killed by us. DECLINED had nothing to do and
    said so (OTP's ignore). ORPHANED went with the launcher, through no fault of its own: all that
    end so at one look count as one restart. CRITICAL says that a restart would not help; ESCALATED
    is a supervisor that has exceeded its restart intensity.
    """

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    KILLED = "killed"
    START_FAILED = "start_failed"
    UNRESPONSIVE = "unresponsive"
    DECLINED = "declined"
    ORPHANED = "orphaned"
    CRITICAL = "critical"
    ESCALATED = "escalated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReason:
    """One end of one process.

    Attributes:
        kind: see ExitKind.
        detail: a sentence for people.
        code: stable error code, or "".
        origin: path of the component where it began, when that was further down; "" otherwise.
        phase: boot phase of that component; 0 when unknown.
    """

    kind: ExitKind
    detail: str = ""
    code: str = ""
    origin: str = ""
    phase: int = 0

    @property
    def is_abnormal(self) -> bool:
        """Whether a transient child is started again after it."""
        return self.kind not in (ExitKind.NORMAL, ExitKind.SHUTDOWN, ExitKind.DECLINED)

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value
