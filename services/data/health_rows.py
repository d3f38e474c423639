"""From journal records to rows of the health table: what changed last, per component.

Journal record ``component:state`` carries the fields state, reason, pid, restarts, phase, level
and failure. The node's own state follows from the names of its records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.messages.health import HealthState
from protocol.messages.journal import JournalPage, JournalRecord
from protocol.messages.status import NodeStatus, Verdict
from protocol.names import ROOT

COMPONENT_STATE = "component:state"
STARTING, READY, FAILED, STOPPING, STOPPED = "starting", "ready", "failed", "stopping", "stopped"
_STATES = frozenset(state.value for state in HealthState)
_COMPLETE_PHASE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRow:
    """One component's state; (boot_id, seq) is the record that says so."""

    component: str
    level: str
    phase: int
    failure: str
    state: str
    reason: str
    pid: int | None
    restarts: int
    seq: int
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """The node's state: starting, ready, failed, stopping or stopped, and its boot phase.

    ``started_s`` is the earliest time of this boot that the reader knows of.
    """

    state: str
    phase: int
    seq: int
    started_s: float


def component_rows(records: Iterable[JournalRecord]) -> tuple[ComponentRow, ...]:
    """The last state of each component that the records speak of, in the order of the records.

    A record that lacks a state that we know is left out: a newer root may say more than we read.
    """
    found: dict[str, ComponentRow] = {}
    for record in records:
        if record.name != COMPONENT_STATE or record.fields.get("state") not in _STATES:
            continue
        fields = record.fields
        found.pop(record.component, None)
        found[record.component] = ComponentRow(
            component=record.component,
            level=_text(fields.get("level", "")),
            phase=_integer(fields.get("phase")) or 0,
            failure=_text(fields.get("failure", "")),
            state=str(fields["state"]),
            reason=_text(fields.get("reason", "")),
            pid=_integer(fields.get("pid")),
            restarts=_integer(fields.get("restarts")) or 0,
            seq=record.seq,
            time_s=record.time_s,
        )
    return tuple(found.values())


def node_row(records: Iterable[JournalRecord], before: NodeRow | None) -> NodeRow | None:
    """The node's state after the records; ``before`` when they do not touch it."""
    row = before
    for record in records:
        if record.component != ROOT:
            continue
        phase = _integer(record.fields.get("phase"))
        state = _node_state(record.name)
        if state is None:
            continue
        if phase is None:
            phase = _COMPLETE_PHASE if state == READY else (row.phase if row else 0)
        started_s = row.started_s if row else record.time_s
        row = NodeRow(state=state, phase=phase, seq=record.seq, started_s=started_s)
    return row


def rows_of_status(status: NodeStatus, page: JournalPage, now_s: float) -> tuple[ComponentRow, ...]:
    """Rows for all components, for a reader that missed records.

    They count as made from the last record of the page: what comes after it is applied on top.
    """
    return tuple(
        ComponentRow(
            component=component.path,
            level=component.level,
            phase=component.phase,
            failure=component.failure,
            state=component.state.value,
            reason=_text(component.reason),
            pid=component.pid,
            restarts=component.restarts,
            seq=page.next - 1,
            time_s=now_s,
        )
        for component in status.components
    )


def node_row_of_status(status: NodeStatus, page: JournalPage) -> NodeRow:
    """The node's row, for a reader that missed records."""
    is_up = status.phase.complete or status.verdict is not Verdict.NOT_READY
    return NodeRow(
        state=READY if is_up else STARTING,
        phase=status.phase.number,
        seq=page.next - 1,
        started_s=status.platform.started_s,
    )


def _node_state(name: str) -> str | None:
    if name == "init:complete":
        return READY
    if name == "init:failed":
        return FAILED
    if name == "node:stopping":
        return STOPPING
    return STARTING if name.startswith("init:") else None


def _text(value: object) -> str:
    """Text that PostgreSQL takes: it has no NUL, which a reason may have from anywhere."""
    return str(value).replace("\x00", "\\x00")


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
