"""Which journal records become audit events, and with what in them."""

from __future__ import annotations

import pytest

from protocol.messages.journal import JournalRecord
from protocol.records import Plain
from services.security.audit import FIELDS_BYTES_MAX
from services.security.audit_source import event_of


def record(name: str, component: str = "core/vm", **fields: Plain) -> JournalRecord:
    """A journal record."""
    return JournalRecord(
        seq=5, time_s=1_700_000_000.25, name=name, component=component, fields=fields
    )


ROOT = "novacron"
VM = "core/vm"
LIFECYCLE = [
    (record("component:state", state="healthy"), "component:healthy", ROOT, VM, "success"),
    (record("component:state", state="stopped"), "component:stopped", ROOT, VM, "success"),
    (record("component:state", state="degraded"), "component:degraded", ROOT, VM, "failure"),
    (record("component:state", state="unhealthy"), "component:unhealthy", ROOT, VM, "failure"),
    (record("component:exited", reason="shutdown"), "component:exited", ROOT, VM, "success"),
    (record("component:exited", reason="crashed"), "component:exited", ROOT, VM, "failure"),
    (
        record("operator:restart", "core", caller="uid 0", id="vm"),
        "operator:restart", "uid 0", "vm", "success",
    ),
    (
        record("operator:stop", "core", caller="x", id="vm", outcome="denied"),
        "operator:stop", "x", "vm", "denied",
    ),
    (record("operator:stop", "core"), "operator:stop", "operator", "core", "success"),
    (record("init:complete", ROOT), "init:complete", ROOT, ROOT, "success"),
    (record("init:failed", ROOT), "init:failed", ROOT, ROOT, "failure"),
    (record("node:stopping", ROOT), "node:stopping", ROOT, ROOT, "success"),
    (
        record("key:rotated", "security", caller="operator/eve", key_id="k"),
        "key:rotated", "operator/eve", "k", "success",
    ),
    (record("key:failed", "security"), "key:failed", "security", "security", "failure"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "action", "actor", "subject", "outcome"), LIFECYCLE)
def test_lifecycle_records_become_events(
    found: JournalRecord, action: str, actor: str, subject: str, outcome: str
) -> None:
    """Every lifecycle record has one action, actor, subject and outcome."""
    event = event_of("boot", found)

    assert event is not None
    assert (event.action, event.actor, event.subject, event.outcome) == (
        action, actor, subject, outcome,
    )  # fmt: skip
    assert (event.boot_id, event.journal_seq, event.time_us) == ("boot", 5, 1_700_000_000_250_000)


@pytest.mark.parametrize(
    "found",
    [
        record("component:state", state="starting"),
        record("component:state"),
        record("component:resources", cpu=1),
        record("vm:started"),
        record("audit:bad-record"),
        record("initial:thing"),
        record(""),
    ],
)
def test_other_records_do_not(found: JournalRecord) -> None:
    """What is no lifecycle action is left to the journal."""
    assert event_of("boot", found) is None


def test_fields_and_correlation_are_kept() -> None:
    """The request that led to an action can be found by its id."""
    found = JournalRecord(
        seq=5, time_s=1.0, name="component:exited", component="c", correlation="r-1",
        fields={"reason": "killed", "restarts": 2},
    )  # fmt: skip

    event = event_of("boot", found)

    assert event is not None
    assert event.fields == {"reason": "killed", "restarts": 2, "correlation": "r-1"}


def test_a_record_that_is_too_large_is_recorded_without_its_details() -> None:
    """That something happened is never left out."""
    event = event_of("boot", record("init:failed", "novacron", trace="x" * FIELDS_BYTES_MAX))

    assert event is not None
    assert event.action == "init:failed"
    assert "at most" in event.fields["left_out"]


def test_a_record_with_an_odd_name_is_recorded_under_its_noun() -> None:
    """A name that is no action does not keep a record out, nor the reader from going on."""
    event = event_of("boot", record("operator:Do It\0", caller="c" * 5000, id="i" * 5000))

    assert event is not None
    assert event.action == "operator:unnamed"
    assert len(event.actor) == len(event.subject) == 512
