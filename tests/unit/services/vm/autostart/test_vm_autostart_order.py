"""Which machines start with the host, in which order, and what is remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm.autostart.memory import AutostartFile, read_boot_id
from services.vm.autostart.model import AutostartOutcome, AutostartRecord, AutostartResult
from services.vm.autostart.order import (
    ATTEMPTS_MAX,
    Begin,
    GoOn,
    Nothing,
    Remember,
    decide,
    levels,
    machines_to_start,
    settled,
)
from services.vm.documents.records import DocumentInfo


def document(name: str, priority: int = 500, **changes: object) -> DocumentInfo:
    """A document that starts with the host."""
    values: dict[str, object] = {"power": "keep", "autostart": True, **changes}
    return DocumentInfo(name=name, version=1, epoch=1, priority=priority, **values)  # type: ignore[arg-type] # by name


def test_machines_start_by_priority_then_by_name() -> None:
    """The highest first; who does not start with the host, or is to be off, is left out."""
    found = machines_to_start(
        [
            document("web-2", 500),
            document("db", 900),
            document("web-1", 500),
            document("idle", 1000, autostart=False),
            document("old", 1000, power="off"),
            document("batch", 0, power="on"),
        ]
    )

    assert [item.name for item in found] == ["db", "web-1", "web-2", "batch"]
    assert [[item.name for item in level] for level in levels(found)] == [
        ["db"],
        ["web-1", "web-2"],
        ["batch"],
    ]


@pytest.mark.parametrize(
    ("remembered", "expected"),
    [
        (None, Remember()),
        (AutostartRecord(boot_id="old", is_over=True), Begin()),
        (AutostartRecord(boot_id="old"), Begin()),
        (AutostartRecord(boot_id="now", is_over=True), Nothing()),
        (AutostartRecord(boot_id="now"), GoOn(AutostartRecord(boot_id="now"))),
    ],
)
def test_only_another_boot_of_the_host_starts_machines(
    remembered: AutostartRecord | None, expected: object
) -> None:
    """A platform that is new or was restarted starts nothing; one that was killed goes on."""
    assert decide(remembered, "now") == expected


def test_what_failed_is_tried_again_and_then_left() -> None:
    """Machines that were dealt with, or tried often enough, are in no level."""
    machines = [
        AutostartResult(name="a", priority=1, outcome=AutostartOutcome.STARTED, attempts=1),
        AutostartResult(name="b", priority=1, outcome=AutostartOutcome.RUNNING, attempts=1),
        AutostartResult(name="c", priority=1, outcome=AutostartOutcome.FAILED, attempts=1),
        AutostartResult(name="d", priority=1, outcome=AutostartOutcome.SKIPPED, attempts=1),
        AutostartResult(
            name="e", priority=1, outcome=AutostartOutcome.FAILED, attempts=ATTEMPTS_MAX
        ),
    ]

    assert [[item.name for item in level] for level in levels(machines)] == [["c"]]


def test_a_start_that_ends_the_component_is_not_tried_for_ever() -> None:
    """Each attempt counts before it is made; the last one that nobody outlived has failed."""
    machine = AutostartResult(name="a", priority=1, outcome=AutostartOutcome.STARTING)
    fine = AutostartResult(name="b", priority=1, outcome=AutostartOutcome.STARTED)
    exhausted = replace(machine, attempts=ATTEMPTS_MAX)

    assert levels([replace(machine, attempts=ATTEMPTS_MAX - 1)])
    assert not levels([exhausted])
    record = settled(AutostartRecord(boot_id="b", machines=(exhausted, fine)))
    assert record.is_over
    assert [item.outcome for item in record.machines] == [
        AutostartOutcome.FAILED,
        AutostartOutcome.STARTED,
    ]
    assert "ended" in record.machines[0].message


@given(
    st.lists(st.tuples(st.text("ab-", min_size=1, max_size=3), st.integers(0, 1000)), max_size=9)
)
def test_levels_hold_every_machine_once_and_never_rise(wanted: list[tuple[str, int]]) -> None:
    """No order of documents makes a machine start twice or before a higher one."""
    found = machines_to_start(document(name, priority) for name, priority in dict(wanted).items())

    flat = [item for level in levels(found) for item in level]

    assert flat == list(found)
    assert [item.priority for item in flat] == sorted(
        (item.priority for item in flat), reverse=True
    )


def test_a_record_is_kept_and_read(tmp_path: Path) -> None:
    """All of it, in a directory that was not there."""
    record = AutostartRecord(
        boot_id="b", machines=(AutostartResult(name="web-1", priority=3, message="no disk"),)
    )
    file = AutostartFile(tmp_path / "vm", node_id="n1")

    assert file.read() is None
    file.write(record)

    assert file.read() == record
    assert [path.name for path in (tmp_path / "vm").iterdir()] == ["autostart.json"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"format": 2, "node_id": "n1"}', "[" * 100_000, "\xff"]
)
def test_a_record_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    """Garbage is told with its file, and never taken for a record."""
    (tmp_path / "autostart.json").write_bytes(content.encode("latin-1"))

    with pytest.raises(ValueError, match=r"autostart\.json"):
        AutostartFile(tmp_path, node_id="n1").read()


def test_the_record_of_another_node_is_refused(tmp_path: Path) -> None:
    """A copied state directory starts nothing."""
    AutostartFile(tmp_path, node_id="n1").write(AutostartRecord(boot_id="b"))

    with pytest.raises(ValueError, match="another node"):
        AutostartFile(tmp_path, node_id="n2").read()


def test_a_killed_write_leaves_the_old_record(tmp_path: Path) -> None:
    """What a dead process left beside the file is overwritten."""
    file = AutostartFile(tmp_path, node_id="n1")
    file.write(AutostartRecord(boot_id="b"))
    (tmp_path / "autostart.new").write_text('{"format": 1, "no')

    file.write(AutostartRecord(boot_id="c", is_over=True))

    assert json.loads((tmp_path / "autostart.json").read_text())["record"]["boot_id"] == "c"


def test_the_boot_id_is_read(tmp_path: Path) -> None:
    """Without its line end."""
    (tmp_path / "boot_id").write_text("3c9f\n")

    assert read_boot_id(tmp_path / "boot_id") == "3c9f"
