"""What the calls about documents ask and answer; light, because the command line reads it too."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from services.vm.documents.model import VmDocument
from services.vm.documents.plan import Allowed, Step, VmPlan
from services.vm.model import DomainRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document as it is kept.

    Attributes:
        version: counts its changes; what a change must name that is to follow on this one.
        epoch: counts its owners; the fencing number of what is done to its domain.
    """

    document: VmDocument
    version: int
    epoch: int
    updated_s: float = 0.0
    updated_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Body of ``vm.plan``.

    Attributes:
        documents: planned as if they were kept.
        names: to look at besides those; none of both means all.
    """

    documents: tuple[VmDocument, ...] = ()
    names: tuple[str, ...] = ()
    allowed: Allowed = field(default_factory=Allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """Body of ``vm.apply``; as for ``vm.plan``, and the documents are kept first.

    Attributes:
        expected: versions that documents must have, by name; 0 for a new one.
        define_only: neither starts nor stops, and changes no running guest.
    """

    documents: tuple[VmDocument, ...] = ()
    names: tuple[str, ...] = ()
    allowed: Allowed = field(default_factory=Allowed)
    expected: dict[str, int] = field(default_factory=dict)
    define_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRequest:
    """Body of ``vm.get``, ``vm.adopt`` and ``vm.undefine``.

    Attributes:
        expected: the version that the document must have; None for any.
    """

    name: str
    expected: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReply:
    """Reply to ``vm.plan``.

    Attributes:
        is_stale: the database is away; these documents are the last known.
    """

    plan: VmPlan
    is_stale: bool = False


class Outcome(enum.Enum):
    """What became of a step."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # a step before it, of the same machine, was not done
    UNKNOWN = "unknown"  # no answer in time; it may still be carried out


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A step that was taken, or why not."""

    step: Step
    outcome: Outcome
    message: str = ""
    code: str = ""
    took_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReply:
    """Reply to ``vm.apply``, ``vm.define``, ``vm.adopt`` and ``vm.undefine``.

    Attributes:
        versions: of the documents that were given, by name.
        notes: of the plan.
    """

    results: tuple[StepResult, ...] = ()
    notes: tuple[Step, ...] = ()
    versions: dict[str, int] = field(default_factory=dict)
    is_stale: bool = False

    @property
    def is_done(self) -> bool:
        """All steps were taken."""
        return all(result.outcome is Outcome.DONE for result in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInfo:
    """A document without its content, for lists."""

    name: str
    version: int
    epoch: int
    power: str
    autostart: bool
    priority: int
    updated_s: float = 0.0
    updated_by: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentList:
    """Reply to ``vm.documents``."""

    documents: tuple[DocumentInfo, ...] = ()
    is_stale: bool = False
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmView:
    """Reply to ``vm.get``.

    Attributes:
        stored: the document; None where there is none.
        domain: as libvirt has it; None where there is none, or libvirt is away.
        found: the domain as a document; None where it can't be said by one.
        left_out: what of the domain a document can't say.
        is_ours: it carries the platform's mark.
        steps: what an apply would do.
        fault: why the domain is not shown.
    """

    name: str
    stored: StoredDocument | None = None
    domain: DomainRecord | None = None
    found: VmDocument | None = None
    left_out: tuple[str, ...] = ()
    is_ours: bool = False
    steps: tuple[Step, ...] = ()
    fault: str = ""
    is_stale: bool = False
