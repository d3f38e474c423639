"""novacronctl trace: whom to ask, what is of interest, and how a decision reads."""

from __future__ import annotations

import dataclasses

import pytest

from protocol.messages.status import ComponentStatus
from protocol.messages.trace import Decision, TraceItem
from services.ctl.styled import cells, to_plain
from services.ctl.traceline import render_decision
from services.ctl.tracing import is_about, supervisors_of
from tests.unit.services.ctl.ctl_samples import component


def supervisor(path: str, *, pid: int | None = 5) -> ComponentStatus:
    """A component that is a supervisor."""
    return dataclasses.replace(component(path, "x", pid=pid), kind="supervisor")


def decision(event: TraceItem, *actions: TraceItem, supervisor: str = "core") -> Decision:
    """A decision of core, unless it is another's."""
    return Decision(
        seq=1,
        time_s=0.25,
        at_s=1.0,
        supervisor=supervisor,
        mode="running",
        used=2,
        intensity=5,
        event=event,
        actions=actions,
    )


def item(name: str, **fields: object) -> TraceItem:
    """An event or action."""
    return TraceItem(name=name, fields=dict(fields))


EXITED = item("exited", id="vm", incarnation=1, reason={"kind": "killed", "detail": "SIGKILL"})


def text(found: Decision, width: int = 110) -> list[str]:
    """The lines without their time of day, which depends on the zone."""
    return [to_plain(spans)[14:] for spans in render_decision(found, width=width)]


@pytest.mark.parametrize(
    ("event", "actions", "expected"),
    [
        (
            EXITED,
            [
                item("changed", id="vm", state="waiting", retry_in_s=0.2),
                item("changed", id="vm", state="waiting", retry_in_s=0.2),
            ],
            "vm exited: killed: SIGKILL [2 of 5 restarts]  → vm is waiting, next try in 0.20 s",
        ),
        (item("spawned", id="vm", pid=77), [], "vm runs as 77  → nothing"),
        (
            item("restart_child", id="vm"),
            [item("ask_stop", id="vm", incarnation=1)],
            "operator: restart vm  → ask vm to stop",
        ),
        (
            item("tick"),
            [item("spawn", id="vm", type="service", incarnation=2), item("kill", id="x")],
            "time passed  → spawn vm, process 2; kill x",
        ),
        (item("begin"), [item("spawn", id="vm", incarnation=1)], "begin  → spawn vm"),
        (
            item("stop_all", reason={"kind": "shutdown"}),
            [item("finish", reason={"kind": "shutdown", "detail": "SIGTERM"})],
            "stop everything: shutdown  → finish: shutdown: SIGTERM",
        ),
        (item("add_child", id="new"), [item("all_up")], "add_child id=new  → all are up"),
        (item("spawned", id="vm"), [item("more", count=3)], "spawned id=vm  → 3 more"),
    ],
)
def test_decision_on_one_line(event: TraceItem, actions: list[TraceItem], expected: str) -> None:
    """What happened, an arrow, what was decided; what is unknown stands in its own words."""
    assert text(decision(event, *actions)) == [f"core       {expected}"]


def test_long_decision_is_wrapped_below_its_event() -> None:
    """What does not fit on the line goes below it and is not cut."""
    actions = [item("spawn", id=f"child-{number}", incarnation=1) for number in range(8)]

    lines = text(decision(EXITED, *actions), width=80)

    assert lines[0].strip().endswith("[2 of 5 restarts]")
    assert lines[1].strip().startswith("→ spawn child-0; ")
    assert lines[-1].strip().endswith("child-7")
    assert max(cells(row) for row in lines) + 14 <= 80


def test_foreign_text_is_harmless() -> None:
    """A reason can't steer the terminal."""
    found = decision(item("exited", id="vm", reason={"kind": "crashed", "detail": "\x1b[2J"}))

    assert "\x1b" not in text(found)[0]


def test_supervisors_that_are_asked() -> None:
    """All of them, or the one above a component and those below it."""
    components = [
        component("telemetry", "telemetry"),
        *(supervisor(path) for path in ("data", "core", "core/dwcp")),
        supervisor("optional", pid=None),
    ]

    assert supervisors_of(components) == ["novacron", "data", "core", "core/dwcp"]
    assert supervisors_of(components, "core") == ["novacron", "core", "core/dwcp"]
    assert supervisors_of(components, "core/vm") == ["core"]


@pytest.mark.parametrize(
    ("supervisor_path", "path", "expected"),
    [
        ("core", "novacron", True),
        ("core", "core/vm", True),
        ("core", "core/network", False),
        ("core", "core", True),
        ("core/dwcp", "core", True),
        ("core-two", "core", False),
        ("data", "core/vm", False),
    ],
)
def test_decisions_of_interest(supervisor_path: str, path: str, *, expected: bool) -> None:
    """A component's own, those that name it, and those of supervisors below it."""
    found = decision(item("tick"), item("spawn", id="vm"), supervisor=supervisor_path)

    assert is_about(found, path) is expected
