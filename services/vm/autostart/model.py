"""What became of the machines that start with the host. Light: the command line reads it too."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class AutostartOutcome(enum.Enum):
    """What became of one machine."""

    WAITING = "waiting"
    STARTING = "starting"  # being tried, or was when the component ended
    STARTED = "started"
    RUNNING = "running"  # it ran already
    FAILED = "failed"  # tried, and tried again where that is not over yet
    SKIPPED = "skipped"  # it is not to run here, or somebody gave it another order


@dataclass(frozen=True, slots=True, kw_only=True)
class AutostartResult:
    """One machine.

    Attributes:
        message: why it is not started; "" when it is.
        attempts: how often it was tried.
        time_s: Unix time of the last of them; 0.0 before.
    """

    name: str
    priority: int
    outcome: AutostartOutcome = AutostartOutcome.WAITING
    message: str = ""
    attempts: int = 0
    time_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AutostartRecord:
    """What is remembered across restarts of the platform, and told in ``vm.status``.

    Attributes:
        boot_id: the boot of the host that it is about; the kernel's boot_id.
        is_over: all machines of that boot are dealt with.
        machines: in the order in which they are started.
    """

    boot_id: str
    is_over: bool = False
    machines: tuple[AutostartResult, ...] = ()

    def with_result(self, result: AutostartResult) -> AutostartRecord:
        """The same with another result for its machine."""
        machines = tuple(result if item.name == result.name else item for item in self.machines)
        return replace(self, machines=machines)
