"""novacronctl explain: the screen for each state that a component can be in."""

from __future__ import annotations

import dataclasses
import textwrap
import time

import pytest

from protocol.messages.explain import (
    Budget,
    ChildExplanation,
    Hold,
    Order,
    PastExit,
    Relation,
    Supervision,
)
from protocol.messages.health import HealthState
from services.ctl.explaining import Explained
from services.ctl.explanation import render_explanation
from services.ctl.styled import cells, to_plain
from tests.unit.services.ctl.ctl_samples import component

# Noon of some day, wherever the test runs.
NOW_S = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))
SHARED = Budget(used=2, intensity=5, period_s=60.0, shared=True)
OWN = Budget(used=0, intensity=5, period_s=60.0, shared=False)
CRASH = PastExit(time_s=NOW_S - 5, incarnation=2, kind="crashed", detail="exit code 1", ran_s=0.2)
STOP = Order(time_s=NOW_S - 242, verb="stop")
SUPERVISOR = Supervision(
    path="core",
    mode="running",
    strategy="one_for_one",
    budget=SHARED,
    starting=0,
    start_concurrency=4,
)
CHILD = ChildExplanation(
    path="core/vm",
    state=HealthState.HEALTHY,
    since_s=NOW_S - 60,
    decision="up",
    wanted=True,
    kind="service",
    failure="critical",
    restart="permanent",
    pid=4251,
    incarnation=3,
    restarts=2,
    start_timeout_s=30.0,
    shutdown_s=5.0,
    budget=SHARED,
)


def explained(**changes: object) -> Explained:
    """What the node says of core/vm, with some fields of the child changed."""
    return Explained(
        component=component("core/vm", "vm", uptime_s=60.0),
        child=dataclasses.replace(CHILD, **changes),  # type: ignore[arg-type]  # test data
        supervisor=SUPERVISOR,
    )


def screen(found: Explained, width: int = 90) -> str:
    """The screen as text."""
    return "\n".join(to_plain(s) for s in render_explanation(found, now_s=NOW_S, width=width))


def test_whole_screen_of_a_degraded_component() -> None:
    """State, cause, next try, budget, relations, last exits, and what can be done."""
    found = explained(
        state=HealthState.DEGRADED,
        reason="start_failed: no libvirt",
        decision="degraded",
        failure="degraded",
        pid=None,
        attempts=2,
        retry_in_s=2.3,
        since_s=NOW_S - 5,
        budget=OWN,
        exits=(
            dataclasses.replace(CRASH, time_s=NOW_S - 125, kind="shutdown", detail="", ran_s=90.0),
            dataclasses.replace(CRASH, time_s=NOW_S - 9, detail="", kind="killed"),
            dataclasses.replace(CRASH, kind="start_failed", detail="no libvirt", code="vm.gone"),
        ),
        depends_on=(Relation(path="core/network", state=HealthState.HEALTHY),),
        dependents=(Relation(path="core/dwcp", state=HealthState.HEALTHY),),
    )

    assert screen(found) == textwrap.dedent(
        """\
        core/vm is degraded since 11:59:55 (5s)
          start_failed: no libvirt

        why          given up for the 2nd time in a row: exited 2 times in the last 60 s (limit 5)
        next try     in 2.30 s
        restarts     2 so far; it has used 0 of 5 within 60 s and rests longer past them
        needs        core/network (healthy)
        needed by    core/dwcp
        process      none; it has had 3
        rules        degraded class: it never takes its supervisor along; restarted after every
                     end; 30 s to start, 5 s to stop; one_for_one in core

        LAST EXITS        AGO   RAN FOR  REASON
        11:59:55.000       5s    0.20 s  start_failed: no libvirt (vm.gone)
        11:59:51.000       9s    0.20 s  killed
        11:57:55.000    2m 5s    1m 30s  shutdown

        What you can do
          novacronctl logs --since 10m core/vm  what it logged
          novacronctl start core/vm             try now, once the cause is mended"""
    )


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, ["core/vm is healthy since 11:59:00 (1m 0s)", "has said that it is ready"]),
        ({"exits": (CRASH,)}, ["before that it exited once in the last 60 s (limit 5)"]),
        (
            {"state": HealthState.DEGRADED, "reason": "slow"},
            ["says so itself", "  slow", "logs --level warning"],
        ),
        (
            {"decision": "starting", "state": HealthState.STARTING, "deadline_in_s": 27.5},
            ["process 3 was started and has not", "27.50 s of 30 s are left", "logs -f core/vm"],
        ),
        (
            {
                "decision": "stopping",
                "deadline_in_s": 3.2,
                "order": Order(time_s=NOW_S - 2, verb="stop"),
            },
            ["asked to stop by an operator 2s ago", "3.20 s of 5 s are left, then it is killed"],
        ),
        ({"decision": "stopping", "shutdown_s": None}, ["as long as it needs", "any time to stop"]),
        (
            {"decision": "stopped", "wanted": False, "order": STOP},
            ["stopped by an operator 4m 2s ago; it stays so", "start core/vm  have it run again"],
        ),
        (
            {
                "decision": "stopped",
                "wanted": False,
                "restart": "transient",
                "exits": (dataclasses.replace(CRASH, kind="normal"),),
            },
            ["it has finished, and is transient"],
        ),
        (
            {
                "decision": "stopped",
                "wanted": False,
                "exits": (dataclasses.replace(CRASH, kind="declined"),),
            },
            ["it had nothing to do and said so"],
        ),
        (
            {"decision": "waiting", "retry_in_s": 0.4, "exits": (CRASH,),
             "holds": (Hold(kind="pause", left_s=0.4),)},
            ["it is to run again: exited once", "next try     in 0.40 s", "the pause before"],
        ),
        (
            {"decision": "waiting", "holds": (Hold(kind="stop", path="core/x", left_s=4.0),)},
            ["has not been started yet", "waits for    core/x to stop first, 4.00 s at most"],
        ),
        ({"decision": "waiting", "holds": (Hold(kind="slots"),)}, ["only so many start at once"]),
        (
            {"decision": "waiting", "holds": (Hold(kind="supervisor", path="core"),)},
            ["core is stopping and starts no more"],
        ),
        ({"decision": "waiting", "holds": (Hold(kind="moon", path="full"),)}, ["moon full"]),
        ({"takes_along": ("core/a", "core/b")}, ["takes along  core/a, core/b"]),
        (
            {"order": Order(time_s=NOW_S - 44, verb="restart")},
            ["operator     restart, 44s ago"],
        ),
    ],
)  # fmt: skip
def test_each_state_is_told_in_its_words(changes: dict[str, object], sentences: list[str]) -> None:
    """What the supervisor decided is a sentence, with the times that matter in that state."""
    text = screen(explained(**changes), width=200)

    for sentence in sentences:
        assert sentence in text


