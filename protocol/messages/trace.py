"""A supervisor's decisions as they are taken: what it answers to the call ``trace``.

An operator calls ``trace`` at any supervisor with a TraceQuery and gets a TracePage. The first
call starts the recording, and the supervisor stops it some seconds after the last one. A reader
asks again with ``recording`` and ``since`` taken from the page before; the supervisor holds the
answer back until there is something or ``wait_s`` has passed.

``novacronctl trace --json`` prints one Decision per line, so its field names are a public
interface.
"""

from __future__ import annotations

from protocol.dataclass import dataclass, field
from protocol.records import Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceItem:
    """An event or an action of the state machine.

    Attributes:
        name: such as ``exited`` or ``spawn``; see supervisor/core/events.py and actions.py.
        fields: plain data; ``id`` is the child's name. Settings of a child are never part of it.
    """

    name: str
    fields: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One event that the state machine took in, and the actions that it decided.

    Attributes:
        seq: grows by one per decision of one recording, from 1.
        time_s: Unix time.
        at_s: CLOCK_MONOTONIC, by which decisions of several supervisors are put in order.
        supervisor: path of the supervisor.
        mode: what the supervisor as a whole was doing afterwards.
        used: restarts that count against its intensity afterwards.
        intensity: the restarts that it allows.
        event: what happened.
        actions: what is to be done, in this order; may be empty.
    """

    seq: int
    time_s: float
    at_s: float
    supervisor: str
    mode: str
    used: int
    intensity: int
    event: TraceItem
    actions: tuple[TraceItem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceQuery:
    """Decisions with ``seq >= since`` of a recording, at most ``limit``.

    The supervisor waits up to ``wait_s`` for the first. No ``recording`` means from now on, and
    another one than the present one from its beginning.
    """

    recording: str = ""
    since: int = 0
    limit: int = 200
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePage:
    """Decisions in order.

    Attributes:
        recording: identifies the numbering.
        decisions: may be empty.
        next: the ``since`` of the next query.
        lost: decisions between ``since`` and the first one here that are no longer kept.
    """

    recording: str
    decisions: tuple[Decision, ...]
    next: int
    lost: int = 0
