"""The records of operations: what is asked, and what comes of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocol.records import Plain

# How long a call may wait for the end of its operation before it answers with what there is.
WAIT_MAX_S = 30.0
STOP_STEP_MAX_S = 3600.0


class OperationState(enum.Enum):
    """Where an operation is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Nothing more will come of it."""
        return self not in (OperationState.WAITING, OperationState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRecord:
    """One operation.

    Attributes:
        method: the call that began it, such as ``vm.start``.
        subject: the guest's name, or the image's path.
        uuid: of the guest; "" for images.
        step: what is being done or was done last, in words.
        progress: from 0 to 1; None where it can't be told.
        changed: False when all was as wanted already.
        note: what came of it, in a sentence.
        error_code, error: why it failed; "" while it did not.
        result: what the caller asked for, by name.
    """

    id: int
    method: str
    subject: str
    uuid: str = ""
    caller: str = ""
    state: OperationState = OperationState.WAITING
    step: str = ""
    progress: float | None = None
    changed: bool = False
    note: str = ""
    error_code: str = ""
    error: str = ""
    result: dict[str, Plain] = field(default_factory=dict)
    began_s: float = 0.0
    ended_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationList:
    """Reply to ``vm.operations``: the newest last."""

    operations: tuple[OperationRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an operation's work returns.

    Attributes:
        changed: it did something.
        note: a sentence.
        result: values for the caller.
    """

    note: str
    changed: bool = True
    result: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationQuery:
    """Ask about an operation; wait up to ``wait_s`` for its end, or for news past ``seen``.

    Attributes:
        seen: the step that the caller knows; another one ends the wait.
        seen_progress: the same for the progress; a change of a hundredth counts.
    """

    id: int
    wait_s: float = 0.0
    seen: str | None = None
    seen_progress: float | None = None

    def __post_init__(self) -> None:
        check_wait(self.wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRequest:
    """What every operation on a guest carries.

    Attributes:
        domain: its name or UUID.
        wait_s: how long the call waits for the end before it answers with the state so far.
    """

    domain: str
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.domain or len(self.domain) > 255:
            raise ValueError("domain must be a guest's name or UUID")
        check_wait(self.wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest(DomainRequest):
    """Start a guest.

    Attributes:
        paused: hold it before its first instruction.
        fresh: forget a saved state and boot.
        takeover: who orders it has made sure that a node whose lease has run out is off.
    """

    paused: bool = False
    fresh: bool = False
    takeover: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest(DomainRequest):
    """Stop a guest, step by step; a step with 0 seconds is left out.

    Attributes:
        agent_s, acpi_s: how long the guest may take after being asked by its agent and by ACPI.
        force_s: how long the hypervisor may take to end at last; 0 = never take its power away.
    """

    agent_s: float = 30.0
    acpi_s: float = 60.0
    force_s: float = 15.0

    def __post_init__(self) -> None:
        DomainRequest.__post_init__(self)
        for name in ("agent_s", "acpi_s", "force_s"):
            if not 0 <= getattr(self, name) <= STOP_STEP_MAX_S:
                raise ValueError(f"{name} must be from 0 to {STOP_STEP_MAX_S:g}")
        if not (self.agent_s or self.acpi_s or self.force_s):
            raise ValueError("agent_s, acpi_s and force_s are all 0: nothing would stop the guest")


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest(DomainRequest):
    """Save a guest's memory and stop it; "" = where libvirt keeps it, for the next start."""

    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """Bring a guest back from a file."""

    file: str
    paused: bool = False
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        check_wait(self.wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutostartRequest(DomainRequest):
    """Have libvirt start the guest with the host, or not."""

    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Reply to ``vm.screenshot``: a file, PNG."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRequest(DomainRequest):
    """Change what a guest has; None = as it is.

    Attributes:
        memory_bytes: within the guest's maximum.
        vcpus: within the guest's maximum.
        disk: target of the disk that ``disk_bytes`` is about, such as ``vda``.
        disk_bytes: its new size; a disk never shrinks.
    """

    memory_bytes: int | None = None
    vcpus: int | None = None
    disk: str = ""
    disk_bytes: int | None = None

    def __post_init__(self) -> None:
        DomainRequest.__post_init__(self)
        if self.memory_bytes is None and self.vcpus is None and self.disk_bytes is None:
            raise ValueError("nothing to resize: give memory_bytes, vcpus or disk_bytes")
        if (self.disk_bytes is None) != (not self.disk):
            raise ValueError("disk and disk_bytes belong together")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachDiskRequest(DomainRequest):
    """Give a guest another disk; "" for a target that is free on the bus."""

    file: str
    target: str = ""
    bus: str = "virtio"
    is_readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachInterfaceRequest(DomainRequest):
    """Give a guest another interface, on a bridge or on one of libvirt's networks.

    Attributes:
        mac: "" for one that is derived from the guest and its other interfaces.
    """

    bridge: str = ""
    network: str = ""
    mac: str = ""
    interface_model: str = "virtio"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachRequest(DomainRequest):
    """Take a disk (by target or file) or an interface (by MAC) away.

    Attributes:
        within_s: how long a running guest may take to let go.
    """

    device: str
    within_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleTurn:
    """Read from or write to an open console.

    Attributes:
        data: what was typed.
        wait_s: how long a read waits for output.
    """

    id: int
    data: bytes = b""
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        check_wait(self.wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOutput:
    """Reply to ``vm.console.*``.

    Attributes:
        dropped_bytes: output that nobody took in time and that is lost.
        ended: why there will be no more; "" while there may be.
    """

    id: int
    data: bytes = b""
    dropped_bytes: int = 0
    ended: str = ""


def check_wait(wait_s: float) -> None:
    """Refuse a wait that is none, or too long.

    Raises:
        ValueError: it is.
    """
    if not 0 <= wait_s <= WAIT_MAX_S:
        raise ValueError(f"wait_s must be from 0 to {WAIT_MAX_S:g}")
