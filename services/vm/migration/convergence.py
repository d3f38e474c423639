"""When a migration may let the guest stand still for longer, and when it is given up. Pure.

A guest that writes memory faster than the line takes is never done. So the downtime that QEMU may
use begins small and is raised, a step at a time, once the memory has been gone through::

    first look          -> Allow(limit / steps)
    each step_s, from the second iteration on, up to the limit -> Allow(the next step)
    timeout, cancel     -> GiveUp
    timeout, finish     -> Allow(FINISH_MS): the guest stands still until the rest is over
    nothing sent for stall_s -> GiveUp

Invariants: what is allowed never falls by itself and never exceeds the limit but by ``finish``;
GiveUp comes once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.vm.migration.model import Figures, OnTimeout

STEPS = 10
STEP_S = 5.0
# More than libvirt takes as a number of milliseconds is refused by it; this is its largest.
FINISH_MS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """The machine's state.

    Attributes:
        limit_ms: the most that may be allowed.
        timeout_s, stall_s: see the module; a timeout of 0 is none.
        allowed_ms: what is allowed now; 0 before the first look.
        began_s: of the first look.
        raised_s: of the last raise.
        sent_bytes, moved_s: what was sent when last something was, and when.
        is_finishing, is_over: the timeout has been acted upon; it was given up.
    """

    limit_ms: int
    timeout_s: float
    on_timeout: OnTimeout
    stall_s: float
    allowed_ms: int = 0
    began_s: float = 0.0
    raised_s: float = 0.0
    sent_bytes: int = 0
    moved_s: float = 0.0
    is_finishing: bool = False
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """Let the guest stand still for so long."""

    downtime_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End it; ``reason`` is for the operator."""

    reason: str


Action = Allow | GiveUp


def step(
    state: Convergence, now_s: float, figures: Figures | None
) -> tuple[Convergence, tuple[Action, ...]]:
    """Look at a migration; returns the new state and what is to be done.

    Args:
        state: of the last look.
        now_s: monotonic time.
        figures: None where they could not be read.
    """
    if state.is_over:
        return state, ()
    if not state.allowed_ms:
        first_ms = max(state.limit_ms // STEPS, 1)
        begun = replace(state, allowed_ms=first_ms, began_s=now_s, raised_s=now_s, moved_s=now_s)
        return begun, (Allow(first_ms),)
    if figures is not None and figures.sent_bytes != state.sent_bytes:
        state = replace(state, sent_bytes=figures.sent_bytes, moved_s=now_s)
    if now_s - state.moved_s >= state.stall_s:
        return _give_up(state, f"nothing has been sent for {state.stall_s:g} s")
    is_late = state.timeout_s > 0 and now_s - state.began_s >= state.timeout_s
    if is_late and not state.is_finishing:
        if state.on_timeout is OnTimeout.FINISH:
            done = replace(state, is_finishing=True, allowed_ms=FINISH_MS)
            return done, (Allow(FINISH_MS),)
        return _give_up(state, _slow(state, figures))
    return _raise(state, now_s, figures)


def change_limit(state: Convergence, limit_ms: int) -> tuple[Convergence, tuple[Action, ...]]:
    """Take another limit; what is allowed follows at once where it is lower."""
    state = replace(state, limit_ms=limit_ms)
    if state.is_finishing or state.allowed_ms <= limit_ms:
        return state, ()
    return replace(state, allowed_ms=limit_ms), (Allow(limit_ms),)


def _raise(
    state: Convergence, now_s: float, figures: Figures | None
) -> tuple[Convergence, tuple[Action, ...]]:
    has_gone_through = figures is not None and figures.iteration >= 2
    is_due = now_s - state.raised_s >= STEP_S
    if state.is_finishing or not (has_gone_through and is_due):
        return state, ()
    if state.allowed_ms >= state.limit_ms:
        return state, ()
    more_ms = min(state.allowed_ms + max(state.limit_ms // STEPS, 1), state.limit_ms)
    return replace(state, allowed_ms=more_ms, raised_s=now_s), (Allow(more_ms),)


def _give_up(state: Convergence, reason: str) -> tuple[Convergence, tuple[Action, ...]]:
    return replace(state, is_over=True), (GiveUp(reason),)


def _slow(state: Convergence, figures: Figures | None) -> str:
    reason = f"it was not done within {state.timeout_s:g} s"
    if figures is None or not figures.iteration:
        return reason
    return (
        f"{reason}: the guest writes {figures.dirty_bytes_s >> 10} KiB/s, "
        f"{figures.bytes_s >> 10} KiB/s are sent, and {figures.remaining_bytes >> 10} KiB are left"
    )
