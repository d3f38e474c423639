"""How a guest is stopped: ask kindly, then firmly, then take its power away. Pure.

States and transitions; a step whose time is 0 is never entered::

    IDLE   --Begin-->    AGENT    Ask(agent)
    any    --Asked-->    the same
    AGENT  --Refused-->  ACPI     Ask(acpi): nobody listens, so nothing is waited for
    AGENT  --Tick, late--> ACPI   Ask(acpi)
    ACPI   --Refused-->  FORCE    Ask(force)
    ACPI   --Tick, late--> FORCE  Ask(force)
    FORCE  --Refused-->  FAILED   GiveUp
    FORCE  --Tick, late--> FAILED GiveUp
    any    --Stopped-->  STOPPED  Report

Where there is no next step the guest runs on, and GiveUp says what it was asked. A kind step is
asked again while it lasts: a guest that boots is deaf, and hears the second time.
Invariant: power is taken away only in FORCE, and FORCE comes only after all others had their time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

# A guest that was deaf while it booted hears the next time.
ASK_AGAIN_S = 5.0


class Step(enum.Enum):
    """Where the machine is."""

    IDLE = "idle"
    AGENT = "agent"
    ACPI = "acpi"
    FORCE = "force"
    STOPPED = "stopped"
    FAILED = "failed"


_ORDER = (Step.AGENT, Step.ACPI, Step.FORCE)
_WORDS = {
    Step.AGENT: "its agent was asked",
    Step.ACPI: "its power button was pressed (ACPI)",
    Step.FORCE: "its hypervisor was told to end",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """The machine's state.

    Attributes:
        agent_s, acpi_s, force_s: time of each step; 0 = leave it out.
        late_s: when the present step is over.
        again_s: when the present step is asked again; 0 while it has not been asked.
        story: what was done and what came of it, one clause each.
    """

    agent_s: float
    acpi_s: float
    force_s: float
    step: Step = Step.IDLE
    late_s: float = 0.0
    again_s: float = 0.0
    story: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Begin:
    """Stop the guest."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The present step could not be asked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The guest does not run any more."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The present step was asked, and nobody refused."""


Event = Begin | Asked | Refused | Stopped | Tick


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the guest, or its hypervisor, in this step's way; answer with Refused if it can't be."""

    step: Step


@dataclass(frozen=True, slots=True)
class Report:
    """The guest is off; ``how`` says by which step."""

    how: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The guest runs on; ``why`` tells the whole story."""

    why: str


Action = Ask | Report | GiveUp


def step(state: Escalation, event: Event, now_s: float) -> tuple[Escalation, tuple[Action, ...]]:
    """The next state and what is to be done.

    Args:
        state: as of the last step.
        event: what happened.
        now_s: monotonic seconds.
    """
    if state.step in (Step.STOPPED, Step.FAILED):
        return state, ()
    if state.step is Step.IDLE and not isinstance(event, Begin | Stopped):
        return state, ()
    match event:
        case Stopped():
            return _stopped(state)
        case Begin():
            return _enter_next(state, now_s) if state.step is Step.IDLE else (state, ())
        case Asked():
            return replace(state, again_s=now_s + ASK_AGAIN_S), ()
        case Refused(reason):
            if state.again_s and state.step is not Step.FORCE:
                # It was heard once: that it does not listen any more may mean that it obeys.
                return replace(state, again_s=now_s + ASK_AGAIN_S), ()
            told = (*state.story, f"{_WORDS[state.step]} in vain: {reason}")
            return _enter_next(replace(state, story=told), now_s)
        case Tick():
            return _tick(state, now_s)


def _stopped(state: Escalation) -> tuple[Escalation, tuple[Action, ...]]:
    how = "was off already" if state.step is Step.IDLE else f"after {_WORDS[state.step]}"
    return replace(state, step=Step.STOPPED), (Report(how),)


def _tick(state: Escalation, now_s: float) -> tuple[Escalation, tuple[Action, ...]]:
    if now_s >= state.late_s:
        waited = f"{_WORDS[state.step]} and it did not stop within {_span_s(state):g} s"
        return _enter_next(replace(state, story=(*state.story, waited)), now_s)
    if state.step is not Step.FORCE and state.again_s and now_s >= state.again_s:
        return replace(state, again_s=now_s + ASK_AGAIN_S), (Ask(state.step),)
    return state, ()


def _enter_next(state: Escalation, now_s: float) -> tuple[Escalation, tuple[Action, ...]]:
    begin = 0 if state.step is Step.IDLE else _ORDER.index(state.step) + 1
    for candidate in _ORDER[begin:]:
        span_s = getattr(state, f"{candidate.value}_s")
        if span_s > 0:
            return (
                replace(state, step=candidate, late_s=now_s + span_s, again_s=0.0),
                (Ask(candidate),),
            )
    return replace(state, step=Step.FAILED), (GiveUp("; ".join(state.story)),)


def _span_s(state: Escalation) -> float:
    return float(getattr(state, f"{state.step.value}_s"))
