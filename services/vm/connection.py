"""When to connect to libvirt, and what to say meanwhile. Pure.

States and transitions; events of another generation than the current one are ignored, so a dying
connection can't disturb its successor::

    WAITING    --RetryDue-->        OPENING    Open
    OPENING    --Opened-->          CONNECTED  Report
    OPENING    --Lost-->            OPENING    remembered: callbacks come before the end of opening
    OPENING    --Opened, was lost--> WAITING   Discard, Report, WaitRetry
    OPENING    --OpenSlow-->        OPENING    Report; the attempt goes on, a second would hang too
    OPENING    --OpenFailed-->      WAITING    Report, WaitRetry
    CONNECTED  --CallTimedOut-->    MUTE       Report
    MUTE       --Answered-->        CONNECTED  ReadAll, Report
    CONNECTED, MUTE --Lost-->       WAITING    Discard, Report, WaitRetry
    CONNECTED  --ReadDue-->         CONNECTED  ReadAll

A connection that was lost never recovers; a new one must register its callbacks and read all
domains before it counts as open, since events in the gap are lost. Opening includes both.
Invariant: at most one attempt to open and one open connection at any time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from protocol.messages.health import HEALTHY, Health, HealthState

RETRY_FACTOR = 2.0


class Phase(enum.Enum):
    """Where the connection is."""

    WAITING = "waiting"
    OPENING = "opening"
    CONNECTED = "connected"
    MUTE = "mute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The machine's state.

    Attributes:
        generation: number of the current or last attempt; tells connections apart.
        failures: attempts that failed in a row.
        connections: connections that were made in all.
        reason: why it is not connected; "" when it is.
        broke: why the connection that is being opened already broke; "" when it did not.
    """

    retry_initial_s: float
    retry_max_s: float
    phase: Phase = Phase.WAITING
    generation: int = 0
    failures: int = 0
    connections: int = 0
    reason: str = "not connected to libvirt yet"
    broke: str = ""


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The pause is over."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The attempt succeeded: callbacks are registered and all domains read."""

    generation: int


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """The attempt failed."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class OpenSlow:
    """The attempt is past its deadline and still under way."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke, or a request found it broken."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class CallTimedOut:
    """A request is past its deadline and still under way."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was past its deadline came to an end."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReadDue:
    """What events told is no longer all: some were dropped, or libvirt may have sent none."""

    generation: int


Event = RetryDue | Opened | OpenFailed | OpenSlow | Lost | CallTimedOut | Answered | ReadDue


@dataclass(frozen=True, slots=True)
class Open:
    """Begin an attempt to connect."""

    generation: int


@dataclass(frozen=True, slots=True)
class WaitRetry:
    """Say RetryDue after a pause."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Discard:
    """Close the connection of this generation and forget it."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReadAll:
    """Read all domains anew and find out what changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Report:
    """Publish the component's health."""

    health: Health


Action = Open | WaitRetry | Discard | ReadAll | Report


def step(connection: Connection, event: Event) -> tuple[Connection, tuple[Action, ...]]:
    """Take one event in; returns the new state and what is to be done, in order."""
    if isinstance(event, RetryDue):
        return _retry_due(connection)
    if event.generation != connection.generation:
        return connection, ()
    match connection.phase, event:
        case Phase.OPENING, Lost(_, reason):
            return replace(connection, broke=reason), ()
        case Phase.OPENING, Opened(generation) if connection.broke:
            waiting, actions = _wait(connection, connection.broke)
            return waiting, (Discard(generation), *actions)
        case Phase.OPENING, Opened():
            opened = replace(
                connection,
                phase=Phase.CONNECTED,
                failures=0,
                connections=connection.connections + 1,
                reason="",
            )
            return opened, (Report(HEALTHY),)
        case Phase.OPENING, OpenSlow(_, reason):
            return replace(connection, reason=reason), (_degraded(reason),)
        case Phase.OPENING, OpenFailed(_, reason):
            return _wait(connection, reason)
        case Phase.CONNECTED, CallTimedOut(_, reason):
            return replace(connection, phase=Phase.MUTE, reason=reason), (_degraded(reason),)
        case Phase.MUTE, Answered():
            heard = replace(connection, phase=Phase.CONNECTED, reason="")
            return heard, (ReadAll(), Report(HEALTHY))
        case ((Phase.CONNECTED | Phase.MUTE), Lost(generation, reason)):
            waiting, actions = _wait(connection, reason)
            return waiting, (Discard(generation), *actions)
        case Phase.CONNECTED, ReadDue():
            return connection, (ReadAll(),)
        case _:
            return connection, ()


def _retry_due(connection: Connection) -> tuple[Connection, tuple[Action, ...]]:
    if connection.phase is not Phase.WAITING:
        return connection, ()
    generation = connection.generation + 1
    opening = replace(connection, phase=Phase.OPENING, generation=generation, broke="")
    return opening, (Open(generation),)


def _wait(connection: Connection, reason: str) -> tuple[Connection, tuple[Action, ...]]:
    failures = connection.failures + 1
    # The exponent is bounded so that a libvirt that is away for a year does not overflow it.
    delay_s = connection.retry_initial_s * RETRY_FACTOR ** min(failures - 1, 32)
    waiting = replace(connection, phase=Phase.WAITING, failures=failures, reason=reason)
    return waiting, (_degraded(reason), WaitRetry(min(delay_s, connection.retry_max_s)))


def _degraded(reason: str) -> Report:
    return Report(Health(HealthState.DEGRADED, reason))
