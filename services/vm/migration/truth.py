"""On which side a guest is, from what both sides say, and the one thing to do next. Pure.

A migration is begun so that the target holds the guest still when all has arrived. It is let go
there only once the source's libvirt says that its side has ended, so a lost last word of libvirt's
leaves two copies of which at most one has ever run. Rules, the first that fits::

    source          target             next
    unknown         any                LOOK_AGAIN
    has a job       any                FOLLOW
    runs            unknown            STAYS: it is safe here; the rest when the target answers
    any other       unknown            LOOK_AGAIN
    alive           runs               DISPUTED
    alive           alive or ended, and was let go there    DISPUTED
    alive           alive              REMOVE_TARGET: it has never run
    held            absent, off        RESUME_SOURCE
    runs, paused    absent, off        STAYED
    ended           held               LOOK_AGAIN: libvirt has not finished there
    ended           paused             HAND_OVER, then RESUME_TARGET unless it has run there
    ended           runs               HAND_OVER, PERSIST_TARGET, UNDEFINE_SOURCE as wanted, MOVED
    ended           absent, off        MOVED where it was let go before, else ENDED

Alive means that there is a hypervisor process: runs, paused or held. Held means paused by libvirt
for the migration itself: nobody's order.
Invariants: nothing is begun, removed or let go while a side is unknown; a side is let go only while
the other has no process; a target that was let go once is never removed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Presence(enum.Enum):
    """What one side has of the guest."""

    UNKNOWN = "unknown"
    ABSENT = "absent"
    OFF = "off"
    RUNNING = "running"
    PAUSED = "paused"
    HELD = "held"

    @property
    def is_alive(self) -> bool:
        """It has a hypervisor process."""
        return self in (Presence.RUNNING, Presence.PAUSED, Presence.HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side, as its libvirt says.

    Attributes:
        has_job: its libvirt is sending it to another side.
        is_persistent: it stays defined when it stops.
        reason: why it is in that state, or why nothing is known.
    """

    presence: Presence
    has_job: bool = False
    is_persistent: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        assert self.presence.is_alive or not self.has_job


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is wanted, and what has been done so far.

    Attributes:
        was_paused: before the migration; it stays so then.
        keeps_source: the definition stays on the source.
        needs_hand_over: who owns the guest must be written down, and has not been yet.
        was_let_go: its processors were started on the target, or may have been.
        has_run: they surely were, so a pause is somebody's order.
    """

    was_paused: bool = False
    keeps_source: bool = False
    needs_hand_over: bool = False
    was_let_go: bool = False
    has_run: bool = False


class Next(enum.Enum):
    """The one thing to do."""

    LOOK_AGAIN = "look-again"
    FOLLOW = "follow"
    REMOVE_TARGET = "remove-target"
    RESUME_SOURCE = "resume-source"
    HAND_OVER = "hand-over"
    RESUME_TARGET = "resume-target"
    PERSIST_TARGET = "persist-target"
    UNDEFINE_SOURCE = "undefine-source"
    STAYS = "stays"
    STAYED = "stayed"
    MOVED = "moved"
    ENDED = "ended"
    DISPUTED = "disputed"

    @property
    def is_final(self) -> bool:
        """Nothing is left to be done."""
        return self in _FINAL

    @property
    def is_change(self) -> bool:
        """Something is changed on a side."""
        return self in _CHANGES


_FINAL = frozenset((Next.STAYED, Next.MOVED, Next.ENDED, Next.DISPUTED))
_CHANGES = frozenset(
    (
        Next.REMOVE_TARGET,
        Next.RESUME_SOURCE,
        Next.RESUME_TARGET,
        Next.PERSIST_TARGET,
        Next.UNDEFINE_SOURCE,
    )
)
_GONE = (Presence.ABSENT, Presence.OFF)


def decide(source: Side, target: Side, goal: Goal) -> Next:
    """The next thing to do; look at both sides anew after it."""
    if source.presence is Presence.UNKNOWN:
        return Next.LOOK_AGAIN
    if source.has_job:
        return Next.FOLLOW
    if target.presence is Presence.UNKNOWN:
        runs = source.presence is Presence.RUNNING
        return Next.STAYS if runs and not goal.was_let_go else Next.LOOK_AGAIN
    if source.presence.is_alive:
        return _of_source(source, target, goal)
    return _of_target(source, target, goal)


def _of_source(source: Side, target: Side, goal: Goal) -> Next:
    """The source has a process."""
    if target.presence is Presence.RUNNING or goal.was_let_go:
        return Next.DISPUTED
    if target.presence.is_alive:
        return Next.REMOVE_TARGET
    return Next.RESUME_SOURCE if source.presence is Presence.HELD else Next.STAYED


def _of_target(source: Side, target: Side, goal: Goal) -> Next:
    """The source has none."""
    if target.presence is Presence.HELD:
        return Next.LOOK_AGAIN
    if target.presence in _GONE:
        return Next.MOVED if goal.was_let_go else Next.ENDED
    if goal.needs_hand_over:
        return Next.HAND_OVER
    is_held_back = target.presence is Presence.PAUSED and not goal.has_run
    if is_held_back and not goal.was_paused:
        return Next.RESUME_TARGET
    if not target.is_persistent:
        return Next.PERSIST_TARGET
    if source.presence is Presence.OFF and not goal.keeps_source:
        return Next.UNDEFINE_SOURCE
    return Next.MOVED
