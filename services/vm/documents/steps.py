"""What a plan is made of: the wanted, the found, and the steps between them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from services.vm.documents.adopt import Adopted
from services.vm.documents.model import VmDocument
from services.vm.model import DomainRecord


class StepKind(enum.Enum):
    """What is done; the notes at the end do nothing."""

    STOP = "stop"
    UNDEFINE = "undefine"
    DEFINE = "define"
    REDEFINE = "redefine"
    MARK = "mark"
    AUTOSTART = "autostart"
    RESIZE_MEMORY = "resize-memory"
    RESIZE_CPUS = "resize-cpus"
    RESTART = "restart"
    START = "start"
    NEEDS_RESTART = "needs-restart"
    REFUSED = "refused"
    ORPHAN = "orphan"
    ELSEWHERE = "elsewhere"

    @property
    def is_note(self) -> bool:
        """It is told and nothing is done."""
        return self in _NOTES


_NOTES = frozenset((StepKind.NEEDS_RESTART, StepKind.REFUSED, StepKind.ORPHAN, StepKind.ELSEWHERE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """A document of this node.

    Attributes:
        epoch: of this node's ownership.
        seed: path of the image that cloud-init reads; "" for none.
    """

    document: VmDocument
    epoch: int
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A domain of this host.

    Attributes:
        adopted: of its inactive XML; None where that can't be said by a document.
        fault: why not.
        active: of the XML that it runs with; None where it does not run.
    """

    record: DomainRecord
    adopted: Adopted | None
    fault: str = ""
    active: Adopted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What was asked for beyond the harmless.

    Attributes:
        adopt: take over domains of somebody else, by marking them.
        replace: redefine although the domain has disks that the document has not, or parts that it
            can't say; it has them no longer then.
        restart: stop and start a running guest whose new definition needs it.
        undefine: undefine domains of ours whose document is gone; their disks stay.
    """

    adopt: bool = False
    replace: bool = False
    restart: bool = False
    undefine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        reason: why, in a sentence without its end.
        details: single values that change, or parts that are in the way.
        value: what it is set to: bytes, processors, or 0 and 1.
    """

    kind: StepKind
    name: str
    reason: str
    details: tuple[str, ...] = ()
    value: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VmPlan:
    """The steps, in the order in which they are taken, and then the notes."""

    steps: tuple[Step, ...] = ()

    @property
    def effects(self) -> tuple[Step, ...]:
        """The steps that do something."""
        return tuple(step for step in self.steps if not step.kind.is_note)
