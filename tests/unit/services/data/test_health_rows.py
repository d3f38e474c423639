"""From journal records to rows."""

from __future__ import annotations

from protocol.messages.health import HealthState
from protocol.messages.journal import JournalPage, JournalRecord
from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
    Verdict,
)
from protocol.records import Plain
from services.data import health_rows
from services.data.health_rows import NodeRow


def _state(seq: int, component: str, state: str, **fields: Plain) -> JournalRecord:
    return JournalRecord(
        seq=seq,
        time_s=100.0 + seq,
        name="component:state",
        component=component,
        fields={"state": state, **fields},
    )


def _node(seq: int, name: str, **fields: Plain) -> JournalRecord:
    return JournalRecord(
        seq=seq, time_s=100.0 + seq, name=name, component="novacron", fields=fields
    )


def test_last_state_of_each_component_wins() -> None:
    """One row per component, made from its last record."""
    records = [
        _state(1, "core/vm", "starting", pid=7, phase=4, level="core", failure="critical"),
        _state(2, "api", "healthy"),
        _state(3, "core/vm", "healthy", pid=8, phase=4, level="core", restarts=1, reason=""),
    ]

    rows = health_rows.component_rows(records)

    assert [(row.component, row.state, row.seq) for row in rows] == [
        ("api", "healthy", 2),
        ("core/vm", "healthy", 3),
    ]
    assert (rows[1].pid, rows[1].restarts, rows[1].phase, rows[1].level) == (8, 1, 4, "core")


def test_other_records_and_unknown_states_are_left_out() -> None:
    """A newer root may say more than we read; that is no error."""
    records = [_state(1, "api", "meditating"), _node(2, "init:complete")]

    assert health_rows.component_rows(records) == ()


def test_node_goes_through_its_phases_to_ready_and_stopping() -> None:
    """The names of the root's records are the node's life."""
    row: NodeRow | None = None
    seen = []
    for seq, (name, fields) in enumerate(
        [
            ("init:preflight-passed", {"phase": 0}),
            ("init:databases-connected", {"phase": 3}),
            ("operator:stop", {}),
            ("init:complete", {}),
            ("node:stopping", {}),
        ],
        start=1,
    ):
        row = health_rows.node_row([_node(seq, name, **fields)], row)
        assert row is not None
        seen.append((row.state, row.phase))

    assert row is not None
    assert row.started_s == 101.0
    assert seen == [
        ("starting", 0),
        ("starting", 3),
        ("starting", 3),
        ("ready", 6),
        ("stopping", 6),
    ]


def test_record_of_a_component_does_not_touch_the_node() -> None:
    """Only the root speaks for the node."""
    record = JournalRecord(seq=1, time_s=1.0, name="init:failed", component="api")

    assert health_rows.node_row([record], None) is None


def test_whole_status_counts_as_made_from_the_last_record_of_the_page() -> None:
    """What the journal says afterwards is applied on top."""
    page = JournalPage(boot_id="b", records=(), next=51, lost=40)
    status = NodeStatus(
        schema=SCHEMA,
        verdict=Verdict.DEGRADED,
        reason="",
        platform=PlatformStatus(
            name="n",
            version="1",
            node_id="n1",
            environment="e",
            roles=(),
            pid=1,
            state_dir="/s",
            started_s=0.0,
            uptime_s=1.0,
        ),
        phase=PhaseStatus(number=6, name="health", complete=True),
        components=(
            ComponentStatus(
                path="data/cache",
                id="cache",
                level="data",
                phase=3,
                failure="degraded",
                kind="service",
                state=HealthState.DEGRADED,
                reason="no Redis",
            ),
        ),
    )

    rows = health_rows.rows_of_status(status, page, 200.0)
    node = health_rows.node_row_of_status(status, page)

    assert [(row.component, row.state, row.reason, row.seq) for row in rows] == [
        ("data/cache", "degraded", "no Redis", 50)
    ]
    assert (node.state, node.phase, node.seq) == ("ready", 6, 50)
