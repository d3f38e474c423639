"""What the calls about documents ask and answer; light, because the command line reads it too."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.vm.documents.model import VmDocument
from services.vm.documents.steps import Allowed, Step, VmPlan
from services.vm.model import DomainRecord

# Of a message of 1 MiB; an apply has notes and results in one.
REPLY_BYTES_MAX = 400 << 10
_STEP_BYTES = 60
_SHORT = 80


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
        omitted: steps that did not fit into one message.
    """

    plan: VmPlan
    is_stale: bool = False
    omitted: int = 0


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
        omitted: notes that did not fit into one message.
    """

    results: tuple[StepResult, ...] = ()
    notes: tuple[Step, ...] = ()
    versions: dict[str, int] = field(default_factory=dict)
    is_stale: bool = False
    omitted: int = 0

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


def fit_steps(
    steps: Sequence[Step], bytes_max: int = REPLY_BYTES_MAX
) -> tuple[tuple[Step, ...], int]:
    """The steps as far as they fit into a message, without details rather than not at all.

    Returns:
        The steps, and how many were left away at the end.
    """
    if sum(_size(step) for step in steps) > bytes_max:
        steps = [replace(step, details=()) for step in steps]
    kept: list[Step] = []
    for step in steps:
        bytes_max -= _size(step)
        if bytes_max < 0:
            break
        kept.append(step)
    return tuple(kept), len(steps) - len(kept)


def fit_results(
    results: Sequence[StepResult], bytes_max: int = REPLY_BYTES_MAX
) -> tuple[StepResult, ...]:
    """All results; without details, and with short messages, where they would not fit."""
    if sum(_size(result.step) + len(result.message) for result in results) <= bytes_max:
        return tuple(results)
    return tuple(
        replace(
            result,
            step=replace(result.step, details=(), reason=result.step.reason[:_SHORT]),
            message=result.message[:_SHORT],
        )
        for result in results
    )


def _size(step: Step) -> int:
    """What it takes in a message, roughly and rather too much."""
    texts = (step.name, step.reason, *step.details)
    return _STEP_BYTES + sum(len(text.encode()) + 4 for text in texts)
