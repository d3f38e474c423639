"""What the calls about segments answer; light, because the command line reads it too."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from services.network.segments.model import SegmentDocument


class SegmentsState(enum.Enum):
    """How the segments are."""

    NONE = "none"  # never applied on this node
    IN_FORCE = "in_force"
    DRIFTED = "drifted"  # the kernel has something else than what was applied
    FAILED = "failed"  # nft is missing, or refused what is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsStatus:
    """How the segments are; ``reason`` is a sentence unless none or in force."""

    state: SegmentsState
    reason: str = ""
    revision: int = 0
    applied_s: float | None = None
    interfaces: int = 0
    rules: int = 0
    restored: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A change that was confirmed."""

    revision: int
    steps: int
    commands: int
    commit_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCount:
    """Dropped packets of one interface since it was listed: forged, from it, to it."""

    interface: str
    spoofed: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsView:
    """Reply to ``segments.show``: what is wanted, and interfaces of which packets were dropped."""

    status: SegmentsStatus
    document: SegmentDocument | None = None
    drops: tuple[DropCount, ...] = ()