def test_wait_for_a_dependency_is_named_at_both_ends() -> None:
    """What is waited for stands with its state, and who waits is listed up to the root."""
    waiting = explained(
        decision="waiting",
        state=HealthState.STARTING,
        holds=(Hold(kind="dependency", path="core/network"),),
        depends_on=(Relation(path="core/network", state=HealthState.STARTING, holds=True),),
        dependents=(Relation(path="core/dwcp", state=HealthState.STARTING, holds=True),),
    )
    above = dataclasses.replace(
        CHILD,
        path="core",
        dependents=(
            Relation(path="api", state=HealthState.STARTING, holds=True),
            Relation(path="security", state=HealthState.HEALTHY),
        ),
    )

    text = screen(dataclasses.replace(waiting, above=(above,)))

    assert "waits for    core/network (starting)" in text
    assert "wait for it  core/dwcp, api" in text
    assert "needed by    security" in text
    assert "novacronctl explain core/network  why that is not up" in text


def test_component_whose_supervisor_is_not_there() -> None:
    """Then the state of the supervisor is the reason, and it is what to ask about."""
    above = dataclasses.replace(
        CHILD, path="core", state=HealthState.STARTING, reason="restarting after killed: SIGKILL"
    )
    found = Explained(
        component=component("core/vm", "vm", state=HealthState.STARTING, pid=None, uptime_s=None),
        above=(above,),
        problem="core is not running",
    )

    text = screen(found, width=200)

    assert text.startswith("core/vm is starting\n")
    assert "it waits for its supervisor core, which is starting: restarting after killed" in text
    assert "novacronctl explain core" in text
    assert "core is not running" in screen(dataclasses.replace(found, above=()))


def test_supervisor_tells_of_itself() -> None:
    """A supervisor has a budget of its own, and children that it has not started yet."""
    own = dataclasses.replace(SUPERVISOR, mode="booting", waiting=("core/vm", "core/dwcp"))
    root = Explained(component=component("novacron", "novacron", uptime_s=90.0), own=own)

    text = screen(root, width=120)

    assert text.startswith("novacron is healthy, up for 1m 30s\n")
    assert "one_for_one, booting; it has used 2 of 5 within 60 s and gives up past them" in text
    assert "not started  core/vm, core/dwcp" in text


def test_narrow_screen_wraps_and_foreign_text_is_harmless() -> None:
    """Sentences are wrapped under their titles; nothing in a reason can steer the terminal."""
    end = dataclasses.replace(CRASH, detail="evil \x1b[2J " + "word " * 30, origin="core/vm/x")
    found = explained(exits=(end,), reason="\x1b]0;title")

    text = screen(found, width=60)

    assert "\x1b" not in text
    assert "began in core/vm/x" in " ".join(text.split())
    assert max(cells(row) for row in text.splitlines()) <= 60
